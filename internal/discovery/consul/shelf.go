package consul

import (
	"context"
	"fmt"
	"strconv"

	"github.com/hashicorp/consul/api"

	"berth/internal/discovery"
	"berth/internal/intents"
)

// Shelf keeps what the operator wants of nodes under one key. Its version is the index of the key's last change.
type Shelf struct{ *store }

// NewShelf makes the Shelf of consul://HOST[:8500],HOST…[/PREFIX].
func NewShelf(rawURL string, o discovery.Options) (intents.Shelf, error) {
	s, err := open(rawURL, o)
	if err != nil {
		return nil, err
	}
	return &Shelf{s}, nil
}

// Load reads the key.
func (s *Shelf) Load(ctx context.Context) (data []byte, version string, err error) {
	err = s.call(ctx, callLimit, func(ctx context.Context, c *api.Client) error {
		pair, _, err := c.KV().Get(s.place.Intents, read(ctx))
		if err != nil || pair == nil {
			return err
		}
		data, version = pair.Value, strconv.FormatUint(pair.ModifyIndex, 10)
		return nil
	})
	return data, version, err
}

// Save checks and sets the key. For Consul a key that is not there has index 0.
func (s *Shelf) Save(ctx context.Context, data []byte, version string) error {
	index := uint64(0)
	if version != "" {
		var err error
		if index, err = strconv.ParseUint(version, 10, 64); err != nil {
			return fmt.Errorf("consul: version %q: %w", version, err)
		}
	}
	saved := false
	err := s.call(ctx, callLimit, func(ctx context.Context, c *api.Client) (err error) {
		saved, _, err = c.KV().CAS(&api.KVPair{Key: s.place.Intents, Value: data, ModifyIndex: index}, write(ctx))
		return err
	})
	if err == nil && !saved {
		return intents.ErrConflict
	}
	return err
}
