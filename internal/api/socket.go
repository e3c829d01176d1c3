package api

import (
	"context"
	"path"
	"strings"

	"berth/internal/fleet"
	"berth/internal/schedule"
)

// Sockets give containers the fleet's endpoint as a socket on their node.
type Sockets interface {
	// Arch is the architecture of the nodes that can have one.
	Arch() string
	// Socket is where the node has it; it is there when Socket returns. It may be called for many creates at once.
	Socket(ctx context.Context, n *fleet.Node) (string, error)
}

// carriedSocket is how the path of a socket that we gave out ends. A container that is made again from its inspection, as some
// programs do for updates, may come to another node, where the path is another.
const carriedSocket = "/berth-relay/_data/docker.sock"

// isSocket tells whether the source of a bind is the engine's socket.
func isSocket(source string) bool {
	if !path.IsAbs(source) {
		return false
	}
	source = path.Clean(source)
	return source == "/var/run/docker.sock" || source == "/run/docker.sock" || strings.HasSuffix(source, carriedSocket)
}

// mountsSocket tells whether the container wants an engine's socket. One that mounts a folder which has it sees its node's.
func (c *creation) mountsSocket() bool {
	for _, b := range c.config.HostConfig.Binds {
		if source, _, ok := strings.Cut(b, ":"); ok && isSocket(source) {
			return true
		}
	}
	for _, m := range c.config.HostConfig.Mounts {
		if m.Type == "bind" && isSocket(m.Source) {
			return true
		}
	}
	return false
}

// requireSocket keeps a container that is to have the fleet's socket on nodes that can have one.
func (s *Server) requireSocket(req *schedule.Request, c *creation) {
	if s.o.Sockets == nil || !c.mountsSocket() {
		return
	}
	if req.OS == "" {
		req.OS = "linux"
	}
	if req.Arch == "" {
		req.Arch = s.o.Sockets.Arch()
	}
}

// offerSocket makes the fleet's socket ready on the node if the container wants one.
func (s *Server) offerSocket(ctx context.Context, n *fleet.Node, c *creation) (err error) {
	if s.o.Sockets == nil || !c.mountsSocket() {
		return nil
	}
	c.socket, err = s.o.Sockets.Socket(ctx, n)
	return err
}

// socketSource is the source of a bind on the node.
func (c *creation) socketSource(source string) string {
	if c.socket != "" && isSocket(source) {
		return c.socket
	}
	return source
}

// socketBind is socketSource for a bind of the form source:target:options.
func (c *creation) socketBind(bind string) string {
	source, rest, ok := strings.Cut(bind, ":")
	if !ok {
		return bind
	}
	return c.socketSource(source) + ":" + rest
}
