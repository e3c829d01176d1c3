package fleet

import (
	"crypto/sha256"
	"maps"
	"math/big"
)

// Availability is what the operator wants of a node, in Swarm mode's words.
type Availability string

const (
	// Active nodes take new containers. The empty Availability is Active too.
	Active Availability = "active"
	// Pause keeps new containers away.
	Pause Availability = "pause"
	// Drain keeps new containers away and moves those that can be moved.
	Drain Availability = "drain"
)

// LabelDrainVolumes is a label that, added to a node, lets a drain carry local volumes along.
const LabelDrainVolumes = "berth.drain.volumes"

// Intent is what the operator wants of one node, beyond what its engine says of itself. The zero value wants nothing.
type Intent struct {
	Availability Availability      `json:",omitempty"`
	Labels       map[string]string `json:",omitempty"` // added ones: they count like the engine's own
	// Removed nodes are not followed although their source still names them.
	Removed bool `json:",omitempty"`
	// Version counts the changes, so that an update which was made from an older state can be refused.
	Version uint64
	// EngineID, Addr and Name are how the node was last known.
	EngineID string `json:",omitempty"`
	Addr     string `json:",omitempty"`
	Name     string `json:",omitempty"`
}

// Wants tells whether the intent says anything.
func (i Intent) Wants() bool {
	return i.Removed || i.Availability != "" && i.Availability != Active || len(i.Labels) > 0
}

// WithVolumes tells whether a drain may carry local volumes along.
func (i Intent) WithVolumes() bool { return i.Labels[LabelDrainVolumes] == "true" }

// objectIDLength is that of Swarm mode's IDs, which clients expect.
const objectIDLength = 25

// ObjectID makes an ID in Swarm mode's form out of any stable word, the same on every manager.
func ObjectID(word string) string {
	sum := sha256.Sum256([]byte(word))
	id := new(big.Int).SetBytes(sum[:]).Text(36)
	for len(id) < objectIDLength {
		id = "0" + id
	}
	return id[:objectIDLength]
}

// ObjectID is the node's ID as an object of Docker's API. It follows the engine to another address; one that was never
// reached goes by its address.
func (n *Node) ObjectID() string {
	if n.EngineID == "" {
		return ObjectID("addr " + n.Addr)
	}
	return ObjectID(n.EngineID)
}

// Intended returns the node with an intent applied, which is the node itself if the intent changes nothing.
func (n *Node) Intended(i Intent) *Node {
	if !i.Wants() && i.Version == n.IntentVersion && n.Added == nil && n.Availability == "" {
		return n
	}
	next := *n
	next.Availability, next.Added, next.IntentVersion = i.Availability, i.Labels, i.Version
	if next.Availability == Active {
		next.Availability = ""
	}
	if len(i.Labels) > 0 {
		next.Labels = maps.Clone(n.Labels)
		if next.Labels == nil {
			next.Labels = map[string]string{}
		}
		for k, v := range i.Labels {
			if !builtIn(k) {
				next.Labels[k] = v
			}
		}
	}
	return next.Seal()
}

// builtIn tells whether a label key says what the engine is, or is a constraint's own word: nobody may say otherwise.
func builtIn(key string) bool {
	switch key {
	case "storagedriver", "kernelversion", "operatingsystem", "ostype", "node":
		return true
	}
	return false
}

// Takes tells whether new containers may be put on the node, by what the operator wants.
func (n *Node) Takes() bool { return n.Availability == "" || n.Availability == Active }
