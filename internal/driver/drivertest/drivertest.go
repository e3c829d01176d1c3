// Package drivertest is what every driver must pass: the promises that machine.Driver and its optional abilities make, tried
// on real hosts of the driver's provider.
//
// A driver's own test calls Run with a function that prepares one new machine each time it is called. What the driver
// cannot do (Power, EngineRunner) is not asked of it, and one that cannot tell a host's state (StateNone) is not held to it.
package drivertest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"strconv"
	"testing"
	"time"

	"berth/internal/machine"
)

// patience is for one call to a driver. It is generous: a slow provider is no failure.
const patience = 10 * time.Minute

// Subject is one machine that does not exist yet, and the driver that will make it.
type Subject struct {
	Driver machine.Driver
	// Spec has a name of its own and a Dir that exists and is empty.
	Spec machine.Spec
	// Engine says what the machine's engine is started with, once its address is known. It is asked only where the driver is an
	// EngineRunner.
	Engine func(machine.Instance) machine.EngineConfig
}

// Run tries a driver. Prepare is called once for every machine needed, by the goroutine of the test that it is given; what
// it prepares must not clash with what it prepared before.
func Run(t *testing.T, prepare func(t *testing.T) Subject) {
	t.Helper()
	for name, test := range map[string]func(*testing.T, func(*testing.T) Subject){
		"a machine lives from create to remove":          testLife,
		"what was never made is not found and removable": testNeverMade,
		"a lost instance can be removed":                 testLostInstance,
		"an ended context makes nothing that stays":      testEndedContext,
		"a create that breaks off anywhere is removable": testBrokenCreate,
		"two machines live side by side":                 testTwo,
		"power goes off and on":                          testPower,
		"an engine can be run again":                     testRunAgain,
		"programs get in":                                testEnter,
	} {
		t.Run(name, func(t *testing.T) { test(t, prepare) })
	}
}

func testLife(t *testing.T, prepare func(*testing.T) Subject) {
	h := newHost(t, prepare(t))
	h.create()
	if h.instance.Name != h.Spec.Name {
		t.Errorf("the instance is called %q, want %q", h.instance.Name, h.Spec.Name)
	}
	if h.instance.IPAddress == "" {
		t.Error("the instance has no address")
	}
	h.wantState(machine.StateRunning)
	h.remove()
	h.wantGone()
	h.remove()
}

func testNeverMade(t *testing.T, prepare func(*testing.T) Subject) {
	h := newHost(t, prepare(t))
	h.instance = machine.Instance{Name: h.Spec.Name, Dir: h.Spec.Dir}
	h.wantState(machine.StateNotFound)
	h.remove()
}

// testLostInstance: the program may die in the middle of Create, or after it and before the instance is stored. What the driver had kept
// by then, if anything, is stored.
func testLostInstance(t *testing.T, prepare func(*testing.T) Subject) {
	h := newHost(t, prepare(t))
	kept := h.instance
	var first *machine.Instance
	h.Spec.Save = func(i machine.Instance) error {
		if first == nil {
			first = &i
		}
		return nil
	}
	h.create()
	made := h.instance
	if first != nil {
		kept = *first
		kept.Name, kept.Dir = h.Spec.Name, h.Spec.Dir
	}
	h.instance = kept
	h.remove()
	h.instance = made
	h.wantGone()
}

func testEndedContext(t *testing.T, prepare func(*testing.T) Subject) {
	h := newHost(t, prepare(t))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var err error
	h.instance, err = h.Driver.Create(ctx, h.Spec)
	if !errors.Is(err, context.Canceled) {
		t.Errorf("create under an ended context = %v, want context.Canceled", err)
	}
	h.remove()
	h.wantGone()
}

// testBrokenCreate breaks a create off at its first line of progress, then at its second, until one comes to its end.
func testBrokenCreate(t *testing.T, prepare func(*testing.T) Subject) {
	for n := 1; ; n++ {
		h := newHost(t, prepare(t))
		ctx, cancel := context.WithCancel(t.Context())
		said, report := 0, h.Spec.Progress
		h.Spec.Progress = func(line string) {
			report(line)
			if said++; said == n {
				cancel()
			}
		}
		var err error
		h.instance, err = h.Driver.Create(ctx, h.Spec)
		cancel()
		h.remove()
		h.wantGone()
		if said < n {
			if err != nil {
				t.Errorf("create that nothing broke off: %v", err)
			}
			return
		}
	}
}

func testTwo(t *testing.T, prepare func(*testing.T) Subject) {
	a, b := newHost(t, prepare(t)), newHost(t, prepare(t))
	done := make(chan error)
	for _, h := range []*host{a, b} {
		go func() { done <- h.tryCreate() }()
	}
	if err := errors.Join(<-done, <-done); err != nil {
		t.Fatal(err)
	}
	if at := a.instance.IPAddress; at == b.instance.IPAddress && a.port() == b.port() {
		t.Errorf("both are at %s port %s", at, a.port())
	}
	a.remove()
	a.wantGone()
	b.wantState(machine.StateRunning)
	b.remove()
}

