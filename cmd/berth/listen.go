package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
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
	if !f.enable || f.plainEngines {
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

// listenUnix makes a socket that only its owner can open. A socket that a dead manager left is replaced, one that answers
// is not.
func listenUnix(ctx context.Context, path string) (net.Listener, error) {
	if err := ensureDir(filepath.Dir(path)); err != nil {
		return nil, fmt.Errorf("-H unix://%s: %w", path, err)
	}
	d := net.Dialer{Timeout: time.Second}
	c, err := d.DialContext(ctx, "unix", path)
	switch {
	case err == nil:
		return nil, errors.Join(fmt.Errorf("-H unix://%s: somebody serves there already; stop it or choose another socket", path), c.Close())
	case errors.Is(err, syscall.ECONNREFUSED):
		if err := os.Remove(path); err != nil {
			return nil, fmt.Errorf("-H unix://%s: %w", path, err)
		}
	}
	// The umask is the process's: nothing else makes files while the command starts.
	restore := ownFilesOnly()
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "unix", path)
	restore()
	if err != nil {
		return nil, fmt.Errorf("-H unix://%s: %w", path, err)
	}
	return l, nil
}

// listenTCP refuses to give the fleet, which is root on every node, to whoever can reach a port.
func listenTCP(ctx context.Context, addr string, f *tlsFlags) (net.Listener, error) {
	if strings.HasPrefix(addr, ":") {
		addr = "0.0.0.0" + addr
	}
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, fmt.Errorf("-H tcp://%s: %w", addr, err)
	}
	if !f.verify && !isLoopback(host) {
		return nil, fmt.Errorf("-H tcp://%s: beyond this computer the endpoint needs mutual TLS, since whoever reaches it is root on every node: "+
			"give --tlsverify with --tlscacert, --tlscert and --tlskey, or listen on 127.0.0.1 or a unix socket", addr)
	}
	config, err := f.server()
	if err != nil {
		return nil, err
	}
	lc := net.ListenConfig{KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: 15 * time.Second, Interval: 15 * time.Second, Count: 4}}
	l, err := lc.Listen(ctx, "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("-H tcp://%s: %w", addr, err)
	}
	if config != nil {
		l = tls.NewListener(l, config)
	}
	return l, nil
}

func isLoopback(host string) bool {
	if host == "localhost" {
		return true
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}
