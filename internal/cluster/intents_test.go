package cluster

import (
	"testing"

	"berth/internal/dockertest"
	"berth/internal/fleet"
)

func (r *rig) want(t *testing.T, n *fleet.Node, id string, i fleet.Intent) {
	t.Helper()
	i.EngineID, i.Addr, i.Name = n.EngineID, n.Addr, n.Name
	if err := r.SetIntent(t.Context(), id, n.IntentVersion, func(fleet.Intent) fleet.Intent { return i }); err != nil {
		t.Fatal(err)
	}
}

func TestARemovedNodeComesBackOnceItIsNamedAnew(t *testing.T) {
	r := newRig(t, 2)
	n, _ := r.Snapshot().NodeByName("n1")
	r.want(t, n, n.ObjectID(), fleet.Intent{Removed: true})
	if nodes := r.Snapshot().Nodes(); len(nodes) != 1 || len(r.Removed()) != 1 {
		t.Fatalf("after the removal: %d nodes, removed %v", len(nodes), r.Removed())
	}
	r.source.set(endpoint(r.daemons[0]), endpoint(r.daemons[1])) // still named
	if nodes := r.Snapshot().Nodes(); len(nodes) != 1 {
		t.Errorf("while it is named: %d nodes", len(nodes))
	}
	r.source.set(endpoint(r.daemons[1]))
	if len(r.Removed()) != 0 {
		t.Errorf("once it is not named any more: %v", r.Removed())
	}
	r.source.set(endpoint(r.daemons[0]), endpoint(r.daemons[1]))
	r.await(t, "it is back", func(s *fleet.Snapshot) bool { return healthy(s) == 2 })
}

// Cloned machines share an engine ID. What was wanted of the first holds for its clones, until one of them is meant.
func TestIntentsForClones(t *testing.T) {
	r := newRig(t, 2, func(o *dockertest.Options) { o.ID = "SAME:ENGINE:ID" })
	n1, _ := r.Snapshot().NodeByName("n1")
	r.want(t, n1, n1.ObjectID(), fleet.Intent{Availability: fleet.Pause})
	for _, n := range r.Snapshot().Nodes() {
		if n.Availability != fleet.Pause {
			t.Errorf("%s is %q", n.Name, n.Availability)
		}
	}
	n2, _ := r.Snapshot().NodeByName("n2")
	r.want(t, n2, fleet.ObjectID(n2.ID), fleet.Intent{Availability: fleet.Active})
	n1, _ = r.Snapshot().NodeByName("n1")
	n2, _ = r.Snapshot().NodeByName("n2")
	if n1.Availability != fleet.Pause || !n2.Takes() {
		t.Errorf("n1 is %q, n2 %q; intents %+v", n1.Availability, n2.Availability, r.intents.All())
	}
}

// A node that was not reached yet is known by its address.
func TestAnIntentHoldsForANodeThatIsDown(t *testing.T) {
	r := newRig(t, 1)
	n, _ := r.Snapshot().NodeByName("n1")
	r.want(t, n, n.ObjectID(), fleet.Intent{Availability: fleet.Drain, Labels: map[string]string{"rack": "7"}})
	down := &fleet.Node{ID: "|" + n.Addr, Addr: n.Addr, Name: "n1"}
	if got := r.intend(down); got.Availability != fleet.Drain || got.Labels["rack"] != "7" {
		t.Errorf("got %+v", got)
	}
}
