// Package election decides which of several managers is the primary.
//
// A Leaser speaks to a store that grants one lease at a time. Run campaigns for it, and calls the work of a primary with a context
// that ends before the lease can have ended at the store, so that two primaries never work at once. What the work is, and which store
// there is, is not known here.
package election

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Leader is who holds the lease.
type Leader struct {
	// Addr is where other managers reach it, as it advertised itself. "" means that nobody leads.
	Addr string
	// Term is the fencing number of its lease: every later lease has a greater one.
	Term uint64
}

// Leaser grants leases of one name to one candidate. Its methods may be called at once.
type Leaser interface {
	// Acquire tries once to get the lease and does not wait for it: if another holds it the error is a *HeldError. A lease whose grant
	// the caller did not hear of ends by itself at the store.
	Acquire(ctx context.Context) (Lease, error)
	// Leader says who leads now; the zero Leader means that nobody does.
	Leader(ctx context.Context) (Leader, error)
	// Close ends the connections to the store. It does not release a lease.
	Close() error
}

// Lease is leadership for a while.
type Lease interface {
	// Renew makes the lease last for TTL from now on. ErrLost means that it cannot get better: another may lead already. Any other
	// error means that the store was not heard; the lease may have been renewed or not.
	Renew(ctx context.Context) error
	// TTL is how long the store keeps the lease at least, from the moment it receives a renewal.
	TTL() time.Duration
	// Term is the fencing number: greater than that of every lease before.
	Term() uint64
	// Release ends the lease at once. One that has ended is no error.
	Release(ctx context.Context) error
}

// ErrLost says that a lease has ended at the store.
var ErrLost = errors.New("the lease is lost")

// HeldError says who has the lease.
type HeldError struct{ Leader Leader }

func (e *HeldError) Error() string {
	return fmt.Sprintf("%s leads (term %d)", e.Leader.Addr, e.Leader.Term)
}
