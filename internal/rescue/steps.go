package rescue

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"berth/internal/enginecall"
	"berth/internal/fleet"
	"berth/internal/move"
)

// rescue makes a lost container anew on another node, and starts it there if it ran.
func (r *Rescuer) rescue(ctx context.Context, l *record) error {
	if why := reasons(l); why != "" {
		return &waitError{why}
	}
	inspection, err := r.o.Keeper.read(l.ID)
	if err != nil {
		return err
	}
	unreserve, err := r.o.Fleet.Reserve(l.Name, l.ID)
	if err != nil {
		return &waitError{err.Error()}
	}
	defer unreserve()
	to, release, err := r.place(ctx, l, inspection)
	if err != nil {
		return err
	}
	defer release()
	image, err := r.provide(ctx, to, l)
	if err != nil {
		return err
	}
	if err := r.release(ctx, l, inspection); err != nil {
		return err
	}
	id, err := r.create(ctx, l, inspection, to, image)
	if err != nil {
		return err
	}
	fresh := found{to, &fleet.Container{ID: id, Name: l.Name}}
	if err := errors.Join(r.o.Check(), ctx.Err()); err != nil {
		return err // it stays hidden; who may act removes it
	}
	if r.isBack(l) {
		r.o.Log.Info("a node came back before its container was started elsewhere", "container", l.Name, "node", l.Node.Name)
		return r.eng.discard(ctx, to, id)
	}
	if err := r.eng.rename(ctx, to, id, l.Name); err != nil {
		if enginecall.Refused(err) {
			return errors.Join(fmt.Errorf("take its place: %w", err), r.undo(ctx, fresh, l.ID, false))
		}
		return fmt.Errorf("take its place: %w", err) // the next round sees whether it has
	}
	r.see(ctx, to, id)
	if l.Run {
		if err := r.start(ctx, fresh, l.ID); err != nil {
			return err
		}
	}
	r.o.Keeper.taken(l.ID)
	r.o.Log.Info("container of a lost node was made anew", "container", l.Name, "from", l.Node.Name, "to", to.Name, "started", l.Run)
	r.tell(to, id, l.Name, l.Image, l.Node.Name, l.ID)
	return nil
}

func (r *Rescuer) tell(to *fleet.Node, id, name, image, from, fromID string) {
	r.o.Fleet.Tell(to, EventDone, id, map[string]string{
		"name": name, "image": image, "from": from, "to": to.Name, "from.id": fromID, "reason": "node " + from + " is lost",
	})
}

// reasons against starting a container elsewhere at all.
func reasons(l *record) string {
	var why []string
	if l.AutoRemove {
		why = append(why, "it was started with --rm, so the lost one could not be kept")
	}
	if l.Policy != fleet.RescheduleEmpty {
		for _, v := range l.Volumes {
			why = append(why, fmt.Sprintf("its data in %s is on node %s; with the policy %s it would start without", v.shown(), l.Node.Name, fleet.PolicyRestartEmpty))
		}
	}
	return strings.Join(slices.Compact(why), "; ")
}

// release frees the addresses that the lost container was given in networks across hosts: its node holds them as long as it is
// expected back. Others are chosen anew.
func (r *Rescuer) release(ctx context.Context, l *record, inspection []byte) error {
	fixed, err := move.FixedAddresses(inspection)
	if err != nil || r.o.Networks == nil || len(fixed) == 0 {
		return err
	}
	if err := errors.Join(r.o.Check(), ctx.Err()); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, undoLimit)
	defer cancel()
	if err := r.o.Networks.Release(ctx, l.Node.ID, l.Node.Addr); err != nil {
		return fmt.Errorf("free its address in network %s: %w", strings.Join(fixed, ", "), err)
	}
	return nil
}

// isBack tells whether the lost container's node answers again.
func (r *Rescuer) isBack(l *record) bool {
	n, ok := r.o.Fleet.Snapshot().Node(l.Node.ID)
	return ok && n.State == fleet.Healthy || !r.o.Keeper.isLost(l.ID)
}

