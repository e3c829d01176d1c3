// Package intents remembers what the operator wants of nodes: availability, added labels, removal.
//
// An intent is small, changes rarely, and must survive the manager, since no engine can hold it. All of them are one document on a
// Shelf: a file for a manager that is alone, or for several on one computer; a key-value store for managers on several. A Keeper holds
// in memory what the Shelf last said, and changes it there by compare-and-swap. It knows nothing of nodes beyond their IDs.
package intents

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"berth/internal/fleet"
)

// Shelf is where the document lies, for all managers that share it. Its methods may be called at once, and with a context that has a
// deadline.
type Shelf interface {
	// Load returns the document as it is now, with what others have just saved, and its version. No version means that there is none.
	Load(ctx context.Context) (data []byte, version string, err error)
	// Save replaces the document if it still has that version; with no version, if there still is none. Else the error is ErrConflict.
	// After any other error it may have been replaced or not.
	Save(ctx context.Context, data []byte, version string) error
	// Close ends the connections. No other call comes after it.
	Close() error
}

// ErrConflict says that a document was saved by another since it was loaded.
var ErrConflict = errors.New("intents: saved by another manager meanwhile")

// StaleError says that an intent was changed since the version that an update was made from. Its text is dockerd's.
type StaleError struct{ ID string }

func (e *StaleError) Error() string { return "rpc error: code = Unknown desc = update out of sequence" }

// UnavailableError says that the store which managers share does not do what was asked of it.
type UnavailableError struct{ Err error }

func (e *UnavailableError) Error() string {
	return fmt.Sprintf("what is wanted of nodes cannot be read or changed now: %v", e.Err)
}
func (e *UnavailableError) Unwrap() error { return e.Err }

// Unavailable makes it errdefs.ErrUnavailable.
func (e *UnavailableError) Unavailable() {}

// document is what lies on the shelf.
type document struct {
	Version int
	// Change is the name of the change that made it, by which a manager knows a document that it saved without hearing so.
	Change string `json:",omitempty"`
	Nodes  map[string]fleet.Intent
}

const documentVersion = 1

func parse(name string, data []byte) (d document, err error) {
	if err := json.Unmarshal(data, &d); err != nil {
		return d, fmt.Errorf("intents: %s: %w", name, err)
	}
	if d.Version != documentVersion {
		return d, fmt.Errorf("intents: %s is of version %d, which this berth does not read", name, d.Version)
	}
	return d, nil
}
