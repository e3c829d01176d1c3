package libvirt

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	rpc "github.com/digitalocean/go-libvirt"
)

// Bounds of what is asked of libvirt in one go, and of getting through to it.
const (
	dialTime = 15 * time.Second
	askTime  = 30 * time.Second
	workTime = 15 * time.Minute // uploads an image, saves a memory
)

const (
	systemURI  = "qemu:///system"
	sessionURI = "qemu:///session"
)

// endpoint is a libvirt on this computer.
type endpoint struct {
	name    rpc.ConnectURI // what libvirt calls it
	sockets []string       // where it may listen: its old daemon, and the new one that is for QEMU alone
	session bool
}

// parseURI reads a connection's URI. Only libvirts of this computer will do: machines of others are in networks that end there.
func parseURI(text string) (endpoint, error) {
	u, err := url.Parse(text)
	if err != nil {
		return endpoint{}, err
	}
	e := endpoint{session: u.Path == "/session"}
	if u.Scheme != "qemu" && u.Scheme != "qemu+unix" || u.Host != "" || u.Path != "/system" && u.Path != "/session" {
		return e, fmt.Errorf("%q: want %s or %s, on this computer, with ?socket=PATH where it listens elsewhere", text, systemURI, sessionURI)
	}
	e.name = rpc.ConnectURI("qemu://" + u.Path)
	if socket := u.Query().Get("socket"); socket != "" {
		e.sockets = []string{socket}
		return e, nil
	}
	dir := "/var/run/libvirt"
	if e.session {
		dir = filepath.Join(runtimeDir(), "libvirt")
	}
	e.sockets = []string{filepath.Join(dir, "libvirt-sock"), filepath.Join(dir, "virtqemud-sock")}
	return e, nil
}

// runtimeDir is the user's, where libvirt has a session's sockets.
func runtimeDir() string {
	if dir := os.Getenv("XDG_RUNTIME_DIR"); dir != "" {
		return dir
	}
	if cache, err := os.UserCacheDir(); err == nil {
		return cache
	}
	return os.TempDir()
}

// conn is a connection, for one piece of work.
type conn struct {
	*rpc.Libvirt
	endpoint
}

// with does a piece of work over a connection of its own. go-libvirt's calls know no context: when ctx ends, the connection does, and
// with it every call.
func with(ctx context.Context, uri string, limit time.Duration, do func(conn) error) (err error) {
	e, err := parseURI(uri)
	if err != nil {
		return err
	}
	limited, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("libvirt did not answer within %s", limit))
	defer cancel()
	line, err := e.dial(limited)
	if err != nil {
		return err
	}
	stop := context.AfterFunc(limited, func() { _ = line.Close() })
	defer stop()
	c := conn{rpc.NewWithDialer(dialed{line}), e}
	defer func() {
		if limited.Err() != nil {
			err = fmt.Errorf("libvirt at %s: %w", e.name, context.Cause(limited))
			if ctx.Err() != nil {
				err = ctx.Err()
			}
		}
	}()
	if err := c.ConnectToURI(e.name); err != nil {
		return errors.Join(fmt.Errorf("connect to libvirt at %s: %w", e.name, err), line.Close())
	}
	err = do(c)
	if gone := c.Disconnect(); err == nil && limited.Err() == nil {
		err = gone
	}
	return err
}

// dialed is a connection that is there, as go-libvirt wants it.
type dialed struct{ line net.Conn }

func (d dialed) Dial() (net.Conn, error) { return d.line, nil }

func (e endpoint) dial(ctx context.Context) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTime)
	defer cancel()
	var failed []error
	for _, path := range e.sockets {
		line, err := (&net.Dialer{}).DialContext(ctx, "unix", path)
		if err == nil {
			return line, nil
		}
		failed = append(failed, err)
	}
	err := errors.Join(failed...)
	switch {
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case errors.Is(err, fs.ErrPermission):
		return nil, fmt.Errorf("libvirt at %s does not let you in: sudo usermod -aG libvirt $USER, then log in anew; or use --%s %s, which needs no rights: %w", e.name, flagURI, sessionURI, failed[0])
	case errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED):
		how := "apt-get install libvirt-daemon-system qemu-system-x86, or dnf install libvirt qemu-kvm; then systemctl start libvirtd"
		if e.session {
			how = "install it, and start the session's with virsh -c " + sessionURI + " list"
		}
		return nil, fmt.Errorf("no libvirt runs at %s: %s. Without libvirt, -d qemu makes virtual machines too (%s)", e.name, how, strings.ReplaceAll(err.Error(), "\n", "; "))
	}
	return nil, err
}

// missing tells whether libvirt says that a thing is not there.
func missing(err error) bool {
	e, ok := errors.AsType[rpc.Error](err)
	if !ok {
		return false
	}
	switch rpc.ErrorNumber(e.Code) { //nolint:gosec,exhaustive // a small number; the others are troubles
	case rpc.ErrNoDomain, rpc.ErrNoNetwork, rpc.ErrNoStoragePool, rpc.ErrNoStorageVol:
		return true
	}
	return false
}

// unlessMissing is err, unless it says that a thing is not there.
func unlessMissing(err error) error {
	if missing(err) {
		return nil
	}
	return err
}
