package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// tlsFlags are classic Swarm's and the docker client's.
type tlsFlags struct {
	enable, verify bool
	ca, cert, key  string
	plainEngines   bool // engines are reached without TLS
}

// check refuses halves.
func (f *tlsFlags) check() error {
	f.enable = f.enable || f.verify
	switch {
	case !f.enable && (f.ca != "" || f.cert != "" || f.key != ""):
		return errors.New("--tlscacert, --tlscert and --tlskey need --tls or --tlsverify")
	case f.enable && (f.cert == "" || f.key == ""):
		return errors.New("--tls needs --tlscert and --tlskey")
	case f.verify && f.ca == "":
		return errors.New("--tlsverify needs --tlscacert")
	}
	return nil
}

// server is the configuration of our listeners. The certificate is read again when the files change, without a restart.
func (f *tlsFlags) server() (*tls.Config, error) {
	if !f.enable {
		return nil, nil //nolint:nilnil // no TLS is an answer
	}
	kept := &reloader{cert: f.cert, key: f.key}
	if _, err := kept.get(nil); err != nil {
		return nil, err
	}
	c := &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: kept.get, NextProtos: []string{"h2", "http/1.1"}}
	if f.verify {
		pool, err := readPool(f.ca)
		if err != nil {
			return nil, err
		}
		c.ClientCAs, c.ClientAuth = pool, tls.RequireAndVerifyClientCert
	}
	return c, nil
}

// client is the configuration that engines are reached with.
func (f *tlsFlags) client() (*tls.Config, error) {
	if f.plainEngines {
		return nil, nil //nolint:nilnil // no TLS is an answer
	}
	return f.peers()
}

// peers is the configuration that other managers are reached with.
func (f *tlsFlags) peers() (*tls.Config, error) {
	if !f.enable {
		return nil, nil //nolint:nilnil // no TLS is an answer
	}
	kept := &reloader{cert: f.cert, key: f.key}
	if _, err := kept.get(nil); err != nil {
		return nil, err
	}
	c := &tls.Config{MinVersion: tls.VersionTLS12, GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return kept.get(nil) }}
	if !f.verify {
		c.InsecureSkipVerify = true // --tls alone: what the user asked for, as in classic Swarm
		return c, nil
	}
	pool, err := readPool(f.ca)
	c.RootCAs = pool
	return c, err
}

func readPool(path string) (*x509.CertPool, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("certificate authority: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(b) {
		return nil, fmt.Errorf("certificate authority: %s holds no certificate", path)
	}
	return pool, nil
}

// listener opens one of the endpoint's addresses.
func listener(ctx context.Context, host string, f *tlsFlags) (net.Listener, error) {
	scheme, addr, found := strings.Cut(host, "://")
	if !found {
		scheme, addr = "tcp", host
	}
	switch scheme {
	case "unix":
		return listenUnix(ctx, addr)
	case "tcp":
		return listenTCP(ctx, addr, f)
	}
	return nil, fmt.Errorf("-H %s: want unix:///path or tcp://host:port", host)
}

// listenUnix is openUnix for -H.
func listenUnix(ctx context.Context, path string) (net.Listener, error) {
	return openUnix(ctx, "-H unix://"+path, path)
}

// socketPathLimit is what the kernel allows for a socket's path.
const socketPathLimit = 107

// openUnix makes a socket that only its owner can open. A socket that a dead manager left is replaced, one that answers is
// not. flag is what the user has said, for errors.
func openUnix(ctx context.Context, flag, path string) (net.Listener, error) {
	if len(path) > socketPathLimit {
		return nil, fmt.Errorf("%s: a socket's path has at most %d bytes; choose a shorter one", flag, socketPathLimit)
	}
	if err := ensureDir(filepath.Dir(path)); err != nil {
		return nil, cannotOpen(flag, err)
	}
	d := net.Dialer{Timeout: time.Second}
	c, err := d.DialContext(ctx, "unix", path)
	switch {
	case err == nil:
		return nil, errors.Join(fmt.Errorf("%s: somebody serves there already; stop it or choose another socket", flag), c.Close())
	case errors.Is(err, syscall.ECONNREFUSED):
		if info, err := os.Lstat(path); err == nil && info.Mode().Type() != os.ModeSocket {
			return nil, fmt.Errorf("%s: something else than a socket is there; choose another path", flag)
		}
		if err := os.Remove(path); err != nil {
			return nil, cannotOpen(flag, err)
		}
	}
	l, err := bindPrivately(ctx, path)
	if err != nil {
		return nil, cannotOpen(flag, err)
	}
	return l, nil
}

