package intents

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"sync/atomic"
	"time"

	"berth/internal/fleet"
)

// Keeper keeps intents on a Shelf, and in memory what that last said. Its methods may be called from any goroutine.
type Keeper struct {
	shelf  Shelf
	name   string // of the document, in errors
	shared bool   // the shelf is a store that others use, and that may be away or lose its memory
	seed   map[string]fleet.Intent
	log    *slog.Logger

	// turn holds one while somebody speaks to the shelf: one at a time, so that no older answer overwrites a newer one.
	turn  chan struct{}
	heard bool // the shelf has answered; whose turn it is has it
	known atomic.Pointer[state]
}

// state is the document at one moment. It is replaced, never changed.
type state struct {
	nodes map[string]fleet.Intent // by node object ID
	data  []byte
}

// patience is how long the shelf may take, and another manager on this computer hold the file.
const patience = 5 * time.Second

// Open reads the intents in a file; one that is not there yet holds none.
func Open(path string) (*Keeper, error) {
	k := newKeeper(NewFile(path), path)
	return k, k.Refresh(context.Background())
}

// Sharing is how a store is shared.
type Sharing struct {
	// Seed is what a store gets that holds nothing yet: what this manager knew before it was one of several.
	Seed map[string]fleet.Intent
	Log  *slog.Logger
}

// Share makes the Keeper of intents in a store, which nothing is asked of before the first Refresh.
func Share(shelf Shelf, s Sharing) *Keeper {
	k := newKeeper(shelf, "the store's document")
	k.shared, k.seed, k.log = true, s.Seed, s.Log
	return k
}

func newKeeper(shelf Shelf, name string) *Keeper {
	k := &Keeper{shelf: shelf, name: name, turn: make(chan struct{}, 1)}
	k.known.Store(&state{})
	return k
}

// All returns the intents by node ID, as they were last heard. The map must not be changed.
func (k *Keeper) All() map[string]fleet.Intent { return k.known.Load().nodes }

// take waits for the turn, and has what is done in it end in time. Whoever gets no error must call the function.
func (k *Keeper) take(ctx context.Context) (context.Context, func(), error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	select {
	case k.turn <- struct{}{}:
		return ctx, func() { <-k.turn; cancel() }, nil
	case <-ctx.Done():
		cancel()
		return nil, nil, k.failure(ctx.Err())
	}
}

// failure says what it means that the shelf did not do what it should.
func (k *Keeper) failure(err error) error {
	if k.shared {
		return &UnavailableError{err}
	}
	return fmt.Errorf("intents: %w", err)
}

// Refresh hears what the shelf says now. After an error All goes on with what it said last.
func (k *Keeper) Refresh(ctx context.Context) error {
	ctx, done, err := k.take(ctx)
	if err != nil {
		return err
	}
	defer done()
	_, _, err = k.load(ctx)
	return err
}

// load hears the shelf. The caller has the turn.
func (k *Keeper) load(ctx context.Context) (d document, version string, err error) {
	for {
		var data []byte
		if data, version, err = k.shelf.Load(ctx); err != nil {
			return d, "", k.failure(err)
		}
		if version != "" {
			if d, err = parse(k.name, data); err != nil {
				return d, "", err
			}
		}
		again, err := k.restore(ctx, d.Nodes, version)
		if err != nil {
			return d, "", err
		}
		if again {
			continue
		}
		k.heard = true
		k.publish(d, data)
		return d, version, nil
	}
}

// restore gives a store what this manager knows better. Versions only count up: a store with older ones than we have heard from it, or
// with none, has lost its memory, or got back an old one from a manager that was late itself. One that we hear for the first time, and that
// holds nothing, gets what this manager knew before it was one of several. restore says whether the document is another now.
func (k *Keeper) restore(ctx context.Context, nodes map[string]fleet.Intent, version string) (bool, error) {
	ours, why := k.All(), "the store has lost what is wanted of nodes: it was given what this manager knew"
	if !k.heard {
		ours, why = nil, "what was wanted of nodes in this manager's file was taken over into the store"
		if version == "" {
			ours = k.seed
		}
	}
	better := map[string]fleet.Intent{}
	for id, i := range ours {
		if k.shared && i.Version > nodes[id].Version {
			better[id] = i
		}
	}
	if len(better) == 0 {
		return false, nil
	}
	all := map[string]fleet.Intent{}
	maps.Copy(all, nodes)
	maps.Copy(all, better)
	data, err := k.encode(document{Nodes: all, Change: rand.Text()})
	if err != nil {
		return false, err
	}
	switch err := k.shelf.Save(ctx, data, version); {
	case errors.Is(err, ErrConflict):
		return true, nil
	case err != nil:
		return false, k.failure(err)
	}
	k.log.Warn(why, "nodes", len(better))
	return true, nil
}

// encode is brief for stores, which limit values, and for people in files.
func (k *Keeper) encode(d document) (data []byte, err error) {
	d.Version = documentVersion
	if k.shared {
		data, err = json.Marshal(d)
	} else {
		data, err = json.MarshalIndent(d, "", "  ")
	}
	if err != nil {
		return nil, fmt.Errorf("intents: %w", err)
	}
	return append(data, '\n'), nil
}

func (k *Keeper) publish(d document, data []byte) {
	if !bytes.Equal(k.known.Load().data, data) {
		k.known.Store(&state{d.Nodes, data})
	}
}

// Put changes one intent: edit gets what is there now and returns what shall be; a version other than what is there is a
// StaleError. What it returns is on the shelf. When other intents are changed at the same time edit is called once more.
func (k *Keeper) Put(ctx context.Context, id string, version uint64, edit func(fleet.Intent) fleet.Intent) (fleet.Intent, error) {
	ctx, done, err := k.take(ctx)
	if err != nil {
		return fleet.Intent{}, err
	}
	defer done()
	change := ""
	if k.shared {
		change = rand.Text()
	}
	for {
		d, at, err := k.load(ctx)
		if err != nil {
			return fleet.Intent{}, err
		}
		was := d.Nodes[id]
		if change != "" && d.Change == change {
			return was, nil // the store took it, and was asked again since its answer was lost
		}
		if was.Version != version {
			return fleet.Intent{}, &StaleError{id}
		}
		next := edit(was)
		next.Version = was.Version + 1
		if err := k.save(ctx, document{Nodes: with(d.Nodes, id, next), Change: change}, at); errors.Is(err, ErrConflict) {
			continue
		} else if err != nil {
			return fleet.Intent{}, err
		}
		return next, nil
	}
}

func (k *Keeper) save(ctx context.Context, d document, at string) error {
	data, err := k.encode(d)
	if err != nil {
		return err
	}
	if err := k.shelf.Save(ctx, data, at); errors.Is(err, ErrConflict) {
		return err
	} else if err != nil {
		return k.failure(err)
	}
	k.publish(d, data)
	return nil
}

func with(nodes map[string]fleet.Intent, id string, i fleet.Intent) map[string]fleet.Intent {
	all := maps.Clone(nodes)
	if all == nil {
		all = map[string]fleet.Intent{}
	}
	all[id] = i
	return all
}

// Follow calls changed after the intents have changed, until ctx ends. failed is told when the shelf cannot be read, and nil when it
// can again.
func (k *Keeper) Follow(ctx context.Context, every time.Duration, changed func(), failed func(error)) error {
	tick := time.NewTicker(every)
	defer tick.Stop()
	told, ill := k.known.Load(), false
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
		err := k.Refresh(ctx)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if (err != nil) != ill {
			ill = err != nil
			failed(err)
		}
		if now := k.known.Load(); now != told {
			told = now
			changed()
		}
	}
}
