package main

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/fsnotify/fsnotify"

	"berth/internal/discovery"
	"berth/internal/engine"
	"berth/internal/machine"
	"berth/internal/ssh"
)

// storeSource is the machine store as a place where engines are found: every machine that was made whole.
type storeSource struct {
	store *machine.Store
	log   *slog.Logger
}

// storeHeartbeat is how often the store is read again where the file system announces nothing.
const storeHeartbeat = 5 * time.Second

// Watch follows the store's machines as they come and go.
func (s *storeSource) Watch(ctx context.Context, update func([]engine.Endpoint)) error {
	w, err := fsnotify.NewWatcher()
	if err != nil {
		return fmt.Errorf("watch the machine store: %w", err)
	}
	defer w.Close() //nolint:errcheck // nothing is kept in it
	last := "-"
	for {
		s.follow(w)
		eps := s.endpoints()
		if key := keyOf(eps); key != last {
			last = key
			update(eps)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(storeHeartbeat):
		case <-w.Events:
			settle(ctx, w)
		case err := <-w.Errors:
			s.log.Warn("watch the machine store", "error", err)
		}
	}
}

// settle lets the writes that belong together end, so that a record is not read in their midst.
func settle(ctx context.Context, w *fsnotify.Watcher) {
	quiet := time.NewTimer(50 * time.Millisecond)
	defer quiet.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-quiet.C:
			return
		case <-w.Events:
		}
	}
}

// follow watches the folders that exist now; the heartbeat finds those that come.
func (s *storeSource) follow(w *fsnotify.Watcher) {
	dirs := []string{s.store.MachinesDir()}
	names, err := s.store.Names()
	if err != nil {
		s.log.Warn("read the machine store", "error", err)
	}
	for _, n := range names {
		dirs = append(dirs, s.store.MachineDir(n))
	}
	for _, d := range dirs {
		if err := w.Add(d); err != nil && !os.IsNotExist(err) {
			s.log.Warn("watch the machine store", "dir", d, "error", err)
		}
	}
}

func (s *storeSource) endpoints() []engine.Endpoint {
	names, err := s.store.Names()
	if err != nil {
		s.log.Warn("read the machine store", "error", err)
	}
	var eps []engine.Endpoint
	for _, name := range names {
		m, err := s.store.Load(name)
		if err != nil || m.Unfinished != "" || m.URL() == "" {
			continue // `berth ls` shows it with its error
		}
		ep, err := machineEndpoint(s.store, m)
		if err != nil {
			s.log.Warn("machine cannot join the fleet", "machine", name, "error", err)
			continue
		}
		eps = append(eps, ep)
	}
	return eps
}

// machineEndpoint is a machine's engine, reached with the machine's own certificates.
func machineEndpoint(store *machine.Store, m *machine.Machine) (engine.Endpoint, error) {
	if strings.HasPrefix(m.URL(), "ssh://") {
		return plainEndpoint(store, m)
	}
	config, err := store.ClientTLS(m)
	if err != nil {
		return engine.Endpoint{}, err
	}
	ep, err := addrEndpoint(m.URL(), config, "")
	if err != nil {
		return ep, err
	}
	ep.Name = m.Name
	files := store.CertFiles(m)
	ep.Key += " " + fileKey(files.CA, files.Cert, files.Key)
	if cfg, err := sshConfig(store, m); err == nil && strings.HasPrefix(m.URL(), "tcp://") {
		cfg.Log = func(line string) { slog.Info(line, "machine", m.Name) }
		c := ssh.New(cfg) // which connects when it is needed: for ports that are published on the host's loopback
		ep.Reach, ep.Close = reachOver(c), c.Close
	}
	return ep, nil
}

// plainEndpoint is an engine that is used as it is, through the machine's own SSH.
func plainEndpoint(store *machine.Store, m *machine.Machine) (engine.Endpoint, error) {
	cfg, err := sshConfig(store, m)
	if err != nil {
		return engine.Endpoint{}, err
	}
	ep := sshEndpointOf(m.URL(), cfg, ssh.DefaultSocket)
	ep.Name = m.Name
	ep.Key += " " + fileKey(cfg.KeyFiles...)
	return ep, nil
}