func testPower(t *testing.T, prepare func(*testing.T) Subject) {
	h := newHost(t, prepare(t))
	power, ok := h.Driver.(machine.Power)
	if !ok {
		t.Skip("the driver has no power switch")
	}
	h.create()
	off := func(name string, do func(context.Context, machine.Instance) error) {
		t.Helper()
		if err := do(h.context(), h.stored()); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		h.wantState(machine.StateStopped)
	}
	on := func(name string, do func(context.Context, machine.Instance) (machine.Instance, error)) {
		t.Helper()
		i, err := do(h.context(), h.stored())
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		h.instance = i
		h.wantState(machine.StateRunning)
	}
	off("stop", power.Stop)
	on("start after stop", power.Start)
	on("start again", power.Start)
	on("restart", power.Restart)
	off("kill", power.Kill)
	on("restart after kill", power.Restart)
	off("kill again", power.Kill)
	h.remove()
	h.wantGone()
}

func testRunAgain(t *testing.T, prepare func(*testing.T) Subject) {
	h := newHost(t, prepare(t))
	runner, ok := h.Driver.(machine.EngineRunner)
	if !ok {
		t.Skip("the driver's engine comes by provisioning")
	}
	h.create()
	config := h.Engine(h.instance)
	config.ExtraLabels = append(config.ExtraLabels, "drivertest=again")
	if err := runner.RunEngine(h.context(), h.stored(), config); err != nil {
		t.Fatalf("run the engine again: %v", err)
	}
	h.wantState(machine.StateRunning)
}

// host is a subject and what has become of it.
type host struct {
	Subject
	t        *testing.T
	instance machine.Instance
}

// newHost sees to it that the host is gone after the test, also after one that failed.
func newHost(t *testing.T, s Subject) *host {
	t.Helper()
	report := s.Spec.Progress
	s.Spec.Progress = func(line string) {
		if report != nil {
			report(line)
		}
	}
	h := &host{Subject: s, t: t, instance: machine.Instance{Name: s.Spec.Name, Dir: s.Spec.Dir}}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := s.Driver.Remove(ctx, h.instance); err != nil {
			t.Errorf("remove %s at the end: %v", s.Spec.Name, err)
		}
	})
	return h
}

func (h *host) context() context.Context {
	ctx, cancel := context.WithTimeout(h.t.Context(), patience)
	h.t.Cleanup(cancel)
	return ctx
}

func (h *host) create() {
	h.t.Helper()
	if err := h.tryCreate(); err != nil {
		h.t.Fatal(err)
	}
}

// tryCreate makes the host and runs its engine, as machine does. It may be called from any goroutine.
func (h *host) tryCreate() error {
	if check, ok := h.Driver.(machine.PreChecker); ok {
		if err := check.PreCreateCheck(h.context(), h.Spec); err != nil {
			return fmt.Errorf("check before create: %w", err)
		}
	}
	i, err := h.Driver.Create(h.context(), h.Spec)
	h.instance = i
	if err != nil {
		return fmt.Errorf("create: %w", err)
	}
	runner, ok := h.Driver.(machine.EngineRunner)
	if !ok {
		return nil
	}
	if err := runner.RunEngine(h.context(), i, h.Engine(i)); err != nil {
		return fmt.Errorf("run engine: %w", err)
	}
	return h.dial()
}

// stored is the instance as it comes back from config.json, where Raw's bytes may be laid out anew.
func (h *host) stored() machine.Instance {
	h.t.Helper()
	i := h.instance
	if i.Raw == nil {
		return i
	}
	fields := map[string]json.RawMessage{}
	if err := json.Unmarshal(i.Raw, &fields); err != nil {
		h.t.Fatalf("raw is no JSON object: %v: %s", err, i.Raw)
	}
	raw, err := json.MarshalIndent(fields, "", "    ")
	if err != nil {
		h.t.Fatal(err)
	}
	i.Raw = raw
	return i
}

func (h *host) remove() {
	h.t.Helper()
	if err := h.Driver.Remove(h.context(), h.stored()); err != nil {
		h.t.Fatalf("remove: %v", err)
	}
}

func (h *host) wantState(want machine.State) {
	h.t.Helper()
	got, err := h.Driver.State(h.context(), h.stored())
	if err != nil {
		h.t.Fatalf("state: %v", err)
	}
	if got != want && got != machine.StateNone {
		h.t.Errorf("state = %s, want %s", got, want)
	}
}

// wantGone: after a remove there is no host, unless it was only borrowed and is as it was.
func (h *host) wantGone() {
	h.t.Helper()
	if _, borrowed := h.Driver.(machine.Borrower); borrowed && h.instance.IPAddress != "" {
		h.wantState(machine.StateRunning)
		return
	}
	h.wantState(machine.StateNotFound)
}

func (h *host) port() string {
	if h.instance.EnginePort == 0 {
		return "2376"
	}
	return strconv.Itoa(h.instance.EnginePort)
}

// dial: the engine listens where the instance says.
func (h *host) dial() error {
	var d net.Dialer
	c, err := d.DialContext(h.context(), "tcp", net.JoinHostPort(h.instance.IPAddress, h.port()))
	if err != nil {
		return fmt.Errorf("reach the engine: %w", err)
	}
	return c.Close()
}
