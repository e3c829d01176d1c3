package api

func networkRoutes() []route {
	return []route{}
}
