package api

import (
	"context"
	"maps"
	"net/http"
	"strings"

	"berth/internal/fleet"
	"berth/internal/rawjson"
	"berth/internal/schedule"
)

// making is a parsed request to create a network or a volume.
type making struct {
	object
	r      *request
	body   *rawjson.Object
	pinned *fleet.Node // that the client named
	driver string
	labels map[string]string
	rules  schedule.Rules
	group  string
	spans  bool // it is a network that reaches over hosts
}

// longestName is what a volume's folder can be called. Engines find out by trying, and answer that it was their fault.
const longestName = 255

// parseMaking reads what placement needs. Of the body only a node before the name, and labels that are berth's own, are
// rewritten.
func (s *Server) parseMaking(r *request, kind fleet.Kind) (*making, error) {
	o, err := body(r)
	if err != nil {
		return nil, err
	}
	var b struct {
		Name, Driver string
		Labels       map[string]string
	}
	if err := decodeBody(o, &b); err != nil {
		return nil, err
	}
	m := &making{object: object{kind, b.Name}, r: r, body: o, driver: b.Driver, labels: b.Labels}
	if node := r.Header.Get("X-Berth-Node"); node != "" {
		n, ok := s.fleet.Snapshot().NodeByName(node)
		if !ok {
			return nil, invalidf("no node %s in the fleet; docker info lists them", node)
		}
		m.pinned = n
	}
	if n, ok := s.ownNode(b.Name); ok {
		m.pinned = n
		_, m.name, _ = strings.Cut(b.Name, "/")
		o.Set("Name", m.name)
	}
	if len(m.name) > longestName {
		return nil, invalidf("the name of a %s can have %d characters, not %d", kind, longestName, len(m.name))
	}
	m.cleanLabels()
	m.group = groupOf(m.labels)
	m.rules, _, _, err = schedule.ParseRules(nil, m.labels)
	return m, err
}

// cleanLabels drops the labels that only berth may write.
func (m *making) cleanLabels() {
	kept := maps.Clone(m.labels)
	maps.DeleteFunc(kept, func(k, _ string) bool {
		return strings.HasPrefix(k, fleet.LabelPrefix) && k != fleet.LabelGroup
	})
	if len(kept) != len(m.labels) {
		m.labels = kept
		m.body.Set("Labels", kept)
	}
}

// lock keeps others from making the name, or from choosing a home for the group.
func (m *making) lock(ctx context.Context, s *Server) (release func(), err error) {
	var keys []string
	if m.name != "" {
		keys = append(keys, lockKey("", m.object))
	}
	if m.group != "" {
		keys = append(keys, m.group)
	}
	return s.groups.locks.take(ctx, keys)
}

// house chooses the node, with its group if that has a home. ties are what else it leans on. The lock is held.
func (s *Server) house(ctx context.Context, m *making, ties []schedule.Tie) (*fleet.Node, *young, error) {
	y := &young{
		object: m.object, key: lockKey(m.group, m.object), since: s.o.Now(), version: m.r.version, body: m.body.Bytes(), rules: m.rules,
		stays: m.pinned != nil || len(ties) > 0,
	}
	req := &schedule.Request{Name: m.String(), Labels: m.labels, Rules: m.rules}
	needs, err := m.needs()
	if err != nil {
		return nil, nil, err
	}
	if err := s.require(req, m.r.version, needs); err != nil {
		return nil, nil, err
	}
	y.needs = needs
	if m.pinned != nil {
		ties = append(ties, schedule.Tie{What: "node " + m.pinned.Name, NodeIDs: []string{m.pinned.ID}})
	}
	var bonds []bond
	if m.group != "" && m.pinned == nil {
		bonds = append(bonds, s.groupBond(m.group))
	}
	var n *fleet.Node
	err = s.settle(ctx, req, ties, bonds, func(req *schedule.Request) (_ *fleet.Node, err error) {
		n, err = s.groups.choose(s, req, y)
		return n, err
	})
	if err != nil {
		s.groups.used(m.object)
		return nil, nil, err
	}
	return n, y, nil
}

// make has the engine make it, and answers once the picture shows it. y is its record, nil for one that exists.
func (s *Server) make(w http.ResponseWriter, m *making, n *fleet.Node, y *young) error {
	// The engine finishes what it began even if the client leaves; the lock must not be let go before.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(m.r.Context()), workDeadline)
	defer cancel()
	code, b, err := s.call(ctx, n, http.MethodPost, m.r.version, m.r.path, m.r.URL.Query(), m.body.Bytes(), nil)
	if err != nil || code != http.StatusCreated {
		if y != nil {
			s.groups.used(m.object)
		}
		if err != nil {
			return err
		}
	} else {
		s.refresh(ctx, n, m.kind, "")
		if y != nil {
			s.groups.born(s.fleet.Snapshot(), y, n)
		}
	}
	if m.spans && code >= http.StatusInternalServerError {
		return s.whyNot(code, engineMessage(b))
	}
	w.Header().Set("X-Berth-Node", n.Name)
	writeRaw(w, code, b)
	return nil
}
