package api

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"berth/internal/fleet"
	"berth/internal/rawjson"
)

// moveLimit bounds one removal or remaking of an object that moves.
const moveLimit = 30 * time.Second

// touched tells whether the events show that a container used one of the objects, as one that was started on the engine
// directly and is gone again does.
func (s *Server) touched(ctx context.Context, ys []*young) bool {
	ctx, cancel := context.WithCancel(ctx)
	events, _ := s.fleet.Subscribe(ctx)
	cancel()
	used := map[object]bool{}
	for _, ev := range events {
		for _, y := range ys {
			switch {
			case ev.NodeID != y.node || ev.Type != string(y.kind):
			case y.kind == fleet.KindNetwork && ev.ActorID == y.mark && ev.Action == "connect":
				used[y.object] = true
			case y.kind == fleet.KindVolume && ev.ActorID == y.name && (ev.Action == "mount" || ev.Action == "destroy"):
				used[y.object] = ev.Action == "mount" // what was destroyed was an earlier volume of that name
			}
		}
	}
	for _, u := range used {
		if u {
			return true
		}
	}
	return false
}

// moveAll takes objects to a node, all or none.
func (s *Server) moveAll(ctx context.Context, ys []*young, to *fleet.Node) error {
	ctx = context.WithoutCancel(ctx) // a client that leaves in the middle must not cost the object
	var back []func() error
	seen := map[object]bool{}
	for _, y := range ys {
		if y.node == to.ID || seen[y.object] {
			continue
		}
		seen[y.object] = true
		from, ok := s.fleet.Snapshot().Node(y.node)
		if !ok {
			return unavailable(fmt.Sprintf("%s: its node has left the fleet", y.object))
		}
		moved, err := s.move(ctx, y, from, to)
		if err != nil {
			for _, undo := range back {
				err = errors.Join(err, undo())
			}
			return err
		}
		back = append(back, func() error {
			_, err := s.move(ctx, moved, to, from)
			return err
		})
	}
	return nil
}

// move makes an object anew on another node. It is removed first, since its engine alone knows for certain that it is
// unused; whoever looks for it meanwhile waits.
func (s *Server) move(ctx context.Context, y *young, from, to *fleet.Node) (*young, error) {
	defer s.groups.depart(y)()
	if err := s.unmake(ctx, from, y); err != nil {
		return nil, fmt.Errorf("move %s from %s to %s: %w", y.object, from.Name, to.Name, err)
	}
	moved, err := s.remake(ctx, to, y)
	if err != nil {
		err = fmt.Errorf("move %s from %s to %s: %w", y.object, from.Name, to.Name, err)
		if _, again := s.remake(ctx, from, y); again != nil {
			s.groups.used(y.object)
			err = errors.Join(err, fmt.Errorf("put it back: %w", again))
		}
		return nil, err
	}
	s.o.Log.Info("moved before its first use", "object", y.String(), "from", from.Name, "to", to.Name)
	return moved, nil
}

func (s *Server) unmake(ctx context.Context, n *fleet.Node, y *young) error {
	ctx, cancel := context.WithTimeout(ctx, moveLimit)
	defer cancel()
	path := "/volumes/" + y.name
	if y.kind == fleet.KindNetwork {
		path = "/networks/" + y.mark
	}
	if _, err := s.ask(ctx, n, http.MethodDelete, y.version, path, nil, nil); err != nil {
		return err
	}
	s.refresh(ctx, n, y.kind, "")
	return nil
}

func (s *Server) remake(ctx context.Context, n *fleet.Node, y *young) (*young, error) {
	ctx, cancel := context.WithTimeout(ctx, moveLimit)
	defer cancel()
	b, err := s.ask(ctx, n, http.MethodPost, y.version, "/"+string(y.kind)+"s/create", nil, y.body)
	if err != nil {
		return nil, err
	}
	s.refresh(ctx, n, y.kind, "")
	o, err := rawjson.ParseTrusted(b)
	if err != nil {
		return nil, fmt.Errorf("node %s: create %s: %w", n.Name, y.object, err)
	}
	moved := *y
	moved.node = n.ID
	key := "CreatedAt"
	if y.kind == fleet.KindNetwork {
		key = "Id"
	}
	if err := o.Decode(key, &moved.mark); err != nil {
		return nil, fmt.Errorf("node %s: create %s: %w", n.Name, y.object, err)
	}
	s.groups.arrived(y, &moved)
	return &moved, nil
}

// depart makes lookups of the object wait until the function that it returns is called.
func (g *groups) depart(y *young) (arrive func()) {
	ch := make(chan struct{})
	names := []string{y.String(), string(y.kind) + " " + y.mark}
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, name := range names {
		g.moving[name] = ch
	}
	g.moves++
	return func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		for _, name := range names {
			delete(g.moving, name)
		}
		g.moves++
		close(ch)
	}
}

func (g *groups) arrived(was, is *young) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.young[is.object] = is
	if is.kind != fleet.KindNetwork {
		return
	}
	for old, id := range g.moved {
		if id == was.mark {
			g.moved[old] = is.mark
		}
	}
	g.moved[was.mark] = is.mark
	delete(g.moved, is.mark)
}

// road returns what a reference means now, what to wait for if that is between two nodes, and how many moves there were.
func (g *groups) road(kind fleet.Kind, ref string) (now string, wait <-chan struct{}, moves int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if id, ok := g.moved[ref]; ok && kind == fleet.KindNetwork {
		ref = id
	}
	return ref, g.moving[string(kind)+" "+ref], g.moves
}

// current is the ID that a network's ID became when it moved, or the reference itself.
func (g *groups) current(ref string) string {
	now, _, _ := g.road(fleet.KindNetwork, ref)
	return now
}

// look calls find with the reference as it now is, and again if something moved meanwhile and nothing was found.
func look[T any](ctx context.Context, s *Server, kind fleet.Kind, ref string, find func(snap *fleet.Snapshot, ref string) (T, error)) (T, error) {
	for {
		now, wait, moves := s.groups.road(kind, ref)
		if wait == nil {
			found, err := find(s.fleet.Snapshot(), now)
			if _, _, later := s.groups.road(kind, ref); err == nil || moves == later {
				return found, err
			}
			continue
		}
		select {
		case <-wait:
		case <-ctx.Done():
			var none T
			return none, ctx.Err()
		}
	}
}

func (s *Server) findNetworks(ctx context.Context, ref string) ([]fleet.NetworkRef, error) {
	return look(ctx, s, fleet.KindNetwork, ref, func(snap *fleet.Snapshot, ref string) ([]fleet.NetworkRef, error) { return snap.Networks(ref) })
}

func (s *Server) findVolumes(ctx context.Context, ref string) ([]fleet.VolumeRef, error) {
	return look(ctx, s, fleet.KindVolume, ref, func(snap *fleet.Snapshot, ref string) ([]fleet.VolumeRef, error) { return snap.Volumes(ref) })
}