// place finds a node and holds the place there.
func (r *Rescuer) place(ctx context.Context, l *record, inspection []byte) (*fleet.Node, func(), error) {
	body, err := move.Body(inspection)
	if err != nil {
		return nil, nil, err
	}
	ask, err := r.o.Knowledge.Requirements(ctx, l.Name, body, l.volumeNames())
	if err != nil {
		return nil, nil, &waitError{err.Error()}
	}
	ask.Exclude = r.refusals(l.ID)
	ask.Exclude[l.Node.ID] = "lost it"
	for _, n := range r.o.Fleet.Snapshot().Nodes() {
		for _, v := range l.Volumes {
			if v.named() && v.elsewhere(n, l.ID) {
				ask.Exclude[n.ID] = "has a volume " + v.Name + " of its own"
			}
		}
	}
	to, release, err := r.o.Fleet.Hold(ask)
	if err != nil {
		why, _, _ := strings.Cut(err.Error(), "\n")
		return nil, nil, &waitError{why}
	}
	return to, release, nil
}

// elsewhere tells whether a node has a volume of that name that was not made for this very rescue.
func (v volume) elsewhere(n *fleet.Node, lost string) bool {
	return slices.ContainsFunc(n.Volumes, func(o *fleet.Volume) bool { return o.Name == v.Name && o.Labels[fleet.LabelRescued] != lost })
}

func (r *Rescuer) provide(ctx context.Context, to *fleet.Node, l *record) (string, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, imageLimit, fmt.Errorf("not there within %s", imageLimit))
	defer cancel()
	image, err := r.o.Knowledge.Provide(ctx, to, l.Image, l.ImageID)
	if err != nil {
		return "", fmt.Errorf("bring the image: %w", err)
	}
	return image, nil
}

// create makes the new container, hidden, with all that is needed to go on from the engines alone.
func (r *Rescuer) create(ctx context.Context, l *record, inspection []byte, to *fleet.Node, image string) (string, error) {
	if err := r.makeVolumes(ctx, l, to); err != nil {
		return "", err
	}
	if err := r.o.Check(); err != nil {
		return "", err
	}
	mark := fleet.Rescue{From: []string{l.ID}, Node: l.Node.Name, Run: l.Run}.After(l.Was...)
	id, err := move.Recreate(ctx, r.o.Fleet, inspection, to, move.Recreation{
		Name: fleet.RescuingName(l.ID), Image: image, Labels: map[string]string{fleet.LabelRescued: mark.Label()}, API: r.o.APIMax,
	})
	if err != nil {
		return "", fmt.Errorf("create: %w", err)
	}
	return id, nil
}

// makeVolumes makes the named volumes, marked as made for this rescue and labelled like the lost ones. An engine would make them
// without labels, and Compose takes a volume without its own for somebody else's.
func (r *Rescuer) makeVolumes(ctx context.Context, l *record, to *fleet.Node) error {
	for _, v := range l.Volumes {
		if !v.named() {
			continue
		}
		labels := map[string]string{}
		for k, text := range v.Labels {
			if !strings.HasPrefix(k, fleet.LabelPrefix) || k == fleet.LabelGroup {
				labels[k] = text
			}
		}
		labels[fleet.LabelRescued] = l.ID
		if err := r.o.Check(); err != nil {
			return err
		}
		var made struct{ Labels map[string]string }
		want := map[string]any{"Name": v.Name, "Driver": "local", "Labels": labels}
		if err := r.eng.Exchange(ctx, callLimit, to, http.MethodPost, "/volumes/create", nil, want, &made); err != nil {
			return fmt.Errorf("make volume %s: %w", v.Name, err)
		}
		if made.Labels[fleet.LabelRescued] != l.ID {
			return fmt.Errorf("node %s has a volume %s of its own", to.Name, v.Name)
		}
	}
	if len(l.Volumes) > 0 {
		r.seeKind(ctx, to, fleet.KindVolume, "")
	}
	return nil
}

// start starts a container that has its place. Where it cannot be started the place is given up, so that another node can be
// tried, unless the lost one is back.
func (r *Rescuer) start(ctx context.Context, f found, lost string) error {
	if err := errors.Join(r.o.Check(), ctx.Err()); err != nil {
		return err
	}
	err := r.eng.start(ctx, f.node, f.c.ID)
	r.see(ctx, f.node, f.c.ID)
	switch {
	case err == nil:
		return nil
	case !enginecall.Refused(err):
		return fmt.Errorf("start: %w", err) // it may run; the next round sees
	case !r.o.Keeper.isLost(lost):
		return &startError{f.node, err}
	}
	return errors.Join(&startError{f.node, err}, r.undo(ctx, f, lost, true))
}

