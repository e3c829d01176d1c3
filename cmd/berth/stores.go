package main

import (
	"log/slog"
	"strings"
	"sync"

	"berth/internal/discovery"
	"berth/internal/discovery/etcd"
)

// stores are the stores that members can stand in, by the schemes of their URLs.
func stores() map[string]discovery.NewStore {
	return map[string]discovery.NewStore{"etcd": etcd.New}
}

const discoveryOptUsage = "Discovery option `KEY=VALUE`, such as kv.path, kv.cacertfile, kv.user; repeatable"

// discoveryOptions are those of all commands that take a discovery URL.
func discoveryOptions(pairs []string) discovery.Options {
	o := discovery.Options{Opts: map[string]string{}, Stores: stores()}
	for _, kv := range pairs {
		k, v, _ := strings.Cut(kv, "=")
		o.Opts[k] = v
	}
	return o
}

// notices are what `docker info` warns of beside the nodes: that the members may not be the true ones.
type notices struct {
	mu        sync.Mutex
	discovery string
}

// follow has a source tell of its state here, and of its troubles in the log.
func (n *notices) follow(o *discovery.Options, log *slog.Logger) {
	o.Warn = func(err error) { log.Warn("discovery", "error", err) }
	o.State = func(err error) {
		n.mu.Lock()
		defer n.mu.Unlock()
		was := n.discovery
		n.discovery = ""
		if err != nil {
			n.discovery = "discovery: " + strings.TrimPrefix(err.Error(), "discovery ")
		} else if was != "" {
			log.Info("discovery is as it should be again")
		}
	}
}

func (n *notices) list() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.discovery == "" {
		return nil
	}
	return []string{n.discovery}
}
