package gossip

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"
)

// entry is what a node says of itself.
type entry struct {
	Engine string `json:"engine,omitempty"` // host:port; "" for a manager
	TTL    int    `json:"ttl,omitempty"`    // seconds
}

// node is our part in the gossip.
type node struct {
	name string
	list *memberlist.Memberlist

	mu    sync.Mutex
	entry entry
	heard map[string]heard // by a node's name
	news  chan struct{}    // holds one
}

// heard is what is known of another node.
type heard struct {
	entry  entry
	addr   string    // where it gossips
	failed time.Time // since when it is silent; zero while it is alive
}

// join begins to gossip and finds the others. One that finds nobody is returned with the error, since others may find it.
func (m *Members) join(e entry) (*node, error) {
	n := &node{name: "berth-" + rand.Text(), entry: e, heard: map[string]heard{}, news: make(chan struct{}, 1)}
	c := memberlist.DefaultLANConfig()
	c.Name = n.name // a process that comes back is another one
	c.Label = label(m.place.Nodes)
	c.SecretKey, c.TCPTimeout = m.key, tcpLimit
	c.Logger = log.New(io.Discard, "", 0)
	c.Delegate, c.Events = n, n
	c.BindAddr, c.BindPort = m.bind.host, m.bind.port
	c.AdvertisePort = m.bind.port
	if m.advertise.given {
		c.AdvertiseAddr, c.AdvertisePort = m.advertise.host, m.advertise.port
	}
	var err error
	if n.list, err = memberlist.Create(c); err != nil && !m.bind.given {
		// The agent or the manager beside us has the usual port; only seeds must be where they are looked for.
		c.BindPort = 0
		if !m.advertise.given {
			c.AdvertisePort = 0
		}
		n.list, err = memberlist.Create(c)
	}
	if err != nil {
		return nil, fmt.Errorf("gossip at %s: %w", net.JoinHostPort(c.BindAddr, strconv.Itoa(c.BindPort)), err)
	}
	return n, m.find(n)
}

// label keeps fleets apart; memberlist allows 255 bytes.
func label(place string) string { return place[:min(len(place), memberlist.LabelMaxSize)] }

// find speaks to the seeds that we do not hear of, or else to whom we heard of before.
func (m *Members) find(n *node) error {
	alive := n.alive()
	self := n.list.LocalNode().Address()
	missing := slices.DeleteFunc(slices.Clone(m.place.Endpoints), func(seed string) bool { return slices.Contains(alive, seed) || seed == self })
	if len(missing) == 0 {
		return nil
	}
	_, err := n.list.Join(missing)
	if len(n.alive()) > 0 || len(missing) < len(m.place.Endpoints) {
		return nil
	}
	m.peersMu.Lock()
	peers := slices.Clone(m.peers)
	m.peersMu.Unlock()
	if len(peers) > 0 {
		if reached, _ := n.list.Join(peers); reached > 0 { // why the seeds did not answer is of more use
			return nil
		}
	}
	if err == nil {
		return nil // a seed by another of our own names
	}
	return fmt.Errorf("gossip: no seed of %s answers, or their %s holds another key: %s", m.place.Scheme+"://"+strings.Join(m.place.Endpoints, ","), optKey,
		strings.Join(strings.Fields(err.Error()), " "))
}

// alive lists where other nodes gossip.
func (n *node) alive() (addrs []string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, h := range n.heard {
		if h.failed.IsZero() {
			addrs = append(addrs, h.addr)
		}
	}
	return addrs
}

// say changes what we say of ourselves, and tells the others.
func (n *node) say(e entry) error {
	n.mu.Lock()
	same := n.entry == e
	n.entry = e
	n.mu.Unlock()
	if same {
		return nil
	}
	return n.list.UpdateNode(tellLimit)
}

// end stops to gossip; with a farewell, or as if we had died.
func (n *node) end(farewell bool) error {
	var err error
	if farewell {
		err = errors.Join(n.say(entry{}), n.list.Leave(tellLimit))
	}
	return errors.Join(err, n.list.Shutdown())
}

// NodeMeta is memberlist's question of what to say of ourselves.
func (n *node) NodeMeta(limit int) []byte {
	n.mu.Lock()
	defer n.mu.Unlock()
	b, err := json.Marshal(n.entry)
	if err != nil || len(b) > limit {
		return nil
	}
	return b
}

// The rest of memberlist's Delegate: we have nothing else to say.

// NotifyMsg takes no messages.
func (n *node) NotifyMsg([]byte) {}

// GetBroadcasts has none.
func (n *node) GetBroadcasts(int, int) [][]byte { return nil }

// LocalState has none.
func (n *node) LocalState(bool) []byte { return nil }

// MergeRemoteState takes none.
func (n *node) MergeRemoteState([]byte, bool) {}

// NotifyJoin is told of a node that is alive.
func (n *node) NotifyJoin(other *memberlist.Node) { n.hear(other) }

// NotifyUpdate is told of a node that says something else of itself.
func (n *node) NotifyUpdate(other *memberlist.Node) { n.hear(other) }

func (n *node) hear(other *memberlist.Node) {
	n.mu.Lock()
	defer n.mu.Unlock()
	h := heard{addr: other.Address()}
	if other.Name == n.name {
		return
	}
	if len(other.Meta) > 0 && json.Unmarshal(other.Meta, &h.entry) != nil {
		h.entry = entry{}
	}
	was := n.heard[other.Name].entry.Engine
	n.heard[other.Name] = h
	if was != "" && h.entry.Engine == "" {
		for name, o := range n.heard { // of processes before it, which died
			if o.entry.Engine == was && !o.failed.IsZero() {
				delete(n.heard, name)
			}
		}
	}
	n.tell()
}

// NotifyLeave is told of a node that left, or that is silent; memberlist does not say which. One that has an engine still in its entry
// did not say farewell.
func (n *node) NotifyLeave(other *memberlist.Node) {
	n.mu.Lock()
	defer n.mu.Unlock()
	h, known := n.heard[other.Name]
	if !known {
		return
	}
	if h.entry.Engine == "" {
		delete(n.heard, other.Name)
	} else {
		h.failed = time.Now()
		n.heard[other.Name] = h
	}
	n.tell()
}

func (n *node) tell() {
	select {
	case n.news <- struct{}{}:
	default:
	}
}

// members forgets those that were silent for too long, and lists the engines of the others. alone says that all went silent, which is
// more often our own silence.
func (n *node) members() (addrs []string, alone bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	alive, silent := 0, 0
	for name, h := range n.heard {
		switch {
		case h.failed.IsZero():
			alive++
		default:
			silent++
		}
		if !h.failed.IsZero() && time.Since(h.failed) > time.Duration(h.entry.TTL)*time.Second {
			delete(n.heard, name)
			continue
		}
		if h.entry.Engine != "" && !slices.Contains(addrs, h.entry.Engine) {
			addrs = append(addrs, h.entry.Engine)
		}
	}
	slices.Sort(addrs)
	return addrs, alive == 0 && silent > 0
}
