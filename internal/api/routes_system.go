package api

import (
	"net/http"
	"slices"
)

func systemRoutes() []route {
	return slices.Concat([]route{
		{"GET", "/_ping", local, ping, "never asks a node"},
		{"HEAD", "/_ping", local, ping, "never asks a node"},
		{"GET", "/version", merged, showVersion, "the lowest engine version with berth's behind it"},
		{"GET", "/info", merged, showInfo, "sums, and classic Swarm's table of nodes"},
		{"GET", "/events", merged, showEvents, "node's attributes are added; filter node; since reaches as far back as the manager remembers"},
		{"GET", "/system/df", merged, showUsage, "sums over the nodes"},
		{"GET", "/images/{name}/attestations", refused, refuse(http.StatusNotImplemented, noAttestations), "501: part of API 1.55"},
	}, swarmRoutes(), pluginRoutes())
}
