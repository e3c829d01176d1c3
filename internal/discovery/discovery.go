// Package discovery tells where the engines of a fleet are.
//
// A URL names the place that knows: a list in the URL itself, a file, a token service, or a key-value store, whose packages stand
// below this one and are handed in, since their libraries are heavy. Parse turns it into a
// Source, which reports the whole set of addresses at once and again at every change. Entries may hold numeric ranges.
// What an address leads to, and whether anything answers there, is not known here.
package discovery

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

const (
	defaultHeartbeat = 60 * time.Second
	minHeartbeat     = time.Second
)

// Source tells which engines there are, as addresses: "10.0.0.1:2376", "name:port", "tcp://name:port", "unix:///path",
// "ssh://user@name[:port][/path]".
type Source interface {
	// Watch blocks until ctx ends and then returns nil. It calls update soon after the start with the first set, and
	// with the whole set again at every change; never twice at once, and each time with a slice that update may keep.
	// A place that cannot be read just now keeps its last set and is reported through Options.Warn; an error is
	// returned only for what cannot get better. Watch may be called again after it returned.
	Watch(ctx context.Context, update func(addrs []string)) error
}

// Options are common to all sources.
type Options struct {
	// Heartbeat is how often a source that cannot announce its changes is read again: at least a second; 0 means 60 s.
	Heartbeat time.Duration
	// Warn is told what went wrong and may get better, once per kind of trouble and not at every heartbeat. It is
	// called from within Parse and Watch. nil means nobody wants to know.
	Warn func(error)
	// State is told why the members that are reported may not be the true ones, such as that the place is down and the last known ones
	// are kept; and nil when that is over. It is called as Warn is, from within Watch. nil means nobody wants to know.
	State func(error)
	// Opts are the --discovery-opt key=value pairs.
	Opts map[string]string
	// Stores are the stores that there are, by the schemes of their URLs.
	Stores map[string]NewStore
}

// complete fills in what was left out.
func (o Options) complete() (Options, error) {
	switch {
	case o.Heartbeat == 0:
		o.Heartbeat = defaultHeartbeat
	case o.Heartbeat < minHeartbeat:
		return o, fmt.Errorf("heartbeat %v: at least %v is needed", o.Heartbeat, minHeartbeat)
	}
	if o.Warn == nil {
		o.Warn = func(error) {}
	}
	if o.State == nil {
		o.State = func(error) {}
	}
	return o, nil
}

// store makes the Store that rawURL names; nil if it names none.
func (o Options) store(rawURL string) (Store, error) {
	scheme, _, found := strings.Cut(strings.TrimSpace(rawURL), "://")
	open := o.Stores[strings.ToLower(scheme)]
	if !found || open == nil {
		return nil, nil //nolint:nilnil // no store is no error
	}
	for _, k := range slices.Sorted(maps.Keys(o.Opts)) {
		if !slices.Contains(storeOpts, k) && !strings.HasPrefix(k, strings.ToLower(scheme)+".") {
			o.Warn(fmt.Errorf("discovery option %s has no meaning for %s://", shorten(k), scheme))
		}
	}
	return open(rawURL, o)
}

// CheckURL says what is wrong with the URL itself, for who will use it elsewhere, where its options' files are.
func CheckURL(rawURL string, o Options) error {
	scheme, _, _ := strings.Cut(strings.TrimSpace(rawURL), "://")
	if o.Stores[strings.ToLower(scheme)] != nil {
		_, err := ParsePlace(rawURL, "1", Options{})
		return err
	}
	_, err := Parse(rawURL, o)
	return err
}

// Parse makes the Source that rawURL names: nodes://a:2375,b:2375 or the bare list, file:///path or file://path,
// token://host:port/TOKEN or token+http://host:port/TOKEN, or a store's.
func Parse(rawURL string, o Options) (Source, error) {
	o, err := o.complete()
	if err != nil {
		return nil, err
	}
	store, err := o.store(rawURL)
	switch {
	case err != nil:
		return nil, err
	case store != nil:
		return newMembers(store, o)
	}
	scheme, rest, found := strings.Cut(strings.TrimSpace(rawURL), "://")
	if !found || isEngineScheme(scheme) {
		scheme, rest = "nodes", strings.TrimSpace(rawURL)
	}
	switch strings.ToLower(scheme) {
	case "nodes":
		warnOpts(o, "nodes://")
		return newNodes(rest)
	case "file":
		warnOpts(o, "file://")
		return newFile(rest, o)
	case "token", "token+http":
		return newToken(strings.ToLower(scheme), rest, o)
	}
	// Only the scheme is repeated: the rest may be a token or hold a password.
	stores := slices.Sorted(maps.Keys(o.Stores))
	for i, s := range stores {
		stores[i] = s + "://HOST,HOST/PREFIX, "
	}
	return nil, fmt.Errorf("discovery by %q is not supported: use nodes://HOST:PORT,…, file:///PATH, token://HOST:PORT/TOKEN, %sor a list of HOST:PORT, "+
		"tcp://HOST:PORT, unix:///PATH and ssh://USER@HOST", shorten(scheme)+"://", strings.Join(stores, ""))
}

// warnOpts says which options the source has no use for; they are no error because one command line is often used with
// several kinds of URL.
func warnOpts(o Options, source string) {
	for _, k := range slices.Sorted(maps.Keys(o.Opts)) {
		o.Warn(fmt.Errorf("discovery option %s has no meaning for %s", shorten(k), source))
	}
}

// nodes is a set that was given and never changes.
type nodes []string

func newNodes(list string) (Source, error) {
	addrs, err := parseList(list)
	if err != nil {
		return nil, fmt.Errorf("list of nodes: %w", err)
	}
	return nodes(addrs), nil
}

// parseList reads the entries between commas.
func parseList(list string) ([]string, error) {
	var s addrSet
	for entry := range strings.SplitSeq(list, ",") {
		if entry = strings.TrimSpace(entry); entry == "" {
			continue
		}
		if err := s.add(entry); err != nil {
			return nil, err
		}
	}
	if len(s.addrs) == 0 {
		return nil, errors.New("no address in it")
	}
	return s.addrs, nil
}

func (n nodes) Watch(ctx context.Context, update func([]string)) error {
	update(slices.Clone(n))
	<-ctx.Done()
	return nil
}
