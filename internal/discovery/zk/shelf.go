package zk

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"

	"github.com/go-zookeeper/zk"

	"berth/internal/discovery"
	"berth/internal/intents"
)

// Shelf keeps what the operator wants of nodes in one znode, which outlives sessions. Its version is the znode's, which begins anew in
// one that was deleted and made again; but a Keeper loads right before it saves.
type Shelf struct {
	*store

	mu      sync.Mutex // held by one call at a time that needs a session
	session *session
}

// maxData is what a server takes (its jute.maxbuffer), less the head of a request. One that gets more hangs up.
const maxData = 1<<20 - 1024

// NewShelf makes the Shelf of zk://HOST[:2181],HOST…[/PREFIX].
func NewShelf(rawURL string, o discovery.Options) (intents.Shelf, error) {
	s, err := open(rawURL, o)
	if err != nil {
		return nil, err
	}
	return &Shelf{store: s}, nil
}

// connect sees that there is a session whose server is heard.
func (s *Shelf) connect(ctx context.Context) (*session, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.session != nil && !s.session.alive() {
		s.session.close()
		s.session = nil
	}
	if s.session == nil {
		n, err := s.dial(ctx, watchTimeout)
		if err != nil {
			return nil, err
		}
		s.session = n
	}
	return s.session, nil
}

func (s *Shelf) node() string { return "/" + s.place.Intents }

// Load reads the znode, from a server that has heard of all that was written before.
func (s *Shelf) Load(ctx context.Context) ([]byte, string, error) {
	n, err := s.connect(ctx)
	if err != nil {
		return nil, "", err
	}
	type answer struct {
		data    []byte
		version string
	}
	got := make(chan answer, 1)
	err = n.do(ctx, func() error {
		if _, err := n.conn.Sync(s.node()); err != nil {
			return err
		}
		data, stat, err := n.conn.Get(s.node())
		switch {
		case errors.Is(err, zk.ErrNoNode):
			got <- answer{}
		case err != nil:
			return err
		default:
			got <- answer{data, strconv.Itoa(int(stat.Version))}
		}
		return nil
	})
	if err != nil {
		return nil, "", s.wrap(err)
	}
	a := <-got
	return a.data, a.version, nil
}

// Save sets or creates the znode.
func (s *Shelf) Save(ctx context.Context, data []byte, version string) error {
	if len(data) > maxData {
		return fmt.Errorf("zookeeper at %s takes no more than %d bytes, and these are %d", s.name(), maxData, len(data))
	}
	at, err := int64(0), error(nil)
	if version != "" {
		if at, err = strconv.ParseInt(version, 10, 32); err != nil {
			return fmt.Errorf("zookeeper: version %q: %w", version, err)
		}
	}
	n, err := s.connect(ctx)
	if err != nil {
		return err
	}
	err = n.do(ctx, func() error {
		if version == "" {
			return s.make(n.conn, s.node(), string(data), 0)
		}
		_, err := n.conn.Set(s.node(), data, int32(at))
		return err
	})
	if errors.Is(err, zk.ErrNodeExists) || errors.Is(err, zk.ErrNoNode) || errors.Is(err, zk.ErrBadVersion) {
		return intents.ErrConflict
	}
	return s.wrap(err)
}

// Close ends the session.
func (s *Shelf) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.session != nil {
		s.session.close()
		s.session = nil
	}
	return nil
}
