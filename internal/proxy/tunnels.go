package proxy

import (
	"context"
	"fmt"
	"sync"
)

// Tunnels is the set of open streams. http.Server's Shutdown forgets hijacked connections; Drain is for those. The zero
// value is ready, and all methods may be called from any goroutine.
type Tunnels struct {
	mu       sync.Mutex
	open     map[*tunnel]struct{}
	draining bool
	empty    chan struct{} // closed when draining and none is left
}

// Len returns how many streams are open.
func (s *Tunnels) Len() int {
	if s == nil {
		return 0
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.open)
}

// Drain refuses new streams and waits for the open ones. When ctx ends it cuts those that are left, waits until they are
// gone, and says how many there were. Calling it again is harmless.
func (s *Tunnels) Drain(ctx context.Context) error {
	if s == nil {
		return nil
	}
	empty := s.refuse()
	select {
	case <-empty:
		return nil
	case <-ctx.Done():
	}
	cut := s.abort()
	<-empty
	if cut == 0 {
		return nil
	}
	return fmt.Errorf("drain: %d streams cut: %w", cut, ctx.Err())
}

func (s *Tunnels) refuse() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.draining = true
	if s.empty == nil {
		s.empty = make(chan struct{})
		if len(s.open) == 0 {
			close(s.empty)
		}
	}
	return s.empty
}

func (s *Tunnels) abort() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	for t := range s.open {
		t.abort()
	}
	return len(s.open)
}

func (s *Tunnels) closed() bool {
	if s == nil {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.draining
}

func (s *Tunnels) add(t *tunnel) bool {
	if s == nil {
		return true
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.draining {
		return false
	}
	if s.open == nil {
		s.open = map[*tunnel]struct{}{}
	}
	s.open[t] = struct{}{}
	return true
}

func (s *Tunnels) remove(t *tunnel) {
	if s == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.open, t)
	if s.draining && len(s.open) == 0 {
		close(s.empty)
	}
}
