package move

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"berth/internal/enginecall"
	"berth/internal/fleet"
)

// journey is one move on its way.
type journey struct {
	m        *Mover
	from, to *fleet.Node
	c        *container // the old one
	volumes  []volume   // that go along
	release  func()     // of the place that is held
	start    bool       // the new one is to be started
	stopping bool       // the old one was told to stop, and may do so at any time
	image    string     // as the target knows it
	id       string     // of the new one
}

// run does the steps. Whatever it leaves when it is interrupted, resume understands.
func (j *journey) run(ctx context.Context) error {
	for _, step := range []struct {
		what string
		do   func(context.Context) error
	}{
		{"carry the image", j.carry},
		{"create", j.create},
		{"stop", j.stop},
		{"copy volumes", j.copyVolumes},
	} {
		j.m.progress(j, step.what)
		if err := step.do(ctx); err != nil {
			return errors.Join(fmt.Errorf("%s: %w", step.what, err), j.back(ctx))
		}
	}
	j.m.progress(j, "take its place")
	if err := j.takePlace(ctx); err != nil {
		return errors.Join(fmt.Errorf("take its place: %w", err), j.back(ctx))
	}
	j.m.progress(j, "start")
	if err := j.startNew(ctx); err != nil {
		err = fmt.Errorf("start: %w", err)
		if !enginecall.Refused(err) {
			return err // it may run: nothing may be undone before that is known
		}
		return errors.Join(err, j.giveBack(ctx))
	}
	j.m.progress(j, "remove the old one")
	if err := j.m.leave(ctx, j.from, j.c.ID, j.volumes); err != nil {
		j.m.o.Log.Warn("a container that has moved could not be removed where it was; it will be", "container", j.c.Name, "node", j.from.Name, "error", err)
	}
	return nil
}

func (j *journey) carry(ctx context.Context) (err error) {
	j.image, err = j.m.o.Knowledge.Carry(ctx, j.from, j.to, j.c.Config.Image, j.c.Image)
	return err
}

// create makes the new container, hidden, with all that is needed to go on from the engines alone.
func (j *journey) create(ctx context.Context) error {
	for _, v := range j.volumes {
		if err := j.m.makeVolume(ctx, j.from, j.to, v); err != nil {
			return err
		}
	}
	mark := fleet.Move{From: j.c.ID, Node: j.from.ID, Run: j.start, By: j.m.o.Owner}
	id, err := j.m.eng.recreate(ctx, j.c, j.to, Recreation{
		Name: fleet.MovingName(j.c.ID, false), Image: j.image, Labels: map[string]string{fleet.LabelMoved: mark.Label()},
	})
	if err != nil {
		return err
	}
	j.id = id
	return nil
}

// stop ends the old container, and sees to it that its engine does not start it again.
func (j *journey) stop(ctx context.Context) error {
	now, err := j.m.eng.inspect(ctx, j.from, j.c.ID)
	if err != nil {
		return err
	}
	if j.start = now.runs(); !j.start {
		return nil // somebody stopped it meanwhile, or it has ended
	}
	if err := j.m.eng.rename(ctx, j.to, j.id, fleet.MovingName(j.c.ID, true)); err != nil {
		return err
	}
	j.stopping = true
	if now.HostConfig.RestartPolicy.always() {
		if err := j.m.eng.setPolicy(ctx, j.from, j.c.ID, restartPolicy{Name: "no"}); err != nil {
			return err
		}
	}
	if err := j.m.eng.stopIt(ctx, j.from, now); err != nil {
		return err
	}
	j.stopping = false // it has stopped
	return nil
}

// copyVolumes fills the new container's volumes.
func (j *journey) copyVolumes(ctx context.Context) error {
	for _, v := range j.volumes {
		if err := j.m.copyVolume(ctx, j.from, j.c.ID, j.to, j.id, v); err != nil {
			return fmt.Errorf("volume %s: %w", v.shown(), err)
		}
	}
	return nil
}