// startLate starts a container whose start an earlier round did not come to.
func (r *Rescuer) startLate(ctx context.Context, f found) error {
	lost := f.c.Rescued.From[0]
	if err := r.start(ctx, f, lost); err != nil {
		return err
	}
	for _, id := range f.c.Rescued.From {
		r.o.Keeper.taken(id)
	}
	r.o.Log.Info("container of a lost node was started", "container", f.c.Name, "node", f.node.Name)
	r.tell(f.node, f.c.ID, f.c.Name, f.c.Image, f.c.Rescued.Node, lost)
	return nil
}

// undo takes a container's place away, and then the container. It has never run.
func (r *Rescuer) undo(ctx context.Context, f found, lost string, hide bool) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoLimit)
	defer cancel()
	if err := r.o.Check(); err != nil {
		return err
	}
	if hide { // first of all, so that a crash leaves something that is known to be nobody's
		if err := r.eng.rename(ctx, f.node, f.c.ID, fleet.RescuingName(lost)); err != nil {
			return fmt.Errorf("undo: %w", err)
		}
		r.see(ctx, f.node, f.c.ID)
	}
	if err := r.eng.discard(ctx, f.node, f.c.ID); err != nil {
		return fmt.Errorf("undo: %w", err)
	}
	return nil
}

// drop removes a container that was made for a place and has not got it: whoever made it is gone.
func (r *Rescuer) drop(ctx context.Context, f found) error {
	if err := r.o.Check(); err != nil {
		return err
	}
	_, now, err := r.eng.inspect(ctx, f.node, f.c.ID)
	switch {
	case enginecall.IsStatus(err, http.StatusNotFound):
		r.o.Fleet.Forget(f.node.ID, f.c.ID)
		return nil
	case err != nil:
		return err
	case now.Name != f.c.Name || now.State.Status != "created":
		r.see(ctx, f.node, f.c.ID)
		return nil
	}
	return r.eng.discard(ctx, f.node, f.c.ID)
}

// setAside stops a container whose place another has taken while its node was lost, sees to it that its engine does not start it
// again, and gives it a name that says what it is. It is shown from then on.
func (r *Rescuer) setAside(ctx context.Context, f, living found) error {
	_, now, err := r.eng.inspect(ctx, f.node, f.c.ID)
	if enginecall.IsStatus(err, http.StatusNotFound) {
		r.o.Fleet.Forget(f.node.ID, f.c.ID)
		return nil
	}
	if err != nil {
		return err
	}
	if now.HostConfig.AutoRemove && now.runs() {
		return &waitError{"it is back, and to stop it is to remove it (--rm): stop it by hand"}
	}
	if err := r.o.Check(); err != nil {
		return err
	}
	if p := now.HostConfig.RestartPolicy.Name; p != "" && p != "no" {
		if err := r.eng.neverStart(ctx, f.node, f.c.ID); err != nil {
			return fmt.Errorf("set its restart policy: %w", err)
		}
	}
	if now.runs() {
		if err := r.eng.stop(ctx, f.node, now); err != nil {
			return fmt.Errorf("stop: %w", err)
		}
	}
	name := fleet.StaleName(now.Name, now.ID)
	if err := errors.Join(r.o.Check(), r.eng.rename(ctx, f.node, f.c.ID, name)); err != nil {
		return fmt.Errorf("rename: %w", err)
	}
	r.see(ctx, f.node, f.c.ID)
	r.o.Log.Info("the node of a container that was started elsewhere is back: what was lost is kept under another name",
		"container", name, "node", f.node.Name, "started on", living.node.Name)
	r.o.Fleet.Tell(f.node, EventAside, f.c.ID, map[string]string{
		"name": name, "image": now.Config.Image, "from": f.node.Name, "to": living.node.Name, "reason": now.Name + " runs on " + living.node.Name + " since this node was lost",
	})
	return nil
}

// see waits for the snapshot to show a container as it is now. If it cannot be waited for, events will show it.
func (r *Rescuer) see(ctx context.Context, n *fleet.Node, id string) {
	r.seeKind(ctx, n, fleet.KindContainer, id)
}

func (r *Rescuer) seeKind(ctx context.Context, n *fleet.Node, kind fleet.Kind, id string) {
	ctx, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	if err := r.o.Fleet.Refresh(ctx, n.ID, kind, id); err != nil {
		r.o.Log.Debug("done, but not seen yet", "node", n.Name, "kind", kind, "id", id, "error", err)
	}
}
