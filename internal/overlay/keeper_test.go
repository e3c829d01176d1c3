package overlay

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"

	"berth/internal/fleet"
)

func TestFormsASwarmOverTheFleet(t *testing.T) {
	r := newRig(t, 4, 3, func(o *Options) { o.Encrypted, o.MTU = true, 1400 })
	r.becomes(0, "n1* n2* n3*")
	r.ready(3)
	s := r.Status()
	if !s.On || !s.Ours || s.Managers != 3 || s.Reachable != 3 || len(s.Problems) > 0 || !s.Encrypted || s.MTU != 1400 {
		t.Errorf("status = %+v", s)
	}
	if options, on := r.Defaults(); !on || len(options) != 2 || options["com.docker.network.driver.mtu"] != "1400" {
		t.Errorf("new networks get %v, %v", options, on)
	}
	r.members(t.Context(), 0, 4)
	r.becomes(0, "n1* n2* n3* n4")
	r.members(t.Context(), 0, 2)
	r.becomes(0, "n1* n2") // first the managers that are gone, then their entries, then the one too many
	if log := r.log.String(); strings.Contains(log, "SWMTKN") {
		t.Error("a join token is in the log")
	}
}

func TestAnotherManagerGoesOnWithWhatItFinds(t *testing.T) {
	r := newRig(t, 3, 3, func(o *Options) { o.MTU = 1400 })
	r.becomes(0, "n1* n2* n3*")
	r.ready(3)
	// One that was not told to keep overlay networks, nor how they are.
	o := r.o
	o.On, o.Settings = false, Settings{}
	other := New(o)
	if other.round(t.Context()); other.Status().MTU != 1400 || !other.Status().On || other.Status().State != "ready" {
		t.Errorf("status of another manager = %+v", other.Status())
	}
}

func TestNothingIsFormedUnasked(t *testing.T) {
	r := newRig(t, 2, 2, func(o *Options) { o.On = false })
	<-r.fleet.Looked()
	r.daemons[0].ResetRequests()
	for range 3 {
		r.round(t.Context())
	}
	if s := r.Status(); s.State != "off" || s.On {
		t.Errorf("status = %+v", s)
	}
	for _, q := range r.daemons[0].Requests() {
		if strings.HasPrefix(q.Path, "/swarm") || q.Path == "/info" || q.Path == "/nodes" {
			t.Errorf("an engine was asked %s %s", q.Method, q.Path)
		}
	}
	r.await("it runs", func() bool { return r.Up(t.Context(), &Settings{MTU: 1450}) == nil })
	r.becomes(0, "n1* n2")
	if s := r.Status(); s.MTU != 1450 {
		t.Errorf("status = %+v", s)
	}
}

// foreign forms a swarm of the first engines without the Keeper.
func foreign(r *rig, n int) {
	r.on(0, "POST", "/swarm/init", map[string]any{"Spec": map[string]any{"Labels": map[string]string{"theirs": "1"}}})
	var is struct{ JoinTokens struct{ Worker string } }
	decodeInto(r.t, r.on(0, "GET", "/swarm", nil), &is)
	for i := range n - 1 {
		r.on(i+1, "POST", "/swarm/join", map[string]any{"JoinToken": is.JoinTokens.Worker})
	}
}

func TestASwarmOfSomebodyElseIsUsed(t *testing.T) {
	r := newRig(t, 4, 4, func(o *Options) { o.On = false })
	foreign(r, 2)
	// n4 is in yet another one.
	r.on(3, "POST", "/swarm/init", map[string]any{})
	<-r.fleet.Looked()
	for _, n := range r.fleet.Snapshot().Nodes() {
		if err := r.fleet.RefreshInfo(t.Context(), n.ID); err != nil {
			t.Fatal(err)
		}
	}
	r.await("it runs", func() bool { return r.Up(t.Context(), nil) == nil })
	r.becomes(0, "(n1*) (n2) n3") // three nodes, and yet one manager: it is theirs
	r.becomes(3, "(n4*)")
	r.await("n4 is told of", func() bool {
		return strings.Contains(strings.Join(r.Problems(), "\n"), "node n4 takes no part: it is in another swarm")
	})
	if err := r.Down(t.Context(), false); err != nil {
		t.Fatal(err)
	}
	if got := r.daemons[2].SwarmNodes(); got != nil {
		t.Errorf("n3 has not left: %v", got)
	}
	if got := len(r.daemons[1].SwarmNodes()); got != 3 {
		t.Errorf("n2, which was there before, sees %d nodes, want 3", got)
	}
}

