// Package replica is what a manager is among several: the primary, which alone places containers, or a replica, which answers reads
// from its own view and hands everything else to the primary.
//
// Who is which is decided elsewhere, by an election; it is told to a Standing. The Handler stands before a manager's own.
package replica

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/hex"
	"strings"
	"sync"
)

// Tenure is the time for which this manager is the primary.
type Tenure interface {
	// Valid says whether it is not over, at this very moment.
	Valid() bool
	// Term is greater than that of every tenure before, whoever's it was.
	Term() uint64
}

// Standing is where this manager stands among the others.
type Standing struct {
	addr  string
	token string

	mu      sync.Mutex
	primary string // as it advertises itself; "" if there is none
	tenure  Tenure
	over    context.Context //nolint:containedctx // ends with the tenure
	changed chan struct{}   // closed when the primary is another
}

// New makes the standing of a manager that other managers reach at addr, host:port.
func New(addr string) *Standing {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails: crypto/rand.Read ends the program instead
	return &Standing{addr: addr, token: hex.EncodeToString(b[:]), changed: make(chan struct{})}
}

// Advertise is what the manager tells in the election: its address, and a secret by which it knows that a request comes from another
// manager. Who may read the election's store may do anything with the fleet anyway.
func (s *Standing) Advertise() string { return s.addr + "#" + s.token }

// Changed tells who leads now: what that manager advertises, or "".
func (s *Standing) Changed(advertised string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if advertised == s.primary {
		return
	}
	s.primary = advertised
	close(s.changed)
	s.changed = make(chan struct{})
}

// Serve makes this manager the primary until ctx ends, which is over as soon as the tenure is.
func (s *Standing) Serve(ctx context.Context, t Tenure) error {
	s.set(ctx, t)
	defer s.set(nil, nil) //nolint:staticcheck // there is none
	<-ctx.Done()
	return nil
}

func (s *Standing) set(ctx context.Context, t Tenure) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.over, s.tenure = ctx, t
}

// Role is what `docker info` says: primary or replica, and for a replica where the primary is.
func (s *Standing) Role() (role, primary string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.tenure != nil && s.tenure.Valid() {
		return "primary", ""
	}
	addr, _ := parseAdvert(s.primary)
	return "replica", addr
}

// Hold returns a context that ends when this manager is not the primary any more, and the term in which it is; at once an error if it
// is none.
func (s *Standing) Hold(ctx context.Context) (context.Context, context.CancelFunc, uint64, error) {
	s.mu.Lock()
	over, tenure := s.over, s.tenure
	s.mu.Unlock()
	if tenure == nil || !tenure.Valid() {
		return nil, nil, 0, errDeposed
	}
	ctx, cancel := context.WithCancelCause(ctx)
	stop := context.AfterFunc(over, func() { cancel(errDeposed) })
	return ctx, func() { stop(); cancel(nil) }, tenure.Term(), nil
}

// Check says whether this manager is the primary of that term still. To be asked last before what cannot be undone.
func (s *Standing) Check(term uint64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.tenure == nil || s.tenure.Term() != term || !s.tenure.Valid() {
		return errDeposed
	}
	return nil
}

// Term is that of the current tenure, or 0.
func (s *Standing) Term() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.tenure == nil {
		return 0
	}
	return s.tenure.Term()
}

// deposed tells a client that it may try again: nothing was done for it.
type deposed struct{}

var errDeposed error = deposed{}

func (deposed) Error() string { return "this manager is not the primary any more; try again" }

// Unavailable makes it errdefs.ErrUnavailable.
func (deposed) Unavailable() {}

func (s *Standing) self() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.tenure != nil && s.tenure.Valid()
}

// ours tells whether a request was handed to us by another manager.
func (s *Standing) ours(token string) bool {
	return subtle.ConstantTimeCompare([]byte(token), []byte(s.token)) == 1
}

// where is the primary now, and when that may be another. self is this manager, also while it is about to begin or to end.
func (s *Standing) where() (addr, token string, changed <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	addr, token = parseAdvert(s.primary)
	if token == s.token {
		addr = "" // what its own tenure does not say cannot be asked of itself
	}
	return addr, token, s.changed
}

func parseAdvert(advertised string) (addr, token string) {
	addr, token, _ = strings.Cut(advertised, "#")
	return addr, token
}
