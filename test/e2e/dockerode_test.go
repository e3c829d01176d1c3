//go:build e2e

package e2e

import (
	"path/filepath"
	"testing"
)

// dockerode, the Node.js client: it repeats an attach's options in the body, and keeps its connections.
func TestDockerode(t *testing.T) {
	modules := program("BERTH_DOCKERODE")
	if modules == "" {
		t.Skip("nightly: BERTH_DOCKERODE names no folder with dockerode in it")
	}
	w := fleet(t)
	script, err := filepath.Abs("../clients/dockerode/check.js")
	if err != nil {
		t.Fatal(err)
	}
	w.forget(t, "dockerode:1", "dockerode:2")
	out := must(t, with(w.command("node", script, w.socket, write(t, "Dockerfile", "FROM busybox\nRUN echo built >/built\n")), "NODE_PATH="+modules))
	same(t, "checks", len(lines(out)), 9)
}
