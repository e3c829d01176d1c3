package api

import (
	"context"
	"strings"

	"berth/internal/fleet"
	"berth/internal/schedule"
)

// bond is what keeps a container with one thing that it uses, or with its group.
type bond struct {
	object               // zero for the group itself
	tie     schedule.Tie // without a What it ties to nothing
	key     string       // of the lock to hold while it is acted on; "" if it cannot change
	movable []*young     // what would have to move for the tie to be another; empty if it holds
	rules   schedule.Rules
	spans   bool   // it is a network that reaches over hosts
	swarm   string // which carries it, if known
}

func tiesOf(bonds []bond) []schedule.Tie {
	var ties []schedule.Tie
	for _, b := range bonds {
		if b.tie.What != "" {
			ties = append(ties, b.tie)
		}
	}
	return ties
}

func keysOf(bonds []bond) []string {
	var keys []string
	for _, b := range bonds {
		if b.key != "" {
			keys = append(keys, b.key)
		}
	}
	return keys
}

// bonds collects what binds a container to certain nodes, and the rules that the labels of those things carry.
func (s *Server) bonds(ctx context.Context, c *creation) ([]bond, schedule.Rules, error) {
	var all []bond
	var rules schedule.Rules
	add := func(b bond, err error) error {
		all = append(all, b)
		rules = rules.Merge(b.rules)
		return err
	}
	for _, name := range c.networks() {
		if err := add(s.networkBond(ctx, name)); err != nil {
			return nil, rules, err
		}
	}
	for _, name := range c.volumes() {
		if err := add(s.volumeBond(ctx, name)); err != nil {
			return nil, rules, err
		}
	}
	if group := groupOf(c.labels); gathers(group) {
		all = append(all, s.groupBond(group))
	}
	return all, rules, nil
}

// networkBond is that of a network which must exist. An engine would notice only at start that it does not.
func (s *Server) networkBond(ctx context.Context, ref string) (bond, error) {
	if fleet.IsPredefinedNetwork(ref) {
		return bond{object: object{fleet.KindNetwork, ref}}, nil
	}
	found, err := s.findNetworks(ctx, ref)
	if err != nil {
		return bond{}, invalid(s.lostNetworks(err).Error()) // no 404, upon which clients pull the image
	}
	w := found[0].Network
	b := bond{object: object{fleet.KindNetwork, w.Name}}
	if b.rules, _, _, err = schedule.ParseRules(nil, w.Labels); err != nil {
		return bond{}, err
	}
	if w.Spans() {
		b.spans = true
		for _, f := range holders(found) {
			if b.swarm == "" {
				b.swarm = s.fleet.Snapshot().SwarmOf(f.Node)
			}
		}
	}
	_, qualified := s.ownNode(ref)
	if (w.Predefined() || w.Scope != "local") && !qualified {
		return b, nil
	}
	b.tie.What = "network " + ref
	for _, f := range found {
		b.tie.NodeIDs = append(b.tie.NodeIDs, f.Node.ID)
	}
	s.loosen(&b, w.Labels)
	return b, nil
}

// volumeBond is that of a named volume. One that does not exist is made by the engine that the container goes to; the lock
// keeps a second create from having it made elsewhere at the same time.
func (s *Server) volumeBond(ctx context.Context, ref string) (bond, error) {
	found, err := s.findVolumes(ctx, ref)
	if err != nil {
		b := bond{object: object{fleet.KindVolume, ref}}
		if n, ok := s.ownNode(ref); ok {
			_, b.name, _ = strings.Cut(ref, "/")
			b.tie = schedule.Tie{What: "volume " + ref, NodeIDs: []string{n.ID}}
		}
		b.key = lockKey("", b.object)
		return b, ctx.Err()
	}
	v := found[0].Volume
	b := bond{object: object{fleet.KindVolume, v.Name}}
	if b.rules, _, _, err = schedule.ParseRules(nil, v.Labels); err != nil {
		return bond{}, err
	}
	if v.Scope == "global" {
		return b, nil
	}
	b.tie.What = "volume " + ref
	for _, f := range found {
		b.tie.NodeIDs = append(b.tie.NodeIDs, f.Node.ID)
	}
	s.loosen(&b, v.Labels)
	return b, nil
}

// loosen finds out what would have to move for the bond's object to be elsewhere.
func (s *Server) loosen(b *bond, labels map[string]string) {
	snap, now := s.fleet.Snapshot(), s.o.Now()
	y := s.groups.youngAt(snap, b.object, now)
	if y == nil || len(b.tie.NodeIDs) != 1 || b.tie.NodeIDs[0] != y.node {
		return
	}
	b.key, b.movable = y.key, []*young{y}
	if group := groupOf(labels); group != "" {
		b.movable = s.groups.members(snap, group, now).movable()
	}
}

// groupBond is that of a container, network or volume with its group: those that live somewhere make it live there too. The
// first of a group finds its home under the group's lock.
func (s *Server) groupBond(group string) bond {
	m := s.groups.members(s.fleet.Snapshot(), group, s.o.Now())
	b := bond{movable: m.movable()}
	if nodes := m.nodes(); len(nodes) > 0 {
		b.tie = schedule.Tie{What: "group " + group, NodeIDs: nodes}
	}
	if len(m.fixed) == 0 {
		b.key = group
	}
	return b
}

// ownNode tells which node a reference of the form node/name names.
func (s *Server) ownNode(ref string) (*fleet.Node, bool) {
	node, _, ok := strings.Cut(ref, "/")
	if !ok {
		return nil, false
	}
	return s.fleet.Snapshot().NodeByName(node)
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
func (s *Server) preferred(ctx context.Context, c *creation) []string {
	if n, ok := s.wantedNode(c.r, c.config.Image); ok {
		return []string{n.ID}
	}
	img, err := s.findImage(ctx, c.config.Image)
	if err != nil {
		return nil // nobody has it; create says so
	}
	return img.ids
}

// created brings the picture up to date with what a create made besides the container, and notes what it uses.
func (s *Server) created(ctx context.Context, n *fleet.Node, c *creation) {
	bonds, _, err := s.bonds(ctx, c)
	if err != nil {
		return // a network that is gone again cannot move either
	}
	for _, b := range bonds {
		s.groups.used(b.object)
	}
	if len(c.volumes()) > 0 {
		s.refresh(ctx, n, fleet.KindVolume, "") // others may have to follow them
	}
}
