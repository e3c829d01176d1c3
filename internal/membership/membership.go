// Package membership is the token service: it keeps which engines belong to which fleet, and forgets those that stop saying so.
//
// It stands in for the hosted service that classic Swarm's token:// spoke to and that is gone, with the same three calls and one
// of our own:
//
//	POST   /clusters              a new token
//	GET    /clusters/TOKEN        its members as a JSON list; with If-None-Match and ?wait=SECONDS once it differs
//	POST   /clusters/TOKEN?ttl=S  the body, an address, is a member for S seconds more
//	DELETE /clusters/TOKEN/ADDR   it is none any more
//
// Whoever knows a token may read and change its members, so tokens are random and long, and are in no log. What the addresses
// lead to is not known here.
package membership

import (
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"go.etcd.io/bbolt"
	bbolterrors "go.etcd.io/bbolt/errors"
)

const (
	maxMembers = 10_000 // of one token
	maxTokens  = 10_000
	maxTTL     = 30 * 24 * time.Hour
)

// ErrUnknown says that nobody was given this token.
var ErrUnknown = errors.New("no such token")

// ErrFull says that a token has as many members as it may have, or that there are as many tokens.
var ErrFull = errors.New("the discovery service is full")

// Service keeps members in a file. Its methods may be called at once.
type Service struct {
	db  *bbolt.DB
	now func() time.Time

	mu      sync.Mutex
	changed map[string]chan struct{} // by token; closed at its next change
}

// Open opens the file, or makes it (mode 0600). A second service on one file is refused.
func Open(path string) (*Service, error) {
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{Timeout: time.Second})
	switch {
	case errors.Is(err, bbolterrors.ErrTimeout):
		return nil, fmt.Errorf("discovery service: another one uses %s; stop it or choose another file", path)
	case err != nil:
		return nil, fmt.Errorf("discovery service: open %s: %w", path, err)
	}
	return &Service{db: db, now: time.Now, changed: map[string]chan struct{}{}}, nil
}

// Close closes the file.
func (s *Service) Close() error { return s.db.Close() }

// Create makes a token.
func (s *Service) Create() (string, error) {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails: crypto/rand.Read ends the program instead
	token := hex.EncodeToString(b[:])
	return token, s.db.Update(func(tx *bbolt.Tx) error {
		tokens := 0
		err := tx.ForEach(func([]byte, *bbolt.Bucket) error { tokens++; return nil })
		if err == nil && tokens >= maxTokens {
			err = ErrFull
		}
		if err == nil {
			_, err = tx.CreateBucket([]byte(token))
		}
		return err
	})
}

// Put makes an address a member for ttl more.
func (s *Service) Put(token, addr string, ttl time.Duration) error {
	var until [8]byte
	binary.BigEndian.PutUint64(until[:], uint64(s.now().Add(min(ttl, maxTTL)).UnixNano()))
	isNew := false
	err := s.db.Update(func(tx *bbolt.Tx) error {
		b := tx.Bucket([]byte(token))
		if b == nil {
			return ErrUnknown
		}
		isNew = !s.alive(b.Get([]byte(addr)))
		if isNew && b.Stats().KeyN >= maxMembers {
			return ErrFull
		}
		return b.Put([]byte(addr), until[:])
	})
	if err == nil && isNew {
		s.announce(token)
	}
	return err
}

// Remove ends a membership. One that has ended is no error.
func (s *Service) Remove(token, addr string) error {
	err := s.db.Update(func(tx *bbolt.Tx) error {
		b := tx.Bucket([]byte(token))
		if b == nil {
			return ErrUnknown
		}
		return b.Delete([]byte(addr))
	})
	if err == nil {
		s.announce(token)
	}
	return err
}

// Members lists a token's members, sorted, and forgets those whose time is over. The channel is closed at the next change that
// somebody makes; that a member's time ends is not announced.
func (s *Service) Members(token string) (addrs []string, changed <-chan struct{}, err error) {
	changed = s.watch(token) // before the look, so that no change falls between
	var over [][]byte
	err = s.db.View(func(tx *bbolt.Tx) error {
		b := tx.Bucket([]byte(token))
		if b == nil {
			return ErrUnknown
		}
		return b.ForEach(func(addr, until []byte) error {
			if s.alive(until) {
				addrs = append(addrs, string(addr))
			} else {
				over = append(over, slices.Clone(addr))
			}
			return nil
		})
	})
	if err == nil && len(over) > 0 {
		err = s.forget(token, over)
	}
	return addrs, changed, err
}

func (s *Service) forget(token string, over [][]byte) error {
	return s.db.Update(func(tx *bbolt.Tx) error {
		b := tx.Bucket([]byte(token))
		for _, addr := range over {
			if b == nil || s.alive(b.Get(addr)) {
				continue // it came back meanwhile
			}
			if err := b.Delete(addr); err != nil {
				return err
			}
		}
		return nil
	})
}

func (s *Service) alive(until []byte) bool {
	return len(until) == 8 && int64(binary.BigEndian.Uint64(until)) > s.now().UnixNano()
}

func (s *Service) watch(token string) <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	c, ok := s.changed[token]
	if !ok {
		c = make(chan struct{})
		s.changed[token] = c
	}
	return c
}

func (s *Service) announce(token string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c, ok := s.changed[token]; ok {
		close(c)
		delete(s.changed, token)
	}
}