// cannotOpen is why a socket cannot be made, and what to do about it.
func cannotOpen(flag string, err error) error {
	if errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("%s: %w; choose a path in a folder of your own", flag, err)
	}
	return fmt.Errorf("%s: %w", flag, err)
}

// cannotListen is why a port cannot be listened on, and what to do about it.
func cannotListen(flag string, err error) error {
	for _, known := range []struct {
		errno  syscall.Errno
		advice string
	}{
		{syscall.EADDRINUSE, "another program listens there, maybe another manager; stop it or choose another port"},
		{syscall.EACCES, "ports below 1024 are for root; choose another port, or give berth CAP_NET_BIND_SERVICE"},
		{syscall.EADDRNOTAVAIL, "this computer has no such address; choose one of its own, or 127.0.0.1"},
	} {
		if errors.Is(err, known.errno) {
			return fmt.Errorf("%s: %w: %s", flag, known.errno, known.advice)
		}
	}
	return fmt.Errorf("%s: %w", flag, err)
}

// bindPrivately makes the socket where nobody else can get at it, and gives it its name once only its owner can open it. A
// umask would do for the socket, but it is the whole process's: other files, and programs started meanwhile, would get it too.
func bindPrivately(ctx context.Context, path string) (net.Listener, error) {
	dir, err := os.MkdirTemp(filepath.Dir(path), ".b")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir) //nolint:errcheck // an empty folder that only we can enter
	made := filepath.Join(dir, "s")
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "unix", made)
	if err != nil {
		return nil, err
	}
	u, ok := l.(*net.UnixListener)
	if !ok {
		return nil, errors.Join(fmt.Errorf("unexpected listener %T", l), l.Close())
	}
	u.SetUnlinkOnClose(false) // it would look for it where it was made
	err = os.Chmod(made, 0o600)
	if err == nil {
		err = os.Link(made, path) // which takes no file's place, as a rename would
	}
	if err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return &socket{UnixListener: u, path: path}, nil
}

// socket is a listener whose file was made elsewhere.
type socket struct {
	*net.UnixListener
	path string
	once sync.Once
}

// Addr is where clients find it.
func (s *socket) Addr() net.Addr { return &net.UnixAddr{Name: s.path, Net: "unix"} }

// Close removes the file, once: a second manager may have its own there by then.
func (s *socket) Close() (err error) {
	s.once.Do(func() {
		if e := os.Remove(s.path); !errors.Is(e, fs.ErrNotExist) {
			err = e
		}
		err = errors.Join(err, s.UnixListener.Close())
	})
	return err
}

// listenTCP refuses to give the fleet, which is root on every node, to whoever can reach a port.
func listenTCP(ctx context.Context, addr string, f *tlsFlags) (net.Listener, error) {
	return openTCP(ctx, "-H tcp://", addr, f, f.verify, "beyond this computer the endpoint needs mutual TLS, since whoever reaches it is root on every node: "+
		"give --tlsverify with --tlscacert, --tlscert and --tlskey, or listen on 127.0.0.1 or a unix socket")
}

// openTCP listens on host:port, with TLS if the flags say so. Beyond this computer it must be safe; why says what to do else.
// flag is what the user has written before the address, for errors.
func openTCP(ctx context.Context, flag, addr string, f *tlsFlags, safe bool, why string) (net.Listener, error) {
	addr = strings.TrimPrefix(addr, "tcp://")
	if strings.HasPrefix(addr, ":") {
		addr = "0.0.0.0" + addr
	}
	flag += addr
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, fmt.Errorf("%s: want host:port, such as 127.0.0.1:%s", flag, portIn(addr))
	}
	if !safe && !isLoopback(host) {
		return nil, fmt.Errorf("%s: %s", flag, why)
	}
	config, err := f.server()
	if err != nil {
		return nil, err
	}
	lc := net.ListenConfig{KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: 15 * time.Second, Interval: 15 * time.Second, Count: 4}}
	l, err := lc.Listen(ctx, "tcp", addr)
	if err != nil {
		return nil, cannotListen(flag, err)
	}
	if config != nil {
		l = tls.NewListener(l, config)
	}
	return l, nil
}

// portIn is the port of an address that is nothing else, or one for an example.
func portIn(addr string) string {
	if _, err := strconv.ParseUint(addr, 10, 16); err == nil {
		return addr
	}
	return "2375"
}

func isLoopback(host string) bool {
	if host == "localhost" {
		return true
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}