// fileKey changes when one of the files does.
func fileKey(paths ...string) string {
	h := sha256.New()
	for _, p := range paths {
		b, err := os.ReadFile(p)
		if err != nil {
			b = []byte(err.Error()) // to be missing is a state, too
		}
		h.Write(b)
	}
	return hex.EncodeToString(h.Sum(nil)[:8])
}

func keyOf(eps []engine.Endpoint) string {
	var b strings.Builder
	for _, ep := range eps {
		fmt.Fprintf(&b, "%s=%s\n", ep.Name, ep.Key)
	}
	return b.String()
}

// addrSource is a discovery source whose addresses are reached in one way.
type addrSource struct {
	source discovery.Source
	tls    *tls.Config
	known  string // the file for SSH host keys
	log    *slog.Logger
}

// Watch turns addresses into endpoints.
func (a *addrSource) Watch(ctx context.Context, update func([]engine.Endpoint)) error {
	return a.source.Watch(ctx, func(addrs []string) {
		var eps []engine.Endpoint
		for _, addr := range addrs {
			ep, err := addrEndpoint(addr, a.tls, a.known)
			if err != nil {
				a.log.Warn("node cannot join the fleet", "addr", addr, "error", err)
				continue
			}
			eps = append(eps, ep)
		}
		update(eps)
	})
}

// addrEndpoint reads an engine's address: host:port, tcp://host:port, unix:///path or ssh://user@host.
func addrEndpoint(addr string, config *tls.Config, knownHosts string) (engine.Endpoint, error) {
	switch {
	case strings.HasPrefix(addr, "unix://"):
		path := strings.TrimPrefix(addr, "unix://")
		return engine.Endpoint{Addr: addr, Key: addr, IP: "127.0.0.1", Dial: engine.DialUnix(path)}, nil
	case strings.HasPrefix(addr, "ssh://"):
		return sshEndpoint(addr, knownHosts)
	}
	bare := strings.TrimPrefix(addr, "tcp://")
	host, _, err := net.SplitHostPort(bare)
	if err != nil {
		return engine.Endpoint{}, fmt.Errorf("address %q: %w", addr, err)
	}
	key := bare
	if config != nil {
		key += " tls"
	}
	return engine.Endpoint{Addr: bare, Key: key, IP: resolve(host), Dial: engine.DialTCP(bare, config)}, nil
}

func sshEndpoint(addr, knownHosts string) (engine.Endpoint, error) {
	t, err := ssh.ParseTarget(addr)
	if err != nil {
		return engine.Endpoint{}, err
	}
	return sshEndpointOf(addr, ssh.Config{Host: t.Host, Port: t.Port, User: t.User, KnownHostsFile: knownHosts}, t.Path), nil
}

// reachOver leads to addresses as the host sees them, through its SSH connection.
func reachOver(c *ssh.Client) func(ctx context.Context, addr string) (net.Conn, error) {
	return func(ctx context.Context, addr string) (net.Conn, error) { return c.Dial(ctx, "tcp", addr) }
}

func sshEndpointOf(addr string, cfg ssh.Config, socket string) engine.Endpoint {
	cfg.Log = func(line string) { slog.Info(line, "addr", addr) }
	c := ssh.New(cfg)
	dial := func(ctx context.Context) (net.Conn, error) { return c.Dial(ctx, "unix", socket) }
	return engine.Endpoint{Addr: addr, Key: addr, IP: resolve(cfg.Host), Dial: dial, Reach: reachOver(c), Close: c.Close}
}

// resolve gives the address that a node's published ports answer on. "" if the name does not resolve just now.
func resolve(host string) string {
	if ip := net.ParseIP(host); ip != nil {
		return ip.String()
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	addrs, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	if err != nil || len(addrs) == 0 {
		return ""
	}
	return addrs[0].Unmap().String()
}

// ensureDir makes a private folder, and checks that it is one.
func ensureDir(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	info, err := os.Stat(dir)
	if err != nil {
		return err
	}
	if !info.IsDir() {
		return &fs.PathError{Op: "mkdir", Path: filepath.Clean(dir), Err: fs.ErrExist}
	}
	return nil
}
