package api

import "net/http"

// noSwarm begins with an engine's own words when it is in no swarm, which clients know.
const noSwarm = "This node is not a swarm manager. Use \"docker swarm init\" or \"docker swarm join\" to connect this node to swarm and try again." +
	" (berth endpoint: use docker run or compose; docker node ls lists the nodes)"

// noJoin answers attempts to make a swarm of the endpoint.
const noJoin = "berth's endpoint is no swarm and cannot become one, although several engines stand behind it: " +
	"add nodes with `berth create`, or name them to `berth serve`"

// noPlugins answers what would change or look into plugins.
const noPlugins = "berth does not manage engine plugins: install them on each node, `berth env NODE` shows how to reach it"

// noAttestations answers the one route of newer API versions that no older one has in another form.
const noAttestations = "image attestations came with API 1.55, which this endpoint does not speak yet"

// refuse answers routes that have no meaning for a fleet.
func refuse(status int, message string) handler {
	return func(*Server, http.ResponseWriter, *request) error {
		return &statusError{status: status, message: message}
	}
}

// swarmRoutes are Swarm mode's. 404 would say that there is no such service; 503 is what an engine outside of a swarm says.
func swarmRoutes() []route {
	no := func(method, pattern string) route {
		return route{method, pattern, refused, refuse(http.StatusServiceUnavailable, noSwarm), "Swarm mode; 503 as outside of a swarm"}
	}
	table := []route{
		{"POST", "/swarm/init", refused, refuse(http.StatusNotImplemented, noJoin), "501 and what to do instead"},
		{"POST", "/swarm/join", refused, refuse(http.StatusNotImplemented, noJoin), "501 and what to do instead"},
		{"POST", "/swarm/leave", refused, refuse(http.StatusServiceUnavailable, "This node is not part of a swarm"), "503 as outside of a swarm"},
		no("GET", "/swarm"), no("POST", "/swarm/update"), no("GET", "/swarm/unlockkey"), no("POST", "/swarm/unlock"),
		no("GET", "/tasks/{id}/logs"), no("GET", "/tasks/{id}"),
	}
	for _, kind := range []string{"services", "secrets", "configs"} {
		table = append(table, no("GET", "/"+kind), no("POST", "/"+kind+"/create"))
		if kind == "services" {
			table = append(table, no("GET", "/services/{id}/logs"))
		}
		table = append(table, no("GET", "/"+kind+"/{id}"), no("POST", "/"+kind+"/{id}/update"), no("DELETE", "/"+kind+"/{id}"))
	}
	return table
}

func pluginRoutes() []route {
	table := []route{
		{"GET", "/plugins", merged, listPlugins, "by name, enabled if on every node that has it"},
		{"GET", "/plugins/{name}/json", merged, inspectPlugin, "from that list"},
	}
	for _, r := range [][2]string{
		{"GET", "/plugins/privileges"}, {"POST", "/plugins/pull"}, {"POST", "/plugins/create"}, {"POST", "/plugins/{name}/enable"},
		{"POST", "/plugins/{name}/disable"}, {"POST", "/plugins/{name}/set"}, {"POST", "/plugins/{name}/upgrade"}, {"POST", "/plugins/{name}/push"}, {"DELETE", "/plugins/{name}"},
	} {
		table = append(table, route{r[0], r[1], refused, refuse(http.StatusNotImplemented, noPlugins), "501: each node has its own plugins"})
	}
	return table
}
