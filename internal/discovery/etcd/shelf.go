package etcd

import (
	"context"
	"fmt"
	"strconv"

	clientv3 "go.etcd.io/etcd/client/v3"

	"berth/internal/discovery"
	"berth/internal/intents"
)

// Shelf keeps what the operator wants of nodes under one key. Its version is the revision of the key's last change.
type Shelf struct{ *store }

// NewShelf makes the Shelf of etcd://HOST[:2379],HOST…[/PREFIX].
func NewShelf(rawURL string, o discovery.Options) (intents.Shelf, error) {
	s, err := open(rawURL, o)
	if err != nil {
		return nil, err
	}
	return &Shelf{s}, nil
}

// Load reads the key.
func (s *Shelf) Load(ctx context.Context) ([]byte, string, error) {
	c, err := s.connection()
	if err != nil {
		return nil, "", err
	}
	r, err := c.Get(ctx, s.place.Intents)
	if err != nil {
		return nil, "", s.wrap(err)
	}
	if len(r.Kvs) == 0 {
		return nil, "", nil
	}
	return r.Kvs[0].Value, strconv.FormatInt(r.Kvs[0].ModRevision, 10), nil
}

// Save puts the key in a transaction. A key that is not there has revision 0.
func (s *Shelf) Save(ctx context.Context, data []byte, version string) error {
	revision := int64(0)
	if version != "" {
		var err error
		if revision, err = strconv.ParseInt(version, 10, 64); err != nil {
			return fmt.Errorf("etcd: version %q: %w", version, err)
		}
	}
	c, err := s.connection()
	if err != nil {
		return err
	}
	r, err := c.Txn(ctx).
		If(clientv3.Compare(clientv3.ModRevision(s.place.Intents), "=", revision)).
		Then(clientv3.OpPut(s.place.Intents, string(data))).
		Commit()
	if err != nil {
		return s.wrap(err)
	}
	if !r.Succeeded {
		return intents.ErrConflict
	}
	return nil
}
