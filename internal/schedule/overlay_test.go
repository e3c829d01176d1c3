package schedule

import (
	"testing"

	"berth/internal/fleet"
)

func TestOverlay(t *testing.T) {
	in := func(n *fleet.Node, cluster string, manager bool, managers ...string) *fleet.Node {
		n.Swarm = fleet.Swarm{State: "active", NodeID: "S" + n.Name, Manager: manager, Managers: managers}
		if manager {
			n.Swarm.Cluster = cluster
		}
		return n
	}
	nodes := func() []*fleet.Node {
		rootless := node("n5")
		rootless.NoOverlay = "rootless engines cannot"
		return []*fleet.Node{
			in(node("n1"), "C", true, "Sn1"), in(node("n2"), "", false, "Sn1"), in(node("n3"), "D", true, "Sn3"), node("n4"), rootless,
		}
	}
	web := []string{"web"}
	runFilterCases(t, map[string]filterCase{
		"without such a network":             {nodes: nodes(), want: "n1 n2 n3 n4 n5"},
		"a swarm's managers and workers":     {nodes: nodes(), req: Request{Overlays: web, Swarm: "C"}, want: "n1 n2"},
		"of any swarm, if nobody says which": {nodes: nodes(), req: Request{Overlays: web}, want: "n1 n2 n3"},
		"refused": {nodes: nodes()[2:], req: Request{Overlays: web, Swarm: "C", Exclude: nil}, rules: []string{"constraint:node!=n3"},
			want: "no node fits web: 1 of 3 breaks constraint node!=n3, 1 has not joined the overlay networks, 1 cannot join overlay networks: rootless engines cannot"},
		"in another swarm": {nodes: nodes()[:3], req: Request{Overlays: web, Swarm: "C"}, rules: []string{"constraint:node==n3"},
			want: "no node fits web: 2 of 3 lack constraint node==n3, 1 is in another swarm"},
		"whatever the filters are": {nodes: nodes(), filters: []string{}, req: Request{Overlays: web, Swarm: "D"}, want: "n3"},
	})
}
