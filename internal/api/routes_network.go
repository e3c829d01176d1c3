package api

func networkRoutes() []route {
	return []route{
		{"GET", "/networks", merged, listNetworks, "from memory; bridge, host and none once, and what reaches over hosts; label berth.node and filter node are added"},
		{"POST", "/networks/create", placed, createNetwork, "made on one node, with its group, or for all as an overlay; names are unique over the fleet"},
		{"POST", "/networks/prune", all, pruneNetworks, "overlay networks are named once"},
		{"POST", "/networks/{id}/connect", owner, connectNetwork, "container and network must be on one node, unless it is an overlay"},
		{"POST", "/networks/{id}/disconnect", owner, disconnectNetwork, ""},
		{"GET", "/networks/{id}", owner, inspectNetwork, "object Node is added; bridge, host, none and overlays show the containers of all nodes"},
		{"DELETE", "/networks/{id}", owner, removeNetwork, "waits until the swarm knows that an overlay is unused"},

		{"GET", "/volumes", merged, listVolumes, "from memory; a name that is on several nodes as node/name; label berth.node and filter node are added"},
		{"POST", "/volumes/create", placed, createVolume, "made on one node, with its group; one that exists is returned"},
		{"POST", "/volumes/prune", all, pruneVolumes, "on engines before API 1.42 too, clients of 1.42 prune anonymous volumes only"},
		{"GET", "/volumes/{id}", owner, inspectVolume, "object Node is added"},
		{"PUT", "/volumes/{id}", refused, updateVolume, "cluster volumes need Swarm mode"},
		{"DELETE", "/volumes/{id}", owner, removeVolume, ""},
	}
}
