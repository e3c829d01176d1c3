//go:build e2e

package e2e

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// What the primary does is told by every manager, once, and by those that live on also after it was killed.
func TestEventsOfThePrimary(t *testing.T) {
	w := fleet(t)
	g := newTeam(t, w)
	was := g.elected(t, nil)
	at := func(m *teamManager, args ...string) *exec.Cmd {
		return w.command("docker", append([]string{"-H", "tcp://" + m.addr}, args...)...)
	}
	follow := []string{"events", "--filter", "type=container", "--filter", "event=move", "--format", `{{index .Actor.Attributes "name"}} {{index .Actor.Attributes "from"}} {{index .Actor.Attributes "to"}} {{.TimeNano}}`}
	told := map[*teamManager]func() []string{}
	for _, m := range g.managers {
		out, err := os.Create(filepath.Join(t.TempDir(), m.name))
		if err != nil {
			t.Fatal(err)
		}
		cmd := at(m, follow...)
		cmd.Stdout = out
		background(t, cmd)
		told[m] = func() []string {
			b, err := os.ReadFile(out.Name())
			if err != nil {
				t.Fatal(err)
			}
			return strings.Split(strings.TrimSpace(string(bytes.TrimSpace(b))), "\n")
		}
		if err := out.Close(); err != nil {
			t.Fatal(err)
		}
	}
	const n = 3
	for i := range n {
		must(t, at(was, "create", "--name", fmt.Sprintf("web%d", i), "-e", "constraint:node==~host2", "busybox", "true"))
	}
	must(t, at(was, "node", "update", "--availability", "drain", "host2"))
	everybody := func(lines int, all ...*teamManager) {
		t.Helper()
		for _, m := range all {
			soon(t, m.name+" tells of all moves", func() bool { return len(told[m]()) >= lines })
			same(t, m.name, fmt.Sprint(sorted(told[m]())), fmt.Sprint(sorted(told[all[0]]())))
			same(t, m.name, len(told[m]()), lines)
		}
	}
	everybody(n, g.managers...)
	must(t, at(was, "node", "update", "--availability", "active", "host2"))
	t.Logf("kill -9 %s", was.name)
	was.kill()
	now := g.elected(t, was)
	must(t, at(now, "create", "--name", "late", "-e", "constraint:node==~host2", "busybox", "true"))
	must(t, at(now, "node", "update", "--availability", "drain", "host2"))
	var live []*teamManager
	for _, m := range g.managers {
		if m != was {
			live = append(live, m)
		}
	}
	everybody(n+1, live...)
	// One that was not there learns it, too.
	g.start(t, was)
	eventually(t, 20*time.Second, "the one that was killed tells of them", func() bool {
		out, err := at(was, append(follow, "--since", "1h", "--until", "0s")...).Output()
		return err == nil && strings.Count(string(out), "\n") == n+1
	})
	g.clear(t)
}

func sorted(lines []string) []string { return slices.Sorted(slices.Values(lines)) }
