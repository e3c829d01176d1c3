package api

import "slices"

func systemRoutes() []route {
	return slices.Concat([]route{
		{"GET", "/_ping", local, ping, "never asks a node"},
		{"HEAD", "/_ping", local, ping, "never asks a node"},
		{"GET", "/version", merged, showVersion, "the lowest engine version with berth's behind it"},
		{"GET", "/info", merged, showInfo, "sums, and classic Swarm's table of nodes"},
	}, swarmRoutes(), pluginRoutes())
}
