package api

func systemRoutes() []route {
	return []route{}
}
