package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"log/slog"
	"path/filepath"
	"strings"
	"time"

	"github.com/gofrs/flock"
	"golang.org/x/sync/errgroup"

	"berth/internal/api"
	"berth/internal/cluster"
	"berth/internal/fleet"
	"berth/internal/move"
	"berth/internal/rescue"
	"berth/internal/schedule"
)

// mover moves containers, and starts those of lost nodes elsewhere, if no other manager of the same fleet and store does.
type mover struct {
	*move.Mover
	keeper  *rescue.Keeper // which every manager runs
	rescuer *rescue.Rescuer
	lock    string
	cluster *cluster.Cluster
	log     *slog.Logger
}

// newMover makes the one that moves containers. It and the API need each other, so it gets the place where the API will be.
func (p *program) newMover(c *cluster.Cluster, id string, serve *serveOptions, log *slog.Logger, served **api.Server, among *replicated, networks rescue.Networks) (*mover, error) {
	store, err := p.store()
	if err != nil {
		return nil, err
	}
	o := move.DefaultOptions()
	o.Fleet, o.Knowledge, o.Owner, o.APIMax, o.Log = c, &knowledge{served}, id, serve.apiMax, log
	// Two managers with one store may serve different fleets.
	fleet := sha256.Sum256([]byte(strings.Join(serve.sources, "\n")))
	mark := hex.EncodeToString(fleet[:4])
	m := &mover{Mover: move.New(o), lock: filepath.Join(store.Dir(), "moves-"+mark+".lock"), cluster: c, log: log}
	keep := rescue.DefaultKeeperOptions()
	keep.Fleet, keep.Dir, keep.APIMax, keep.Log = c, filepath.Join(store.Dir(), "rescue-"+mark), serve.apiMax, log
	m.keeper = rescue.NewKeeper(keep)
	r := rescue.DefaultOptions()
	r.Fleet, r.Knowledge, r.Keeper, r.APIMax, r.Delay, r.Log = c, &knowledge{served}, m.keeper, serve.apiMax, serve.rescheduleDelay, log
	r.Networks = networks
	if among != nil {
		r.Check = among.inOffice
	}
	m.rescuer = rescue.New(r)
	return m, nil
}

// lockEvery is how often a manager looks whether the one that moves containers is gone.
const lockEvery = 2 * time.Second

// run moves containers from when the fleet is known, and once no other manager does, until ctx ends.
func (m *mover) run(ctx context.Context) error {
	select {
	case <-m.cluster.Looked():
	case <-ctx.Done():
		return ctx.Err()
	}
	l := flock.New(m.lock, flock.SetPermissions(0o600))
	if _, err := l.TryLockContext(ctx, lockEvery); err != nil {
		if ctx.Err() == nil {
			m.log.Warn("containers are not moved: no lock", "file", m.lock, "error", err)
			<-ctx.Done()
		}
		return ctx.Err()
	}
	defer l.Unlock() //nolint:errcheck // the end of the process gives it up too
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return m.Run(ctx) })
	g.Go(func() error { return m.rescuer.Run(ctx) })
	return g.Wait()
}

// knowledge is what a move asks of the API.
type knowledge struct{ api **api.Server }

func (k *knowledge) Requirements(ctx context.Context, name string, body []byte, along []string) (*schedule.Request, error) {
	return (*k.api).Requirements(ctx, name, body, along)
}

func (k *knowledge) Provide(ctx context.Context, to *fleet.Node, ref, id string) (string, error) {
	return (*k.api).Provide(ctx, to, ref, id)
}

func (k *knowledge) Carry(ctx context.Context, from, to *fleet.Node, ref, id string) (string, error) {
	return (*k.api).Carry(ctx, from, to, ref, id)
}
