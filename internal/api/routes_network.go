package api

func networkRoutes() []route {
	return []route{
		{"GET", "/networks", merged, listNetworks, "from memory; bridge, host and none once; label berth.node and filter node are added"},
		{"POST", "/networks/create", placed, createNetwork, "made on one node, with its group; names are unique over the fleet"},
		{"POST", "/networks/prune", all, pruneNetworks, ""},
		{"POST", "/networks/{id}/connect", owner, connectNetwork, "container and network must be on one node"},
		{"POST", "/networks/{id}/disconnect", owner, disconnectNetwork, ""},
		{"GET", "/networks/{id}", owner, inspectNetwork, "object Node is added; bridge, host and none show the containers of all nodes"},
		{"DELETE", "/networks/{id}", owner, removeNetwork, ""},

		{"GET", "/volumes", merged, listVolumes, "from memory; a name that is on several nodes as node/name; label berth.node and filter node are added"},
		{"POST", "/volumes/create", placed, createVolume, "made on one node, with its group; one that exists is returned"},
		{"POST", "/volumes/prune", all, pruneVolumes, "on engines before API 1.42 too, clients of 1.42 prune anonymous volumes only"},
		{"GET", "/volumes/{id}", owner, inspectVolume, "object Node is added"},
		{"PUT", "/volumes/{id}", refused, updateVolume, "cluster volumes need Swarm mode"},
		{"DELETE", "/volumes/{id}", owner, removeVolume, ""},
	}
}
