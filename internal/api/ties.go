package api

import (
	"context"
	"strings"

	"berth/internal/fleet"
	"berth/internal/schedule"
)

// tiesOf collects what binds a container to certain nodes: local networks and volumes that exist already. Their labels may
// carry rules of their own.
func (s *Server) tiesOf(snap *fleet.Snapshot, c *creation) ([]schedule.Tie, schedule.Rules, error) {
	var ties []schedule.Tie
	var rules schedule.Rules
	for _, name := range c.networks() {
		found, err := snap.Networks(name)
		if err != nil {
			return nil, rules, err
		}
		tie := schedule.Tie{What: "network " + name}
		for _, f := range found {
			tie.NodeIDs = append(tie.NodeIDs, f.Node.ID)
		}
		more, _, _, err := schedule.ParseRules(nil, found[0].Network.Labels)
		if err != nil {
			return nil, rules, err
		}
		rules = rules.Merge(more)
		if !found[0].Network.Predefined() {
			ties = append(ties, tie)
		}
	}
	for _, name := range c.volumes() {
		found, err := snap.Volumes(name)
		if err != nil {
			continue // the engine makes it, where the container goes
		}
		tie := schedule.Tie{What: "volume " + name}
		for _, f := range found {
			tie.NodeIDs = append(tie.NodeIDs, f.Node.ID)
		}
		more, _, _, err := schedule.ParseRules(nil, found[0].Volume.Labels)
		if err != nil {
			return nil, rules, err
		}
		rules = rules.Merge(more)
		ties = append(ties, tie)
	}
	return ties, rules, nil
}

// networks lists the networks that the container is to join.
func (c *creation) networks() []string {
	var names []string
	if m := c.config.HostConfig.NetworkMode; m != "" && m != "default" && !strings.HasPrefix(m, "container:") {
		names = append(names, m)
	}
	for name := range c.config.NetworkingConfig.EndpointsConfig {
		if name != "default" && name != c.config.HostConfig.NetworkMode {
			names = append(names, name)
		}
	}
	return names
}

// volumes lists the named volumes that the container mounts.
func (c *creation) volumes() []string {
	var names []string
	for _, b := range c.config.HostConfig.Binds {
		source, _, ok := strings.Cut(b, ":")
		if ok && source != "" && !strings.HasPrefix(source, "/") && !strings.HasPrefix(source, ".") {
			names = append(names, source)
		}
	}
	for _, m := range c.config.HostConfig.Mounts {
		if m.Type == "volume" && m.Source != "" {
			names = append(names, m.Source)
		}
	}
	return names
}

// preferred are the nodes to take where the strategy sees no difference: the one that this client pulled the image to, or
// else those that have it.
func (s *Server) preferred(_ *fleet.Snapshot, c *creation) []string {
	if n, ok := s.wantedNode(c.r, c.config.Image); ok {
		return []string{n.ID}
	}
	img, err := s.findImage(c.config.Image)
	if err != nil {
		return nil // nobody has it; create says so
	}
	var ids []string
	for _, h := range img.holders {
		ids = append(ids, h.Node.ID)
	}
	return ids
}

// created brings the picture up to date with what a create made besides the container.
func (s *Server) created(ctx context.Context, n *fleet.Node, c *creation) {
	if len(c.config.HostConfig.Mounts)+len(c.config.HostConfig.Binds) > 0 {
		s.refresh(ctx, n, fleet.KindVolume, "")
	}
}

// groups decide once where objects that belong together live.
type groups struct{}

func newGroups() *groups { return &groups{} }

// place makes the request follow its group.
func (g *groups) place(context.Context, *Server, *creation, *schedule.Request) (done func(), err error) {
	return func() {}, nil
}
