package plugin

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/rpc"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"berth/internal/machine"
)

// silenceTime is how long a client may be silent; it says every 5 seconds that it is there.
const silenceTime = 10 * time.Second

// ErrNotInvited is the error of a plugin that no client started.
var ErrNotInvited = fmt.Errorf("This is a Docker Machine plugin binary.\n"+ //nolint:staticcheck,revive // docker-machine's text
	"Plugin binaries are not intended to be invoked directly.\n"+
	"Please use this plugin through the main 'docker-machine' binary.\n"+
	"(API version: %d)", apiVersion)

// ErrLeft is the error of a plugin whose client has left without a word.
var ErrLeft = errors.New("the client gives no sign of life any more")

// Asked tells whether this program was started as a plugin, and for which driver: by its own name, docker-machine-driver-NAME, or as
// docker-machine starts itself.
func Asked(argv []string) (driver string, asked bool) {
	if len(argv) > 0 {
		name := strings.TrimSuffix(filepath.Base(argv[0]), ".exe")
		if driver, is := strings.CutPrefix(name, binaryPrefix); is {
			return driver, true
		}
	}
	driver = os.Getenv(nameVariable)
	return driver, driver != "" && os.Getenv(tokenVariable) == token
}

// Serve is a driver of berth as a plugin, until the client says Close, leaves, or ctx ends. It writes to out what plugins do: its
// address, then lines for the user. The client is to be on this computer, and to be the only one.
func Serve(ctx context.Context, name string, drv machine.Driver, out io.Writer) error {
	if os.Getenv(tokenVariable) != token {
		return ErrNotInvited
	}
	return serve(ctx, name, drv, out, silenceTime)
}

// serve is Serve for a client that may be silent for as long as silence.
func serve(ctx context.Context, name string, drv machine.Driver, out io.Writer, silence time.Duration) error {
	for _, v := range []string{tokenVariable, nameVariable} { // not for what the driver starts
		if err := os.Unsetenv(v); err != nil {
			return err
		}
	}
	registerNames()
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("listen for docker-machine: %w", err)
	}
	ctx, cancel := context.WithCancel(ctx)
	svc := newService(ctx, name, drv, out)
	var conns connections
	defer conns.close()              // calls under way come to their end: what is being made is undone
	defer func() { _ = l.Close() }() // nobody waits for it
	defer cancel()
	if _, err := fmt.Fprintln(out, l.Addr()); err != nil {
		return fmt.Errorf("say where the plugin listens: %w", err)
	}
	server := rpc.NewServer()
	for _, service := range []string{serviceV1, serviceV0} {
		if err := server.RegisterName(service, svc); err != nil {
			return err
		}
	}
	conns.serving.Go(func() { conns.accept(l, server) })
	return svc.watch(ctx, silence)
}

// watch waits for what ends the serving.
func (s *service) watch(ctx context.Context, silence time.Duration) error {
	timer := time.NewTimer(silence)
	defer timer.Stop()
	for {
		select {
		case <-s.beats:
			timer.Reset(silence)
		case <-s.closed:
			return nil
		case <-timer.C:
			return ErrLeft
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// connections are the clients' connections.
type connections struct {
	serving sync.WaitGroup

	mu   sync.Mutex
	open []net.Conn
	over bool
}

func (c *connections) accept(l net.Listener, server *rpc.Server) {
	for {
		conn, err := l.Accept()
		if err != nil {
			return // it was closed
		}
		if !sameUser(conn) || !c.add(conn) {
			_ = conn.Close() // nobody we know
			continue
		}
		c.serving.Go(func() { serveConn(conn, server) })
	}
}

func (c *connections) add(conn net.Conn) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.over {
		c.open = append(c.open, conn)
	}
	return !c.over
}

// close ends all of them and waits for who serves them.
func (c *connections) close() {
	c.mu.Lock()
	c.over = true
	for _, conn := range c.open {
		_ = conn.Close() // the client may have done it
	}
	c.mu.Unlock()
	c.serving.Wait()
}

// serveConn answers the request that opens Go's RPC over HTTP, then calls.
func serveConn(conn net.Conn, server *rpc.Server) {
	defer conn.Close()
	r := bufio.NewReader(conn)
	req, err := http.ReadRequest(r)
	if err != nil {
		return
	}
	if req.Method != http.MethodConnect || req.URL.Path != rpc.DefaultRPCPath {
		_, _ = io.WriteString(conn, "HTTP/1.0 405 Method Not Allowed\r\n\r\n405 must CONNECT\n") // or not: no client of ours
		return
	}
	if _, err := io.WriteString(conn, "HTTP/1.0 200 Connected to Go RPC\n\n"); err != nil {
		return
	}
	server.ServeConn(&bufferedConn{conn, r})
}

// unserved is why a machine of a driver that runs its engine itself cannot be created through the protocol.
func unserved(driver string) error {
	return errors.New("driver " + driver + " starts a host's Docker Engine itself, and its hosts have no SSH; docker-machine would go on to install an engine over SSH. " +
		"Create the machine with berth (berth create -d " + driver + " NAME); once it is there, it can be listed, started, stopped and removed from here as well")
}
