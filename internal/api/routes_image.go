package api

func imageRoutes() []route {
	return []route{}
}
