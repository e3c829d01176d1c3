//go:build e2e

package e2e

import (
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"
)

// The network between managers is cut, and that from the primary to the store, while clients create containers: each that was answered
// exists once, no name and no port is held twice, and who still reaches the store goes on.
func TestManagersCutOff(t *testing.T) {
	w := fleet(t)
	g := newTeamOf(t, w, &team{}, func(m *teamManager, etcd *kvServer) {
		m.peers, m.store = newGate(t, m.addr), newGate(t, etcd.addr)
	})
	m := g.elected(t, nil)
	l := g.load(t)
	eventually(t, 20*time.Second, "containers are created", func() bool { return l.since(time.Time{}) })
	rounds, length := 1, 2*time.Second
	if nightly() {
		rounds, length = 5, 30*time.Second
	}
	for range rounds {
		// Replicas cannot reach the primary, which has the lease still.
		t.Logf("%s is cut off from the other managers", m.name)
		m.peers.cut()
		time.Sleep(length)
		same(t, "primary, which still reaches the store,", g.elected(t, nil).name, m.name)
		if code, answer, err := m.ask(t.Context(), http.MethodPost, "/containers/create", `{"Image":"busybox:latest"}`); err != nil || code != http.StatusCreated {
			t.Errorf("the primary itself: %d %s, %v", code, answer, err)
		}
		m.peers.heal()
		// The primary cannot reach the store, and the others can reach both.
		t.Logf("%s is cut off from the store", m.name)
		m.store.cut()
		next := g.elected(t, m)
		info, err := m.info(t.Context())
		if err != nil || strings.Contains(info, "Role primary\n") {
			t.Errorf("%s without a store: %v\n%s", m.name, err, info)
		}
		again := time.Now()
		soon(t, "containers are created again", func() bool { return l.since(again) })
		time.Sleep(length)
		m.store.heal()
		// Nobody reaches it but clients and engines.
		m = next
		t.Logf("%s is cut off from the store and the other managers", m.name)
		m.store.cut()
		m.peers.cut()
		next = g.elected(t, m)
		again = time.Now()
		soon(t, "containers are created again", func() bool { return l.since(again) })
		time.Sleep(length)
		m.peers.heal()
		m.store.heal()
		m = next
	}
	l.check(t)
}

// A manager is restarted again and again, cleanly and not, while clients create containers at it and at the others.
func TestManagerRestartsUnderLoad(t *testing.T) {
	w := fleet(t)
	g := newTeam(t, w)
	m := g.elected(t, nil)
	l := g.load(t)
	eventually(t, 20*time.Second, "containers are created", func() bool { return l.since(time.Time{}) })
	times := 4
	if nightly() {
		times = 20
	}
	for i := range times {
		began := time.Now()
		if i%2 == 0 {
			if err := m.cmd.Process.Signal(syscall.SIGTERM); err != nil {
				t.Fatal(err)
			}
			if err := m.cmd.Wait(); err != nil {
				t.Errorf("a clean end: %v", err)
			}
			m.cmd = nil
		} else {
			m.kill()
		}
		g.start(t, m)
		eventually(t, 20*time.Second, m.name+" is back", func() bool {
			info, err := m.info(t.Context())
			return err == nil && strings.Count(info, "Status Healthy\n") == 3
		})
		again := time.Now()
		soon(t, "containers are created again", func() bool { return l.since(again) })
		t.Logf("restart %d: %s", i+1, time.Since(began).Round(time.Millisecond))
	}
	g.elected(t, nil)
	l.check(t)
}
