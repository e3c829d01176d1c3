package plugin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	"berth/internal/machine"
)

// undoTime is for taking back what a create made whose client has left.
const undoTime = 2 * time.Minute

// void is the protocol's empty argument and answer.
type void = struct{}

// service answers the protocol's calls with a driver. The exported methods are the protocol's.
type service struct {
	ctx    context.Context //nolint:containedctx // net/rpc hands none to its methods
	name   string
	drv    machine.Driver
	out    *writer
	beats  chan void
	closed chan void
	end    func() // closes closed, once

	mu       sync.Mutex
	instance machine.Instance
	values   map[string]any
}

func newService(ctx context.Context, name string, drv machine.Driver, out io.Writer) *service {
	s := &service{ctx: ctx, name: name, drv: drv, out: &writer{w: out}, beats: make(chan void), closed: make(chan void)}
	s.end = sync.OnceFunc(func() { close(s.closed) })
	s.values = defaults(drv)
	return s
}

// writer writes lines that several goroutines have.
type writer struct {
	mu sync.Mutex
	w  io.Writer
}

func (w *writer) line(text string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	// A client that reads no more is missed by watch.
	_, _ = fmt.Fprintln(w.w, strings.ReplaceAll(text, "\n", " "))
}

func defaults(drv machine.Driver) map[string]any {
	values := map[string]any{}
	if flagged, ok := drv.(machine.Flagged); ok {
		for _, f := range flagged.Flags() {
			values[f.Name] = f.Default
		}
	}
	return values
}

// guard runs a call. A panic becomes an error: it must not take a machine with it that another call is making.
func (s *service) guard(do func() error) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("Panic in the driver: %v\n%s", r, debug.Stack()) //nolint:staticcheck,revive // docker-machine's text
		}
	}()
	return do()
}

// host is the machine as it is known now.
func (s *service) host() machine.Instance {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.instance
}

func (s *service) setHost(i machine.Instance) {
	s.mu.Lock()
	defer s.mu.Unlock()
	i.Stored = s.instance.Stored
	s.instance = i
}

func (s *service) GetVersion(_ *void, version *int) error {
	*version = apiVersion
	return nil
}

// Close ends the plugin, a moment later so that the answer still goes out.
func (s *service) Close(_, _ *void) error {
	time.AfterFunc(50*time.Millisecond, s.end)
	return nil
}

func (s *service) Heartbeat(_, _ *void) error {
	select {
	case s.beats <- void{}:
	case <-s.closed:
	case <-s.ctx.Done():
	}
	return nil
}

func (s *service) DriverName(_ *void, name *string) error {
	*name = s.name
	return nil
}

func (s *service) GetMachineName(_ *void, name *string) error {
	*name = s.host().Name
	return nil
}

func (s *service) SetConfigRaw(config []byte, _ *void) error {
	return s.guard(func() error {
		i, err := machine.DecodeDriver(config)
		if err != nil {
			return err
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		s.instance = i
		return nil
	})
}

func (s *service) GetConfigRaw(_ *void, config *[]byte) error {
	return s.guard(func() error {
		raw, err := machine.EncodeDriver(s.host())
		*config = raw
		return err
	})
}

func (s *service) GetCreateFlags(_ *void, flags *[]any) error {
	return s.guard(func() error {
		*flags = []any{}
		flagged, ok := s.drv.(machine.Flagged)
		if !ok {
			return nil
		}
		for _, f := range flagged.Flags() {
			w, err := toWire(f)
			if err != nil {
				return err
			}
			*flags = append(*flags, w)
		}
		return nil
	})
}

// SetConfigFromFlags takes the values of the driver's flags. The values of others are for drivers that care about docker-machine's Swarm.
func (s *service) SetConfigFromFlags(given *any, _ *void) error {
	return s.guard(func() error {
		flags, ok := (*given).(*flagValues)
		if !ok {
			return fmt.Errorf("flags of the unknown kind %T", *given)
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		for name, preset := range defaults(s.drv) {
			v, there := flags.Values[name]
			if !there {
				continue
			}
			if reflect.TypeOf(v) != reflect.TypeOf(preset) {
				return fmt.Errorf("--%s: want a %T, got a %T", name, preset, v)
			}
			s.values[name] = v
		}
		return nil
	})
}

// spec is what the driver is asked to make, with the folder that it may keep its files in.
func (s *service) spec() (machine.Spec, error) {
	s.mu.Lock()
	i, values := s.instance, s.values
	s.mu.Unlock()
	if err := machine.CheckName(i.Name); err != nil {
		return machine.Spec{}, err
	}
	if i.Dir == "" {
		return machine.Spec{}, errors.New("the client did not say where its store is")
	}
	store, err := machine.Open(filepath.Dir(filepath.Dir(i.Dir)))
	if err != nil {
		return machine.Spec{}, err
	}
	id, err := store.ID(s.ctx)
	if err != nil {
		return machine.Spec{}, err
	}
	return machine.Spec{Name: i.Name, Dir: i.Dir, StoreID: id, Values: values, CacheDir: store.CacheDir(), Progress: s.out.line}, nil
}

func (s *service) PreCreateCheck(_, _ *void) error {
	return s.guard(func() error {
		if _, itself := s.drv.(machine.EngineRunner); itself {
			return unserved(s.name)
		}
		check, ok := s.drv.(machine.PreChecker)
		if !ok {
			return nil
		}
		spec, err := s.spec()
		if err != nil {
			return err
		}
		return check.PreCreateCheck(s.ctx, spec)
	})
}

// Create makes the host. If the client leaves meanwhile, nobody else knows of it: it is taken back.
func (s *service) Create(_, _ *void) error {
	return s.guard(func() error {
		if _, itself := s.drv.(machine.EngineRunner); itself {
			return unserved(s.name)
		}
		spec, err := s.spec()
		if err != nil {
			return err
		}
		if err := os.MkdirAll(spec.Dir, 0o700); err != nil {
			return err
		}
		made, err := s.drv.Create(s.ctx, spec)
		made.Name, made.Dir = spec.Name, spec.Dir
		s.setHost(made)
		if s.ctx.Err() == nil {
			return err
		}
		ctx, cancel := context.WithTimeout(context.WithoutCancel(s.ctx), undoTime)
		defer cancel()
		return errors.Join(err, s.drv.Remove(ctx, made))
	})
}

func (s *service) Remove(_, _ *void) error {
	return s.guard(func() error { return s.drv.Remove(s.ctx, s.host()) })
}
