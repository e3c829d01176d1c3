package plugin

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"berth/internal/machine"
)

// PreCreateCheck implements machine.PreChecker.
func (d *Driver) PreCreateCheck(ctx context.Context, spec machine.Spec) error {
	s, err := d.prepare(ctx, spec, spec.Progress)
	if err != nil {
		return err
	}
	defer s.close(ctx)
	return s.call(ctx, "PreCreateCheck")
}

// prepare starts the plugin on a machine that is yet to be made.
func (d *Driver) prepare(ctx context.Context, spec machine.Spec, info func(string)) (*session, error) {
	config, err := newConfig(spec)
	if err != nil {
		return nil, err
	}
	s, err := d.open(ctx, spec.Name, config, info)
	if err != nil {
		return nil, err
	}
	var values any = &flagValues{plain(spec.Values)}
	if err := s.ask(ctx, "SetConfigFromFlags", &values, &struct{}{}); err != nil {
		s.close(ctx)
		return nil, err
	}
	return s, nil
}

// plain leaves what the protocol has types for.
func plain(values map[string]any) map[string]any {
	out := map[string]any{}
	for name, v := range values {
		switch v := v.(type) {
		case string, int, bool:
			out[name] = v
		case []string:
			out[name] = v
		}
	}
	return out
}

// Create implements machine.Driver.
func (d *Driver) Create(ctx context.Context, spec machine.Spec) (machine.Instance, error) {
	i := machine.Instance{Name: spec.Name, Dir: spec.Dir}
	spec.Progress = inTurn(spec.Progress)
	s, err := d.prepare(ctx, spec, spec.Progress)
	if err != nil {
		return i, err
	}
	defer s.close(ctx)
	// Plugins keep in memory what the check found out (amazonec2 its network, hetzner its image). It may say things a second time.
	if err := s.call(ctx, "PreCreateCheck"); err != nil {
		return i, err
	}
	// With this alone many plugins can remove a machine, since they find it by its name.
	if i, err = s.snapshot(ctx, i); err != nil {
		return i, err
	}
	if err := spec.Keep(i); err != nil {
		return i, err
	}
	return d.create(ctx, s, spec, i)
}

// inTurn is for lines that both the plugin and we have: whoever takes them need not expect two at once.
func inTurn(line func(string)) func(string) {
	var mu sync.Mutex
	return func(text string) {
		mu.Lock()
		defer mu.Unlock()
		line(text)
	}
}

func (d *Driver) create(ctx context.Context, s *session, spec machine.Spec, i machine.Instance) (machine.Instance, error) {
	err := s.create(ctx, spec.Progress)
	if !s.alive() {
		return i, err
	}
	made, lost := s.snapshot(ctx, i)
	if ctx.Err() != nil {
		s.abandon()
	}
	if err := errors.Join(err, lost); err != nil {
		return made, err
	}
	if err := spec.Keep(made); err != nil {
		return made, err
	}
	spec.Progress("Waiting for machine to be running, this may take a few minutes...")
	if err := s.reach(ctx, machine.StateRunning); err != nil {
		return made, err
	}
	return s.settle(ctx, made)
}

// create lets the plugin make the host. If ctx ends it may go on for a moment, so that a request to the provider is not cut off
// between its being sent and its answer, with the new host's ID, being noted; the error is ctx's all the same.
func (s *session) create(ctx context.Context, progress func(string)) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	call := s.send("Create", struct{}{}, &struct{}{})
	err := s.await(ctx, "Create", call)
	var unfinished *cutError
	if !errors.As(err, &unfinished) {
		return err
	}
	progress(fmt.Sprintf("Interrupted: the driver is given %s to note what it has made...", s.pace.calm))
	calm, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.pace.calm)
	defer cancel()
	late := s.await(calm, "Create", call)
	if late == nil || errors.As(late, &unfinished) {
		return err
	}
	return errors.Join(err, late)
}

// settle takes over all that there is to know of a running machine.
func (s *session) settle(ctx context.Context, i machine.Instance) (machine.Instance, error) {
	i, err := s.snapshot(ctx, i)
	if err != nil {
		return i, err
	}
	if i, err = s.locate(ctx, i); err != nil {
		return i, err
	}
	return s.locateSSH(ctx, i), nil
}
