package rescue

import (
	"context"
	"encoding/json"
	"fmt"
	"testing"

	"berth/internal/fleet"
)

// releaser removes a lost node's entry from the swarm of a daemon.
type releaser struct {
	w     *world
	asked []string
}

func (r *releaser) Release(_ context.Context, _, addr string) error {
	for _, d := range r.w.daemons {
		if d.HostPort() == addr {
			r.asked = append(r.asked, addr)
			if status, b := r.w.daemons[1].Do("DELETE", "/nodes/"+d.SwarmNode()+"?force=1", nil); status != 200 {
				return fmt.Errorf("%d %s", status, b)
			}
		}
	}
	return nil
}

// Containers in a network across hosts are in it again, with what they were given there: the lost node's hold on an address is broken
// for one that was asked for, and for no other.
func TestNetworksAcrossHosts(t *testing.T) {
	w := newWorld(t, 3)
	on := func(i int, method, path string, body any) []byte {
		t.Helper()
		status, b := w.daemons[i].Do(method, path, body)
		if status/100 != 2 {
			t.Fatalf("%s %s: %d %s", method, path, status, b)
		}
		return b
	}
	on(1, "POST", "/swarm/init", map[string]any{})
	var is struct{ JoinTokens struct{ Worker string } }
	if err := json.Unmarshal(on(1, "GET", "/swarm", nil), &is); err != nil {
		t.Fatal(err)
	}
	for _, i := range []int{0, 2} {
		on(i, "POST", "/swarm/join", map[string]any{"JoinToken": is.JoinTokens.Worker})
	}
	on(1, "POST", "/v1.41/networks/create", map[string]any{"Name": "net", "Driver": "overlay", "Attachable": true, "IPAM": map[string]any{"Config": []any{map[string]string{"Subnet": "10.50.0.0/24"}}}})
	m := w.manage(3)
	networks := &releaser{w: w}
	m.rescuer.o.Networks = networks
	m.follow()
	run := func(name string, place map[string]any) {
		t.Helper()
		m.do("POST", "/containers/create?name=n1/"+name, map[string]any{
			"Image": "busybox", "Cmd": []string{"sleep", "1000"}, "Env": []string{policy}, "HostConfig": map[string]any{"NetworkMode": "net"},
			"NetworkingConfig": map[string]any{"EndpointsConfig": map[string]any{"net": place}},
		})
		m.do("POST", "/containers/"+name+"/start", nil)
	}
	run("chosen", map[string]any{"Aliases": []string{"any"}})
	m.awaitKept(1)
	w.daemons[0].Refuse()
	m.await("chosen runs elsewhere", func(s *fleet.Snapshot) bool { n := at(s, "chosen"); return n == "n2" || n == "n3" })
	if len(networks.asked) > 0 {
		t.Errorf("released for an address that nobody asked for: %v", networks.asked)
	}
	if err := w.daemons[0].Listen(); err != nil {
		t.Fatal(err)
	}
	m.await("n1 is back", func(s *fleet.Snapshot) bool { return s.Nodes()[0].State == fleet.Healthy })
	run("given", map[string]any{"IPAMConfig": map[string]string{"IPv4Address": "10.50.0.77"}})
	m.awaitKept(2)
	w.daemons[0].Refuse()
	m.await("given runs elsewhere", func(s *fleet.Snapshot) bool {
		n := at(s, "given")
		return (n == "n2" || n == "n3") && w.running("given") == 2 // the lost one, which knows nothing of it, too
	})
	i := 1
	if at(m.Snapshot(), "given") == "n3" {
		i = 2
	}
	var got struct {
		NetworkSettings struct {
			Networks map[string]struct{ IPAddress string }
		}
	}
	if err := json.Unmarshal(on(i, "GET", "/containers/given/json", nil), &got); err != nil {
		t.Fatal(err)
	}
	if ip := got.NetworkSettings.Networks["net"].IPAddress; ip != "10.50.0.77" || len(networks.asked) == 0 {
		t.Errorf("address %q, released %v", ip, networks.asked)
	}
}
