// Package none is the driver for hosts that are there already: berth keeps the address of their engine and does nothing else
// to them. Such a host cannot be switched on or off, and removing it only forgets it.
package none

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"

	"berth/internal/machine"
)

type driver struct{}

// New is the driver.
func New() machine.Driver { return driver{} }

// fields are this driver's part of config.json.
type fields struct{ URL string }

func (driver) Flags() []machine.Flag {
	return []machine.Flag{{
		Name:    "url",
		Usage:   "URL of the host's engine: tcp://HOST:PORT or unix:///PATH",
		Default: "",
	}}
}

func (driver) PreCreateCheck(_ context.Context, spec machine.Spec) error {
	_, err := address(spec)
	return err
}

func (driver) Create(ctx context.Context, spec machine.Spec) (machine.Instance, error) {
	i := machine.Instance{Name: spec.Name, Dir: spec.Dir}
	u, err := address(spec)
	if err := errors.Join(err, ctx.Err()); err != nil {
		return i, err
	}
	i.IPAddress = u.Hostname()
	i.Raw, err = json.Marshal(fields{URL: spec.String("url")})
	return i, err
}

func address(spec machine.Spec) (*url.URL, error) {
	given := spec.String("url")
	if given == "" {
		return nil, errors.New("--url option is required when no driver is selected")
	}
	u, err := url.Parse(given)
	if err != nil {
		return nil, fmt.Errorf("--url: %w", err)
	}
	return u, nil
}

// State is not known: only the engine itself could tell.
func (driver) State(context.Context, machine.Instance) (machine.State, error) {
	return machine.StateNone, nil
}

func (driver) Remove(context.Context, machine.Instance) error { return nil }