func TestALostManagerIsReplaced(t *testing.T) {
	r := newRig(t, 4, 4)
	r.becomes(0, "n1* n2* n3* n4")
	r.ready(4)
	r.daemons[1].Close()
	r.becomes(0, "-n2 n1* n3* n4*")
	r.await("it is told", func() bool { return r.Status().State == "ready" })
}

func TestALostQuorum(t *testing.T) {
	t.Run("engines that answer", func(t *testing.T) { lostQuorum(t, func(*rig) {}) })
	t.Run("engines that say nothing while they begin anew", func(t *testing.T) {
		lostQuorum(t, func(r *rig) {
			d := r.daemons[0]
			reached, release := d.HoldNext("POST", "/swarm/init")
			go func() { // the command waits for it
				<-reached
				d.Hang()
				for end := time.Now().Add(10 * time.Second); r.fleet.Snapshot().Nodes()[0].State == fleet.Healthy && time.Now().Before(end); {
					time.Sleep(10 * time.Millisecond)
				}
				release()
				d.Resume()
			}()
		})
	})
}

// lostQuorum has two of three managers die, and the third go on.
func lostQuorum(t *testing.T, prepare func(*rig)) {
	r := newRig(t, 4, 4)
	r.becomes(0, "n1* n2* n3* n4")
	r.ready(4)
	r.on(0, "POST", "/v1.41/networks/create", map[string]any{"Name": "web", "Driver": "overlay", "Attachable": true})
	r.run(0, "user", "web", "10.192.1.9")
	r.await("it is seen", func() bool { return r.users() == 1 })
	if err := r.ForceNewCluster(t.Context()); !errdefs.IsUnavailable(err) {
		t.Errorf("forced while there is a quorum: %v", err)
	}
	r.daemons[1].Close()
	r.daemons[2].Close()
	r.await("it is told", func() bool {
		s := r.Status()
		return s.State == "no quorum" && strings.Contains(strings.Join(s.Problems, "\n"), "berth overlay up --force-new-cluster")
	})
	prepare(r)
	if err := r.ForceNewCluster(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := r.place(0, "user", "web"); !strings.HasSuffix(got, "alias") {
		t.Errorf("place of a container that ran: %q", got)
	}
	r.await("it can decide again", func() bool { return r.Status().State != "no quorum" })
	if b := string(r.on(0, "GET", "/v1.41/networks", nil)); !strings.Contains(b, `"web"`) {
		t.Errorf("the network is gone: %s", b)
	}
}

// Without a manager left the networks are made anew, and the containers are in them as before.
func TestAllManagersLost(t *testing.T) {
	r := newRig(t, 7, 7)
	r.becomes(0, "n1* n2* n3* n4* n5* n6 n7")
	r.ready(7)
	r.on(0, "POST", "/v1.41/networks/create", map[string]any{
		"Name": "web", "Driver": "overlay", "Attachable": true, "Labels": map[string]string{"kind": "net"}, "IPAM": map[string]any{"Config": []any{map[string]string{"Subnet": "10.50.0.0/24"}}},
	})
	r.run(5, "six", "web", "10.50.0.66")
	r.run(6, "seven", "web", "")
	r.await("both are seen", func() bool { return r.users() == 2 })
	for _, d := range r.daemons[:5] {
		d.Close()
	}
	r.await("all five are lost", func() bool {
		return len(slices.DeleteFunc(slices.Clone(r.fleet.Snapshot().Nodes()), func(n *fleet.Node) bool { return n.State != fleet.Healthy })) == 2
	})
	r.await("it is told", func() bool { return r.Status().State == "no quorum" })
	if err := r.ForceNewCluster(t.Context()); err != nil {
		t.Fatal(err)
	}
	r.await("two nodes take part", func() bool { s := r.Status(); return s.Members == 2 && s.Reachable == 1 })
	if got := r.place(5, "six", "web"); got != "10.50.0.66 alias" {
		t.Errorf("place of six: %s", got)
	}
	if got := r.place(6, "seven", "web"); !strings.HasPrefix(got, "10.50.0.") {
		t.Errorf("place of seven: %s", got)
	}
	if b := string(r.on(5, "GET", "/v1.41/networks/web", nil)); !strings.Contains(b, `"kind":"net"`) {
		t.Errorf("the network anew: %s", b)
	}
}

// A node that was removed from the swarm joins anew, and its containers keep their places.
func TestARemovedNodeJoinsAnew(t *testing.T) {
	r := newRig(t, 2, 2)
	r.becomes(0, "n1* n2")
	r.ready(2)
	r.on(0, "POST", "/v1.41/networks/create", map[string]any{"Name": "web", "Driver": "overlay", "Attachable": true, "IPAM": map[string]any{"Config": []any{map[string]string{"Subnet": "10.50.0.0/24"}}}})
	r.run(1, "two", "web", "10.50.0.22")
	before := r.daemons[1].SwarmNode()
	r.await("it is seen", func() bool { return r.users() == 1 })
	r.on(0, "DELETE", "/nodes/"+before+"?force=1", nil)
	r.await("it has joined anew", func() bool { return r.swarm(0) == "n1* n2" && r.daemons[1].SwarmNode() != before })
	r.await("it has its place", func() bool { return r.place(1, "two", "web") == "10.50.0.22 alias" })
}

func TestALostNodesAddressesAreReleased(t *testing.T) {
	r := newRig(t, 3, 3)
	r.becomes(0, "n1* n2* n3*")
	r.ready(3)
	r.on(0, "POST", "/v1.41/networks/create", map[string]any{"Name": "web", "Driver": "overlay", "Attachable": true, "IPAM": map[string]any{"Config": []any{map[string]string{"Subnet": "10.50.0.0/24"}}}})
	r.run(2, "db", "web", "10.50.0.9")
	n3 := r.fleet.Snapshot().Nodes()[2]
	if err := r.Release(t.Context(), n3.ID, n3.Addr); !errdefs.IsUnavailable(err) {
		t.Errorf("released while the node is there: %v", err)
	}
	r.daemons[2].Close()
	r.await("it is lost", func() bool { return r.fleet.Snapshot().Nodes()[2].State != fleet.Healthy })
	if err := r.Release(t.Context(), n3.ID, n3.Addr); err != nil {
		t.Fatal(err)
	}
	r.run(0, "db", "web", "10.50.0.9")
}

func TestDown(t *testing.T) {
	r := newRig(t, 3, 3)
	r.becomes(0, "n1* n2* n3*")
	r.ready(3)
	r.on(0, "POST", "/v1.41/networks/create", map[string]any{"Name": "web", "Driver": "overlay", "Attachable": true})
	r.run(1, "user", "web", "")
	r.await("it is seen", func() bool { return r.users() == 1 })
	if err := r.Down(t.Context(), false); !errdefs.IsConflict(err) || !strings.Contains(err.Error(), "web by n2/user") {
		t.Errorf("down while it is used: %v", err)
	}
	if err := r.Down(t.Context(), true); err != nil {
		t.Fatal(err)
	}
	for i, d := range r.daemons {
		if d.SwarmNode() != "" {
			t.Errorf("n%d has not left", i+1)
		}
	}
	r.await("it is off", func() bool { return r.Status().State == "off" })
}

// A manager of berth that may not act any more goes no step.
func TestNoStepOutOfOffice(t *testing.T) {
	r := newRig(t, 2, 2, func(o *Options) { o.Check = func() error { return errors.New("not in office") } })
	<-r.fleet.Looked()
	for range 3 {
		r.await("a round", func() bool { return r.enter(context.Background()) == nil })
		r.round(t.Context())
		r.leave()
	}
	if got := r.daemons[0].SwarmNodes(); got != nil {
		t.Errorf("it formed %v", got)
	}
}

func TestNodesThatCannotAreTold(t *testing.T) {
	r := newRig(t, 2, 2)
	r.daemons[1].FailNext("POST", "/swarm/join", 500, "could not choose an IP address to advertise")
	r.becomes(0, "n1* n2") // at the second try
}
