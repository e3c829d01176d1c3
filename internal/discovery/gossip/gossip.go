// Package gossip finds a fleet's members without a server: agents and managers tell each other, by the SWIM protocol of memberlist.
//
// An agent says in its own entry which engine it keeps and for how long to believe in it if it dies; a manager listens in. All of it is
// encrypted with one key that all share. Nobody can lead by gossip: who is the primary takes a store that can say no.
package gossip

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"

	"berth/internal/discovery"
)

const (
	defaultPort = 7946
	// tcpLimit bounds each attempt to speak to a seed; memberlist knows no contexts.
	tcpLimit = 2 * time.Second
	// tellLimit is how long the others may take to hear of a change.
	tellLimit = 3 * time.Second

	optKey       = "gossip.key-file"
	optBind      = "gossip.bind"
	optAdvertise = "gossip.advertise"
)

// Members are the members that gossip tells of.
type Members struct {
	place     discovery.Place
	key       []byte
	bind      endpoint
	advertise endpoint

	peersMu sync.Mutex
	peers   []string // where other nodes were last seen, for when no seed is there

	mu     sync.Mutex // held by one call of Register, Leave and Close at a time; guards what follows
	node   *node
	expire *time.Timer
	beat   int // counts registrations, so that a timer of an older one does nothing
}

// endpoint is host:port as far as they were given.
type endpoint struct {
	host  string
	port  int
	given bool
}

// New makes the Members of gossip://SEED[:7946],SEED…[/PREFIX].
func New(rawURL string, o discovery.Options) (discovery.Store, error) {
	place, err := discovery.ParsePlace(rawURL, strconv.Itoa(defaultPort), o)
	if err != nil {
		return nil, err
	}
	m := &Members{place: place}
	if m.key, err = readKey(o.Opts[optKey]); err != nil {
		return nil, err
	}
	if m.bind, err = parseEndpoint(optBind, o.Opts[optBind], endpoint{"0.0.0.0", defaultPort, false}); err != nil {
		return nil, err
	}
	m.advertise, err = parseEndpoint(optAdvertise, o.Opts[optAdvertise], endpoint{})
	return m, err
}

// readKey reads a key of AES: 16, 24 or 32 bytes in base64.
func readKey(path string) ([]byte, error) {
	const how = "it holds 16, 24 or 32 random bytes in base64, the same for all: openssl rand -base64 32"
	if path == "" {
		return nil, fmt.Errorf("gossip:// is encrypted: name the shared key with --discovery-opt %s=FILE; %s", optKey, how)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", optKey, err)
	}
	key, err := base64.StdEncoding.DecodeString(strings.TrimSpace(string(text)))
	if err != nil || memberlist.ValidateKey(key) != nil {
		return nil, fmt.Errorf("%s: %s is no key: %s", optKey, path, how)
	}
	return key, nil
}

func parseEndpoint(option, text string, usual endpoint) (endpoint, error) {
	if text == "" {
		return usual, nil
	}
	host, port, err := net.SplitHostPort(text)
	n, notNumber := strconv.ParseUint(port, 10, 16)
	if err != nil || notNumber != nil || net.ParseIP(host) == nil {
		return usual, fmt.Errorf("%s=%s: want IP:PORT", option, text)
	}
	return endpoint{host, int(n), true}, nil
}

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

// Follow gossips along and tells what it hears.
func (m *Members) Follow(ctx context.Context, see func([]string)) error {
	n, err := m.join(entry{})
	if n != nil {
		defer n.end(true) //nolint:errcheck // who did not hear the farewell finds out
	}
	if err != nil {
		return err
	}
	look := time.NewTicker(min(time.Second, m.place.Heartbeat))
	defer look.Stop()
	seek := time.NewTicker(m.place.Heartbeat)
	defer seek.Stop()
	last := ""
	for first := true; ; first = false {
		addrs, alone := n.members()
		if alone {
			return errors.New("gossip: none of the others answers any more")
		}
		m.remember(n)
		if key := strings.Join(addrs, " "); first || key != last {
			last = key
			see(addrs)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-n.news:
		case <-look.C: // a silent one's time may be over
		case <-seek.C:
			if err := m.find(n); err != nil {
				return err
			}
		}
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

func (m *Members) remember(n *node) {
	if alive := n.alive(); len(alive) > 0 {
		m.peersMu.Lock()
		defer m.peersMu.Unlock()
		m.peers = alive
	}
}

// Register begins to gossip of the engine, or goes on.
func (m *Members) Register(_ context.Context, addr string, ttl time.Duration) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	e := entry{Engine: addr, TTL: max(1, int(ttl.Round(time.Second)/time.Second))}
	var err error
	if m.node == nil {
		if m.node, err = m.join(e); m.node == nil {
			return err
		}
	} else if err = m.node.say(e); err == nil {
		err = m.find(m.node)
	}
	m.remember(m.node)
	m.await(ttl)
	return err
}

// await takes the engine out if no other call comes within ttl.
func (m *Members) await(ttl time.Duration) {
	if m.expire != nil {
		m.expire.Stop()
	}
	m.beat++
	beat := m.beat
	m.expire = time.AfterFunc(ttl, func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		if m.beat == beat && m.node != nil {
			_ = m.node.say(entry{}) // who does not hear it now hears it when they next meet
		}
	})
}

// Leave says farewell, which only the agent itself can: nobody else speaks for it.
func (m *Members) Leave(_ context.Context, addr string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.beat == 0 {
		return fmt.Errorf("gossip: only the agent that keeps %s can take it out: end that", addr)
	}
	return m.stop(true)
}

// Close stops to gossip, which the others take for a death.
func (m *Members) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.stop(false)
}

func (m *Members) stop(farewell bool) error {
	m.beat++
	if m.expire != nil {
		m.expire.Stop()
	}
	if m.node == nil {
		return nil
	}
	n := m.node
	m.node = nil
	return n.end(farewell)
}
