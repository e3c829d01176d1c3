package dockertest

import (
	"net/http"
	"strings"
)

type handler func(*Daemon, http.ResponseWriter, *request) error

// route is one line of the table: a method, the words before and after the one variable part, and what to do.
type route struct {
	method string
	before []string // fixed words in front, the first is the table's key
	after  []string // fixed words behind
	// wild is whether there is a variable part between them: one segment, or many for images, whose names have slashes.
	wild, slashes bool
	handle        handler
}

// routeTable is every route there is, by first word. Fixed words stand before wildcards of the same shape.
func routeTable() map[string][]route {
	table := map[string][]route{}
	add := func(pattern string, h handler) {
		method, path, _ := strings.Cut(pattern, " ")
		rt := route{method: method, handle: h}
		for _, seg := range strings.Split(path, "/")[1:] {
			switch {
			case seg == "{name...}":
				rt.wild, rt.slashes = true, true
			case strings.HasPrefix(seg, "{"):
				rt.wild = true
			case rt.wild:
				rt.after = append(rt.after, seg)
			default:
				rt.before = append(rt.before, seg)
			}
		}
		table[rt.before[0]] = append(table[rt.before[0]], rt)
	}
	systemRoutes(add)
	containerRoutes(add)
	imageRoutes(add)
	networkRoutes(add)
	volumeRoutes(add)
	return table
}

func systemRoutes(add func(string, handler)) {
	add("GET /_ping", (*Daemon).getPing)
	add("HEAD /_ping", (*Daemon).getPing)
	add("GET /version", (*Daemon).getVersion)
	add("GET /info", (*Daemon).getInfo)
	add("GET /events", (*Daemon).getEvents)
	add("GET /system/df", (*Daemon).getDiskUsage)
	add("POST /auth", (*Daemon).postAuth)
	add("POST /build", (*Daemon).postBuild)
	add("POST /build/prune", (*Daemon).postBuildPrune)
	add("POST /commit", (*Daemon).postCommit)
	add("GET /plugins", (*Daemon).getPlugins)
	add("POST /session", (*Daemon).refuseUpgrade)
	add("POST /grpc", (*Daemon).refuseUpgrade)
	swarmRoutes(add)
	for _, path := range []string{"services", "tasks", "secrets", "configs"} {
		add("GET /"+path, (*Daemon).notInSwarm)
		add("GET /"+path+"/{id}", (*Daemon).notInSwarm)
		add("POST /"+path+"/create", (*Daemon).notInSwarm)
		add("DELETE /"+path+"/{id}", (*Daemon).notInSwarm)
	}
}

func containerRoutes(add func(string, handler)) {
	add("GET /containers/json", (*Daemon).listContainers)
	add("POST /containers/create", (*Daemon).createContainer)
	add("POST /containers/prune", (*Daemon).pruneContainers)
	add("GET /containers/{id}/json", (*Daemon).inspectContainer)
	add("GET /containers/{id}/top", (*Daemon).topContainer)
	add("GET /containers/{id}/logs", (*Daemon).logContainer)
	add("GET /containers/{id}/changes", (*Daemon).changesContainer)
	add("GET /containers/{id}/stats", (*Daemon).statsContainer)
	add("GET /containers/{id}/export", (*Daemon).exportContainer)
	add("HEAD /containers/{id}/archive", (*Daemon).statArchive)
	add("GET /containers/{id}/archive", (*Daemon).getArchive)
	add("PUT /containers/{id}/archive", (*Daemon).putArchive)
	add("POST /containers/{id}/start", (*Daemon).startContainer)
	add("POST /containers/{id}/stop", (*Daemon).stopContainer)
	add("POST /containers/{id}/restart", (*Daemon).restartContainer)
	add("POST /containers/{id}/kill", (*Daemon).killContainer)
	add("POST /containers/{id}/pause", (*Daemon).pauseContainer)
	add("POST /containers/{id}/unpause", (*Daemon).unpauseContainer)
	add("POST /containers/{id}/rename", (*Daemon).renameContainer)
	add("POST /containers/{id}/update", (*Daemon).updateContainer)
	add("POST /containers/{id}/wait", (*Daemon).waitContainer)
	add("POST /containers/{id}/resize", (*Daemon).resizeContainer)
	add("POST /containers/{id}/attach", (*Daemon).attachContainer)
	add("POST /containers/{id}/exec", (*Daemon).createExec)
	add("DELETE /containers/{id}", (*Daemon).removeContainer)
	add("POST /exec/{id}/start", (*Daemon).startExec)
	add("POST /exec/{id}/resize", (*Daemon).resizeExec)
	add("GET /exec/{id}/json", (*Daemon).inspectExec)
}

func imageRoutes(add func(string, handler)) {
	add("GET /images/json", (*Daemon).listImages)
	add("POST /images/create", (*Daemon).pullImage)
	add("POST /images/load", (*Daemon).loadImages)
	add("POST /images/prune", (*Daemon).pruneImages)
	add("GET /images/get", (*Daemon).saveImages)
	add("GET /images/{name...}/json", (*Daemon).inspectImage)
	add("GET /images/{name...}/history", (*Daemon).historyImage)
	add("GET /images/{name...}/get", (*Daemon).saveImages)
	add("POST /images/{name...}/tag", (*Daemon).tagImage)
	add("DELETE /images/{name...}", (*Daemon).removeImage)
}

func networkRoutes(add func(string, handler)) {
	add("GET /networks", (*Daemon).listNetworks)
	add("POST /networks/create", (*Daemon).createNetwork)
	add("POST /networks/prune", (*Daemon).pruneNetworks)
	add("GET /networks/{id}", (*Daemon).inspectNetwork)
	add("POST /networks/{id}/connect", (*Daemon).connectNetwork)
	add("POST /networks/{id}/disconnect", (*Daemon).disconnectNetwork)
	add("DELETE /networks/{id}", (*Daemon).removeNetwork)
}

func volumeRoutes(add func(string, handler)) {
	add("GET /volumes", (*Daemon).listVolumes)
	add("POST /volumes/create", (*Daemon).createVolume)
	add("POST /volumes/prune", (*Daemon).pruneVolumes)
	add("GET /volumes/{name}", (*Daemon).inspectVolume)
	add("DELETE /volumes/{name}", (*Daemon).removeVolume)
}

// find looks a request up. The second result is what stands for the variable part.
func (d *Daemon) find(method, path string) (handler, string) {
	segs := strings.Split(strings.TrimPrefix(path, "/"), "/")
	for _, rt := range d.routes[segs[0]] {
		if rt.method != method {
			continue
		}
		if name, ok := rt.match(segs); ok {
			return rt.handle, name
		}
	}
	return nil, ""
}

func (rt route) match(segs []string) (name string, ok bool) {
	middle := len(segs) - len(rt.before) - len(rt.after)
	if middle < 0 || (!rt.wild && middle != 0) || (rt.wild && (middle == 0 || (middle > 1 && !rt.slashes))) {
		return "", false
	}
	for i, w := range rt.before {
		if segs[i] != w {
			return "", false
		}
	}
	for i, w := range rt.after {
		if segs[len(segs)-len(rt.after)+i] != w {
			return "", false
		}
	}
	return strings.Join(segs[len(rt.before):len(rt.before)+middle], "/"), true
}
