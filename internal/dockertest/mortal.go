package dockertest

import (
	"context"
	"errors"
	"io"
	"net/http"
	"sync"
)

// ErrDead is what a caller gets that was killed.
var ErrDead = errors.New("the manager was killed")

// Mortal makes calls until it is killed by one of them: for a test of what a manager leaves that dies after any of its steps.
type Mortal struct {
	// Call makes one.
	Call func(ctx context.Context, nodeID string, r *http.Request) (*http.Response, error)

	once   sync.Once
	mu     sync.Mutex
	left   int // changes until death; -1 for never
	effect bool
	dead   bool
	died   chan struct{}
}

func (m *Mortal) begin() {
	m.once.Do(func() { m.left, m.died = -1, make(chan struct{}) })
}

// DieAfter has it die by the call after so many more that change something, or never for -1. With effect that last one still is
// carried out, but nobody learns of it.
func (m *Mortal) DieAfter(changes int, effect bool) {
	m.begin()
	m.mu.Lock()
	defer m.mu.Unlock()
	m.left, m.effect = changes, effect
}

// Died is closed when it is dead.
func (m *Mortal) Died() <-chan struct{} {
	m.begin()
	return m.died
}

// Alive says whether it is not.
func (m *Mortal) Alive() bool {
	select {
	case <-m.Died():
		return false
	default:
		return true
	}
}

// spend tells whether a call may be made and whether its answer may be seen.
func (m *Mortal) spend(method string) (make, see bool) {
	m.begin()
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.dead {
		return false, false
	}
	if method == http.MethodGet || m.left < 0 {
		return true, true
	}
	if m.left == 0 {
		m.dead = true
		close(m.died)
		return m.effect, false
	}
	m.left--
	return true, true
}

// Do makes a call, or dies by it.
func (m *Mortal) Do(ctx context.Context, nodeID string, r *http.Request) (*http.Response, error) {
	do, see := m.spend(r.Method)
	if !do {
		return nil, ErrDead
	}
	res, err := m.Call(ctx, nodeID, r)
	if err == nil && !see {
		_, _ = io.Copy(io.Discard, res.Body) // nobody looks at the answer
		_ = res.Body.Close()
		return nil, ErrDead
	}
	return res, err
}
