package api

import "net/http"

// noSwarm begins with an engine's own words when it is in no swarm, which clients know.
const noSwarm = "This node is not a swarm manager. Use \"docker swarm init\" or \"docker swarm join\" to connect this node to swarm and try again." +
	" (berth endpoint: use docker run or compose; docker info lists the nodes)"

// refuse answers routes that have no meaning for a fleet.
func refuse(status int, message string) handler {
	return func(*Server, http.ResponseWriter, *request) error {
		return &statusError{status: status, message: message}
	}
}

func swarmRoutes() []route {
	no := func(method, pattern string) route {
		return route{method, pattern, refused, refuse(http.StatusServiceUnavailable, noSwarm), "Swarm mode is not what berth is"}
	}
	hint := "this is berth's endpoint over several engines, which are no swarm: add nodes with `berth create` or to what `berth serve` was given"
	table := []route{
		{"POST", "/swarm/init", refused, refuse(http.StatusNotImplemented, hint), ""},
		{"POST", "/swarm/join", refused, refuse(http.StatusNotImplemented, hint), ""},
		{"POST", "/swarm/leave", refused, refuse(http.StatusServiceUnavailable, "This node is not part of a swarm"), ""},
		no("GET", "/swarm"), no("POST", "/swarm/update"), no("GET", "/swarm/unlockkey"), no("POST", "/swarm/unlock"),
		no("GET", "/tasks"), no("GET", "/tasks/{id}/logs"), no("GET", "/tasks/{id}"), no("GET", "/services/{id}/logs"),
		no("PUT", "/volumes/{name}"),
	}
	for _, kind := range []string{"nodes", "services", "secrets", "configs"} {
		table = append(table, no("GET", "/"+kind), no("POST", "/"+kind+"/{id}/update"), no("GET", "/"+kind+"/{id}"), no("DELETE", "/"+kind+"/{id}"))
		if kind != "nodes" {
			table = append(table, no("POST", "/"+kind+"/create"))
		}
	}
	return table
}

func pluginRoutes() []route {
	no := refuse(http.StatusNotImplemented, "berth does not manage engine plugins: install them on each node, `berth env NODE` shows how to reach it")
	table := []route{{"GET", "/plugins", merged, listPlugins, "by name, enabled if on all nodes"}}
	for _, r := range [][2]string{
		{"GET", "/plugins/privileges"}, {"POST", "/plugins/pull"}, {"POST", "/plugins/create"}, {"GET", "/plugins/{name}/json"}, {"POST", "/plugins/{name}/enable"},
		{"POST", "/plugins/{name}/disable"}, {"POST", "/plugins/{name}/set"}, {"POST", "/plugins/{name}/upgrade"}, {"POST", "/plugins/{name}/push"}, {"DELETE", "/plugins/{name}"},
	} {
		table = append(table, route{r[0], r[1], refused, no, ""})
	}
	return table
}
