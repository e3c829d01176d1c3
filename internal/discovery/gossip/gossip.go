// Package gossip finds a fleet's members without a server: agents and managers tell each other, by the SWIM protocol of memberlist.
//
// An agent says in its own entry which engine it keeps and for how long to believe in it if it dies; a manager listens in. All of it is
// encrypted with one key that all share. Nobody can lead by gossip: who is the primary takes a store that can say no.
package gossip

import (
	"encoding/base64"
	"fmt"
	"net"
	"os"
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
