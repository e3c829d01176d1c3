package main

import (
	"crypto/tls"
	"fmt"
	"os"
	"sync"
	"time"
)

// reloader reads a key pair again when its files have changed, so that certificates can be renewed without a restart. A new
// pair that cannot be read leaves the old one in use.
type reloader struct {
	cert, key string

	mu    sync.Mutex
	pair  *tls.Certificate
	stamp time.Time
}

func (r *reloader) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	stamp, err := newest(r.cert, r.key)
	if err == nil && r.pair != nil && stamp.Equal(r.stamp) {
		return r.pair, nil
	}
	pair, loadErr := tls.LoadX509KeyPair(r.cert, r.key)
	switch {
	case loadErr == nil:
		r.pair, r.stamp = &pair, stamp
	case r.pair == nil:
		return nil, fmt.Errorf("certificate: %w", loadErr)
	}
	return r.pair, nil
}

func newest(paths ...string) (time.Time, error) {
	var t time.Time
	for _, p := range paths {
		info, err := os.Stat(p)
		if err != nil {
			return t, err
		}
		if info.ModTime().After(t) {
			t = info.ModTime()
		}
	}
	return t, nil
}
