package api

import (
	"net/http"
	"runtime"
	"runtime/debug"
	"strings"

	"berth/internal/fleet"
)

// serverVersion is the version that we claim to be. Tools read a Docker version out of it, so it begins with the lowest one
// of the fleet; the suffix is what Debian's packages have proved to be understood.
func (s *Server) serverVersion(snap *fleet.Snapshot) string {
	return lowestVersion(snap) + "+berth." + strings.TrimPrefix(s.o.Version, "v")
}

// showVersion describes the endpoint as one engine.
func showVersion(s *Server, w http.ResponseWriter, _ *request) error {
	snap := s.fleet.Snapshot()
	version, api := s.serverVersion(snap), s.gate.advertised(snap)
	common := commonOf(snap)
	commit, built := buildOf()
	details := map[string]string{
		"ApiVersion": api, "MinAPIVersion": minAPI, "Os": common.os, "Arch": common.arch, "KernelVersion": common.kernel,
		"GitCommit": commit, "GoVersion": runtime.Version(), "BuildTime": built, "Experimental": "false",
	}
	writeJSON(w, http.StatusOK, map[string]any{
		"Platform": map[string]string{"Name": "berth"},
		"Components": []map[string]any{
			{"Name": "Engine", "Version": version, "Details": details},
			{"Name": "berth", "Version": s.o.Version, "Details": map[string]string{
				"Nodes": count(len(snap.Nodes())), "Engines": engineVersions(snap),
			}},
		},
		"Version": version, "ApiVersion": api, "MinAPIVersion": minAPI, "GitCommit": commit, "GoVersion": runtime.Version(),
		"Os": common.os, "Arch": common.arch, "KernelVersion": common.kernel, "BuildTime": built,
	})
	return nil
}

// buildOf says what this program was built from, as far as the toolchain noted it.
func buildOf() (commit, built string) {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "", ""
	}
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			commit = s.Value[:min(7, len(s.Value))]
		case "vcs.time":
			built = s.Value
		}
	}
	return commit, built
}

// engineVersions are the lowest and the highest version of the fleet's engines, for people.
func engineVersions(snap *fleet.Snapshot) string {
	switch v := snap.Versions(); v.Highest {
	case "":
		return "none"
	case v.Lowest:
		return v.Lowest
	default:
		return v.Lowest + " to " + v.Highest
	}
}