// takePlace gives the new container the old one's name. From then on it is the one that is shown.
func (j *journey) takePlace(ctx context.Context) error {
	now, err := j.m.eng.inspect(ctx, j.from, j.c.ID)
	if err != nil {
		return err
	}
	if now.runs() {
		return errors.New("it was started again meanwhile")
	}
	if err := j.m.eng.rename(ctx, j.to, j.id, now.Name); err != nil {
		return err
	}
	j.m.look(ctx, j.to, fleet.KindContainer, j.id)
	return nil
}

func (j *journey) startNew(ctx context.Context) error {
	if !j.start {
		return nil
	}
	now, err := j.m.eng.inspect(ctx, j.from, j.c.ID)
	switch {
	case enginecall.IsStatus(err, http.StatusNotFound): // it can do no harm then
	case err != nil:
		return err
	case now.runs():
		return &enginecall.Error{Node: j.from.Name, Status: http.StatusConflict, Message: "the container was started again at the last moment"}
	}
	err = j.m.eng.startIt(ctx, j.to, j.id)
	j.m.look(ctx, j.to, fleet.KindContainer, j.id)
	return err
}

// giveBack ends the new container's turn, and then its life.
func (j *journey) giveBack(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoLimit)
	defer cancel()
	if err := j.m.eng.rename(ctx, j.to, j.id, fleet.MovingName(j.c.ID, true)); err != nil {
		return fmt.Errorf("undo: %w", err)
	}
	j.m.look(ctx, j.to, fleet.KindContainer, j.id)
	return j.back(ctx)
}

// back undoes what was done before the new container had its turn. It never ran, so the old one may run at once.
func (j *journey) back(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoLimit+j.c.stopLimit())
	defer cancel()
	if err := j.m.restore(ctx, j.from, j.c.ID, former{j.c.HostConfig.RestartPolicy, j.start, j.stopping}); err != nil {
		return fmt.Errorf("undo: %w", err) // the new one stays: it alone tells that the old one is to run
	}
	if j.id != "" {
		if err := j.m.eng.removeContainer(ctx, j.to, j.id, true); err != nil {
			return fmt.Errorf("undo: %w", err)
		}
		j.m.o.Fleet.Forget(j.to.ID, j.id)
	}
	if err := j.m.dropCopies(ctx, j.from, j.to, j.volumes); err != nil {
		return fmt.Errorf("undo: %w", err)
	}
	return nil
}

// former is what an old container was before it was to move.
type former struct {
	policy   restartPolicy
	ran      bool
	stopping bool // it may have been told to stop
}

// restore has the old container be what it was.
func (m *Mover) restore(ctx context.Context, n *fleet.Node, id string, was former) error {
	now, err := m.eng.inspect(ctx, n, id)
	if enginecall.IsStatus(err, http.StatusNotFound) {
		return nil // somebody removed it
	}
	if err != nil {
		return err
	}
	if was.policy.always() && now.HostConfig.RestartPolicy != was.policy {
		if err := m.eng.setPolicy(ctx, n, id, was.policy); err != nil {
			return err
		}
	}
	if was.ran && was.stopping && now.runs() {
		// An engine goes on to stop it although nobody waits any more, and would do so after it was seen running here.
		if err := m.eng.stopIt(ctx, n, now); err != nil {
			return err
		}
	}
	if was.ran && (was.stopping || !now.runs()) {
		if err := m.eng.startIt(ctx, n, id); err != nil {
			return err
		}
	}
	m.look(ctx, n, fleet.KindContainer, id)
	return nil
}

// leave removes what has moved: the old container, and what its volumes were.
func (m *Mover) leave(ctx context.Context, from *fleet.Node, id string, volumes []volume) error {
	if err := m.eng.removeContainer(ctx, from, id, false); err != nil {
		return err
	}
	m.o.Fleet.Forget(from.ID, id)
	return m.releaseVolumes(ctx, from, volumes)
}

// look waits for the snapshot to show an object as it is now. If it cannot be waited for, events will show it.
func (m *Mover) look(ctx context.Context, n *fleet.Node, kind fleet.Kind, id string) {
	ctx, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	if err := m.o.Fleet.Refresh(ctx, n.ID, kind, id); err != nil {
		m.o.Log.Debug("done, but not seen yet", "node", n.Name, "kind", kind, "id", id, "error", err)
	}
}
