package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
)

// dialStdio is berth under the name docker, for `docker -H ssh://manager`: that client runs `docker system dial-stdio` on the
// manager's computer, and nothing else. Input and output are the endpoint's socket.
func (p *program) dialStdio(ctx context.Context) error {
	socket := defaultSocket()
	args := p.argv[1:]
	for len(args) > 0 && strings.HasPrefix(args[0], "-") {
		flag, value, joined := strings.Cut(args[0], "=")
		args = args[1:]
		if flag != "--host" && flag != "-H" {
			return fmt.Errorf("unknown flag %s: under this name berth knows `docker [--host=unix:///path] system dial-stdio` and nothing else", flag)
		}
		if !joined && len(args) > 0 {
			value, args = args[0], args[1:]
		}
		path, ok := strings.CutPrefix(value, "unix://")
		if !ok {
			return fmt.Errorf("--host %s: want unix:///path", value)
		}
		socket = path
	}
	if strings.Join(args, " ") != "system dial-stdio" {
		return errors.New("this is berth under the name docker: it knows `docker system dial-stdio` and nothing else; install the docker client for more")
	}
	conn, err := new(net.Dialer).DialContext(ctx, "unix", socket)
	if err != nil {
		return fmt.Errorf("no endpoint on this computer: %w; start it with `berth serve`", err)
	}
	defer conn.Close() //nolint:errcheck // both directions have ended
	return splice(conn, p.in, p.out)
}

// splice copies both ways. The end of the input is passed on, and the end of the answer ends it.
func splice(conn net.Conn, in io.Reader, out io.Writer) error {
	go func() { // ends with its input, or with the process
		_, _ = io.Copy(conn, in) // an endpoint that is gone shows in the other direction
		if c, ok := conn.(interface{ CloseWrite() error }); ok {
			_ = c.CloseWrite() // likewise
		}
	}()
	_, err := io.Copy(out, conn)
	return err
}
