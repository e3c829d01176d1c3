package api

import "slices"

// routes is the one place that knows what is done with each route of the Docker Engine API. Within a method and first word
// fixed words stand before wildcards.
func routes() []route {
	return slices.Concat(containerRoutes(), imageRoutes(), networkRoutes(), systemRoutes(), memberRoutes(), overlayRoutes(), placeRoutes())
}

func containerRoutes() []route {
	return []route{
		{"GET", "/containers/json", merged, listContainers, "from memory; names, label berth.node and filter node are added"},
		{"POST", "/containers/create", placed, createContainer, "constraints, affinities and filters choose the node; with --socket=fleet a mounted docker.sock is the fleet's"},
		{"POST", "/containers/prune", all, pruneContainers, ""},
		{"GET", "/containers/{id}/json", owner, inspectContainer, "object Node and label berth.node are added"},
		{"GET", "/containers/{id}/top", owner, passContainer, ""},
		{"GET", "/containers/{id}/logs", owner, passContainer, ""},
		{"GET", "/containers/{id}/changes", owner, passContainer, ""},
		{"GET", "/containers/{id}/export", owner, passContainer, ""},
		{"GET", "/containers/{id}/stats", owner, passContainer, ""},
		{"GET", "/containers/{id}/attach/ws", owner, passContainer, ""},
		{"GET", "/containers/{id}/archive", owner, passContainer, ""},
		{"HEAD", "/containers/{id}/archive", owner, passContainer, ""},
		{"PUT", "/containers/{id}/archive", owner, passContainer, ""},
		{"GET", "/containers/{id}/checkpoints", owner, passContainer, ""},
		{"POST", "/containers/{id}/checkpoints", owner, passContainer, ""},
		{"DELETE", "/containers/{id}/checkpoints/{checkpoint}", owner, passContainer, ""},
		{"POST", "/containers/{id}/resize", owner, passContainer, ""},
		{"POST", "/containers/{id}/wait", owner, waitContainer, ""},
		{"POST", "/containers/{id}/attach", owner, attachContainer, ""},
		{"POST", "/containers/{id}/start", owner, changeContainer, ""},
		{"POST", "/containers/{id}/stop", owner, changeContainer, ""},
		{"POST", "/containers/{id}/restart", owner, changeContainer, ""},
		{"POST", "/containers/{id}/kill", owner, changeContainer, ""},
		{"POST", "/containers/{id}/pause", owner, changeContainer, ""},
		{"POST", "/containers/{id}/unpause", owner, changeContainer, ""},
		{"POST", "/containers/{id}/update", owner, updateContainer, ""},
		{"POST", "/containers/{id}/rename", owner, renameContainer, "names are unique over the fleet"},
		{"POST", "/containers/{id}/exec", owner, createExec, ""},
		{"DELETE", "/containers/{id}", owner, removeContainer, ""},
		{"POST", "/commit", owner, commitContainer, "the image is then usable on every node"},
		{"POST", "/exec/{id}/start", owner, startExec, ""},
		{"POST", "/exec/{id}/resize", owner, onExec, ""},
		{"GET", "/exec/{id}/json", owner, inspectExec, ""},
	}
}
