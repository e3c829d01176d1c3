package api

func imageRoutes() []route {
	return []route{
		{"GET", "/images/json", merged, listImages, "from memory; one row for an image on any number of nodes; filter node is added"},
		{"GET", "/images/get", owner, saveImages, "images of several nodes are gathered on one first"},
		{"GET", "/images/search", anyNode, askRegistry, ""},
		{"POST", "/images/create", all, createImage, "pulls on every node, after a create's 404 on the chosen one; imports on one node and copies to the others"},
		{"POST", "/images/load", all, loadImages, "the archive goes to every node while it comes in"},
		{"POST", "/images/prune", all, pruneImages, ""},
		{"GET", "/images/{name}/json", owner, inspectImage, "the names of all nodes are shown"},
		{"GET", "/images/{name}/history", owner, historyImage, ""},
		{"GET", "/images/{name}/get", owner, saveImage, ""},
		{"POST", "/images/{name}/tag", all, tagImage, "on every node that has the image"},
		{"POST", "/images/{name}/push", owner, pushImage, ""},
		{"DELETE", "/images/{name}", all, removeImage, "on every node that has the image, where it is in use first"},
		{"GET", "/distribution/{name}/json", anyNode, askRegistry, ""},
		{"POST", "/auth", anyNode, login, "stored nowhere"},
		{"POST", "/build", placed, buildImage, "all builds of one client go to one node for a while; rules may stand among the build arguments"},
		{"POST", "/build/prune", all, pruneBuilds, ""},
		{"POST", "/build/cancel", all, cancelBuild, ""},
		{"POST", "/session", placed, onBuilder, "to the client's builder"},
		{"POST", "/grpc", placed, onBuilder, "to the client's builder"},
	}
}
