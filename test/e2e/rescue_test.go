//go:build e2e

package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// lostOf says how many containers without and with a policy a lost host has.
func lostOf() (plain, web int) {
	if nightly() {
		return 20, 10
	}
	return 4, 2
}

// A host dies with containers, some of which are to run elsewhere then: these do, once, also while the manager is killed in the middle, and
// when the host is back they still do, once.
func TestALostHostsContainersRunElsewhere(t *testing.T) {
	w, err := newWorld("lost")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("berth serve said:\n%s", w.logTail())
		}
		if err := w.down(); err != nil {
			t.Error(err)
		}
	})
	serve := func() {
		t.Helper()
		if err := w.startServe("--reschedule-delay", "2s"); err != nil {
			t.Fatal(err)
		}
	}
	if out, err := w.command("berth", "create", "-d", "local", "lost1", "lost2", "lost3").CombinedOutput(); err != nil {
		t.Fatalf("berth create: %v\n%s", err, out)
	}
	w.machine = append(w.machine, "lost1", "lost2", "lost3")
	serve()
	if err := w.loadImages("busybox:latest"); err != nil {
		t.Fatal(err)
	}
	policy := []string{"-e", "reschedule:on-node-failure"}
	plain, web := lostOf()
	run := func(name string, args ...string) {
		t.Helper()
		must(t, w.docker(append(append([]string{"run", "-d", "--name", name, "-e", "constraint:node==~lost1", "--restart", "always"}, args...), "busybox", "sleep", "1000")...))
	}
	for i := range plain {
		run(fmt.Sprintf("plain%d", i))
	}
	run("web0", append(policy, "-m", "50m", "-e", "GREETING=hello", "-v", "/etc:/host:ro")...)
	for i := 1; i < web; i++ {
		run(fmt.Sprintf("web%d", i), policy...)
	}
	same(t, "containers on lost1", w.nodes(t, "status=running")["lost1"], plain+web)
	swarmID := must(t, w.docker("inspect", "--format", `{{index .Config.Labels "com.docker.swarm.id"}}`, "web0"))
	eventually(t, 10*time.Second, "all are remembered as running", func() bool {
		files, _ := filepath.Glob(filepath.Join(w.dir, ".docker/machine/rescue-*/*.json")) // the pattern is constant
		running := 0
		for _, f := range files {
			b, _ := os.ReadFile(f) // it may be replaced just now
			if strings.Contains(string(b), `"Run":true`) {
				running++
			}
		}
		return running == web
	})

	began := time.Now()
	must(t, w.command("berth", "kill", "lost1"))
	// The manager dies with it, and another finds the host dead.
	if err := w.serve.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := w.stopServeHard(); err == nil {
		t.Fatal("berth serve ended well although it was killed")
	}
	serve()
	elsewhere := func() map[string]int {
		n := w.nodes(t, "name=^/?web[0-9]$")
		delete(n, "lost1")
		return n
	}
	eventually(t, 60*time.Second, "those with the policy run elsewhere", func() bool {
		n := elsewhere()
		return n["lost2"]+n["lost3"] == web && len(lines(must(t, w.docker("ps", "-q", "--filter", "name=^/?web[0-9]$")))) == web
	})
	t.Logf("they run elsewhere %s after the host was killed", time.Since(began).Round(time.Millisecond))
	same(t, "Swarm ID", must(t, w.docker("inspect", "--format", `{{index .Config.Labels "com.docker.swarm.id"}}`, "web0")), swarmID)
	same(t, "what it is like", must(t, w.docker("inspect", "--format", "{{.State.Status}} {{.HostConfig.RestartPolicy.Name}} {{.HostConfig.Memory}} {{.Config.Image}}", "web0")), "running always 52428800 busybox")
	contains(t, "environment", must(t, w.docker("exec", "web0", "env")), "GREETING=hello")
	same(t, "plain ones elsewhere", w.nodes(t, "name=plain")["lost2"]+w.nodes(t, "name=plain")["lost3"], 0)
	contains(t, "events", must(t, w.docker("events", "--since", fmt.Sprint(began.Unix()), "--until", fmt.Sprint(time.Now().Add(time.Second).Unix()), "--filter", "event=reschedule", "--format", "{{json .}}")),
		`"from":"lost1"`, `"reason":"node lost1 is lost"`, `"name":"web0"`, `"name":"web1"`)

	must(t, w.command("berth", "start", "lost1"))
	stale := func() string { return must(t, w.command("berth", "ps", "--stale", "-H", "unix://"+w.socket)) }
	eventually(t, time.Minute, "what was lost is set aside", func() bool {
		names := lines(must(t, w.docker("ps", "-a", "--filter", "name=^/?web[0-9]$", "--format", "{{.Names}}")))
		if len(names) != web || len(slices.Compact(slices.Clone(names))) != web { // never two of them
			t.Fatalf("containers: %v", names)
		}
		return strings.Count(stale(), "-stale-") == web
	})
	contains(t, "berth ps --stale", stale(), "NODE", "lost1", "Exited")
	same(t, "web on lost1", w.nodes(t, "name=^/?web[0-9]$")["lost1"], 0)
	same(t, "running", strings.Count(must(t, w.docker("ps", "-q", "--filter", "name=web")), "\n")+1, web)
	eventually(t, 30*time.Second, "the others run again", func() bool { return w.nodes(t, "name=plain")["lost1"] == plain })
	id := must(t, w.docker("ps", "-aq", "--filter", "label=berth.stale=web0"))
	same(t, "restart policy", must(t, w.docker("inspect", "--format", "{{.HostConfig.RestartPolicy.Name}} {{.State.Running}}", id)), "no false")
	must(t, w.docker("cp", id+":/etc/passwd", filepath.Join(t.TempDir(), "passwd")))
	for line := range strings.Lines(must(t, w.docker("ps", "-a", "--filter", "label=berth.stale", "--format", "{{.Names}}"))) {
		must(t, w.docker("rm", "lost1/"+strings.TrimSpace(line)))
	}
	same(t, "left", must(t, w.command("berth", "ps", "--stale", "-q", "-H", "unix://"+w.socket)), "")
	same(t, "running at the end", strings.Count(must(t, w.docker("ps", "-q", "--filter", "name=web")), "\n")+1, web)
}
