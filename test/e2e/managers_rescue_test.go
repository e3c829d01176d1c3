//go:build e2e

package e2e

import (
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
)

// A node falls silent, and the primary dies while it makes the node's containers anew: those with the policy run elsewhere, once, whoever
// made them. The node ran on all the while, and once it is back they still run once.
func TestThePrimaryDiesInARescue(t *testing.T) {
	w := fleet(t)
	var way *gate
	g := newTeamOf(t, w, &team{
		options: []string{"--reschedule-delay", "2s"},
		by: func(host, addr string) string {
			if host != "host3" {
				return addr
			}
			way = newGate(t, addr)
			return way.addr
		},
	}, func(*teamManager, *kvServer) {})
	was := g.elected(t, nil)
	at := func(m *teamManager, args ...string) *exec.Cmd {
		return w.command("docker", append([]string{"-H", "tcp://" + m.addr}, args...)...)
	}
	plain, web := lostOf()
	var made errgroup.Group
	made.SetLimit(4) // a node that is too busy to say that it is there would be passed by
	run := func(name string, args ...string) {
		made.Go(func() error {
			out, err := at(was, append(append([]string{"run", "-d", "--name", name, "-e", "constraint:node==~host3", "--stop-timeout", "0"}, args...), "busybox", "sleep", "1000")...).CombinedOutput()
			if err != nil {
				return fmt.Errorf("run %s: %w\n%s", name, err, out)
			}
			return nil
		})
	}
	for i := range plain {
		run(fmt.Sprintf("plain%d", i))
	}
	for i := range web {
		run(fmt.Sprintf("web%d", i), "-e", "reschedule:on-node-failure")
	}
	if err := made.Wait(); err != nil {
		t.Fatal(err)
	}
	where := func(m *teamManager) map[string]int {
		on := map[string]int{}
		for _, n := range lines(must(t, at(m, "ps", "--filter", "name=^/?web[0-9]$", "--format", `{{.Label "berth.node"}}`))) {
			on[n]++
		}
		return on
	}
	if on := where(was); on["host3"] != web {
		t.Fatalf("with the policy: %v, want %d on host3", on, web)
	}
	time.Sleep(time.Second) // until every manager remembers them
	began := time.Now()
	way.cut()
	eventually(t, 60*time.Second, "the first is made anew", func() bool {
		for _, addr := range g.engines[:2] {
			for _, c := range containersAt(t, addr) {
				if strings.Contains(c.name, "web") || strings.Contains(c.name, "berth-rescuing") {
					return true
				}
			}
		}
		return false
	})
	was.kill()
	now := g.elected(t, was)
	soon(t, "all of them run elsewhere", func() bool { on := where(now); return on["host1"]+on["host2"] == web && on["host3"] == 0 })
	t.Logf("they run elsewhere %s after the node fell silent", time.Since(began).Round(time.Millisecond))
	once := func(m *teamManager) {
		t.Helper()
		names := lines(must(t, at(m, "ps", "-a", "--filter", "name=^/?web[0-9]$", "--format", "{{.Names}}")))
		if len(names) != web || len(slices.Compact(slices.Clone(names))) != web {
			t.Fatalf("at %s: %v, want %d, each once", m.name, names, web)
		}
	}
	g.start(t, was)
	once(now)
	way.heal()
	eventually(t, time.Minute, "what was lost is set aside", func() bool {
		once(now)
		return strings.Count(must(t, at(now, "ps", "-a", "--filter", "label=berth.stale", "--format", "{{.Names}}")), "-stale-") == web
	})
	for _, m := range g.managers {
		soon(t, m.name+" shows each once, and the others as they were", func() bool {
			on := where(m)
			return on["host1"]+on["host2"] == web && on["host3"] == 0 && len(lines(must(t, at(m, "ps", "-q", "--filter", "name=plain")))) == plain
		})
		once(m)
	}
	// By the engines themselves: what runs is one of each.
	running := map[string]int{}
	for _, addr := range g.engines {
		for _, name := range lines(must(t, w.command("docker", "-H", "tcp://"+addr, "ps", "--format", "{{.Names}}"))) {
			running[name]++
		}
	}
	same(t, "running containers", len(running), plain+web)
	for name, n := range running {
		same(t, name, n, 1)
	}
	g.clear(t)
}
