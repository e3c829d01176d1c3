package api

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"

	"berth/internal/fleet"
	"berth/internal/rawjson"
)

// notManager is what engines answer to everything that needs Swarm mode.
const notManager = "This node is not a swarm manager. Use \"docker swarm init\" or \"docker swarm join\" to connect this node to swarm and try again."

// listedVolume is one row of the list.
type listedVolume struct {
	node   *fleet.Node
	volume *fleet.Volume
	name   string // as shown
}

// listVolumes answers from memory. Volumes of nodes that do not answer are listed as they were last seen.
func listVolumes(s *Server, w http.ResponseWriter, r *request) error {
	f, err := parseFilters(r.URL.Query(), "dangling", "driver", "label", "label!", "name", "node")
	if err != nil {
		return err
	}
	dangling, err := f.optional("dangling")
	if err != nil {
		return err
	}
	s.fleet.Settle(r.Context(), fleet.KindContainer, fleet.KindVolume) // in this order: new containers may have made volumes
	nodes := s.fleet.Snapshot().Nodes()
	warnings := []string(nil)
	for _, n := range nodes {
		if n.State != fleet.Healthy {
			w.Header().Add("X-Berth-Partial", n.Name)
			warnings = append(warnings, fmt.Sprintf("node %s is unreachable: %s", n.Name, n.Error))
		}
	}
	rows := [][]byte{}
	for _, v := range volumesOf(nodes) {
		if !matchVolume(f, dangling, v) {
			continue
		}
		row := []byte(v.volume.Row)
		if v.volume.Scope != "global" {
			if row, err = labelled(v.volume.Row, v.node, v.name); err != nil {
				return err
			}
		}
		rows = append(rows, row)
	}
	o := new(rawjson.Object)
	o.SetRaw("Volumes", joinRows(rows))
	o.Set("Warnings", warnings)
	writeRaw(w, http.StatusOK, append(o.Bytes(), '\n'))
	return nil
}

// volumesOf lists the volumes of all nodes by name. A name that means different volumes on several nodes is shown as
// node/name; a volume that all nodes of its driver see is shown once.
func volumesOf(nodes []*fleet.Node) []listedVolume {
	var all []listedVolume
	copies := map[string]int{}
	global := map[string]bool{}
	for _, n := range nodes {
		for _, v := range n.Volumes {
			if v.Scope == "global" {
				if key := v.Driver + "\n" + v.Name; !global[key] {
					global[key] = true
					all = append(all, listedVolume{n, v, v.Name})
				}
				continue
			}
			copies[v.Name]++
			all = append(all, listedVolume{n, v, v.Name})
		}
	}
	for i := range all {
		if v := &all[i]; copies[v.volume.Name] > 1 && v.volume.Scope != "global" {
			v.name = v.node.Name + "/" + v.name
		}
	}
	slices.SortStableFunc(all, func(a, b listedVolume) int { return cmp.Compare(a.volume.Name, b.volume.Name) })
	return all
}

func matchVolume(f filters, dangling *bool, v listedVolume) bool {
	label := func(k string) (string, bool) {
		if k == fleet.LabelNode && v.volume.Scope != "global" {
			return v.node.Name, true
		}
		value, ok := v.volume.Labels[k]
		return value, ok
	}
	used := func() bool {
		return slices.ContainsFunc(v.node.Containers, func(c *fleet.Container) bool { return hasVolume(c, v.volume.Name) })
	}
	switch {
	case !f.onNode(v.node):
	case !f.equal("driver", v.volume.Driver):
	case !f.matches("name", v.volume.Name):
	case !f.labels("label", label):
	case f.has("label!") && f.labels("label!", label):
	case dangling != nil && *dangling == used():
	default:
		return true
	}
	return false
}

// volumeNamed finds the one volume that a reference means.
func (s *Server) volumeNamed(ctx context.Context, ref string) (fleet.VolumeRef, error) {
	found, err := s.findVolumes(ctx, ref)
	if err != nil {
		return fleet.VolumeRef{}, err
	}
	if len(found) > 1 && found[0].Volume.Scope != "global" {
		e := &fleet.AmbiguousError{Kind: fleet.KindVolume, Ref: ref, Count: len(found)}
		for _, f := range found {
			e.Names = append(e.Names, f.Node.Name+"/"+f.Volume.Name)
		}
		return fleet.VolumeRef{}, e
	}
	for _, f := range found {
		if f.Node.State == fleet.Healthy {
			return f, nil
		}
	}
	return found[0], nil
}

// inspectVolume asks the owner. As for networks the label is not added.
func inspectVolume(s *Server, w http.ResponseWriter, r *request) error {
	v, err := s.volumeNamed(r.Context(), r.vars["id"])
	if err != nil {
		return err
	}
	return s.forward(w, r, v.Node, forwarding{path: r.ownPath(v.Volume.Name), before: editBody(func(b []byte) ([]byte, error) { //nolint:bodyclose // proxy closes it
		if v.Volume.Scope == "global" {
			return b, nil
		}
		return ownedBy(b, v.Node)
	})})
}

// createVolume makes a volume on one node, where its group is. One that exists is the engine's to return or to refuse.
func createVolume(s *Server, w http.ResponseWriter, r *request) error {
	if r.ContentLength == 0 {
		return s.anyHealthy(w, r) // the engine has the words for it
	}
	m, err := s.parseMaking(r, fleet.KindVolume)
	if err != nil {
		return err
	}
	if m.body.Has("ClusterVolumeSpec") {
		return unavailable(notManager)
	}
	release, err := m.lock(r.Context(), s)
	if err != nil {
		return err
	}
	defer release()
	if n := s.holder(m); n != nil {
		return s.make(w, m, n, nil)
	}
	n, y, err := s.house(r.Context(), m, nil)
	if err != nil {
		return err
	}
	return s.make(w, m, n, y)
}

// holder is the node that has the volume already, nil if none. Of several it is the group's, or the first that answers.
func (s *Server) holder(m *making) *fleet.Node {
	if m.name == "" {
		return nil
	}
	var home []string
	if m.group != "" {
		home = s.groups.members(s.fleet.Snapshot(), m.group, s.o.Now()).nodes()
	}
	rank := func(n *fleet.Node) int {
		switch {
		case n.State != fleet.Healthy:
			return 2
		case !slices.Contains(home, n.ID):
			return 1
		}
		return 0
	}
	var best *fleet.Node
	for _, n := range s.fleet.Snapshot().Nodes() {
		if m.pinned != nil && n.ID != m.pinned.ID {
			continue
		}
		if slices.ContainsFunc(n.Volumes, func(v *fleet.Volume) bool { return v.Name == m.name }) && (best == nil || rank(n) < rank(best)) {
			best = n
		}
	}
	return best
}

// updateVolume is for cluster volumes, which need Swarm mode.
func updateVolume(*Server, http.ResponseWriter, *request) error { return unavailable(notManager) }

// removeVolume takes the volume out of the picture with the answer. With force an unknown one counts as removed, as in the
// engine.
func removeVolume(s *Server, w http.ResponseWriter, r *request) error {
	v, err := s.volumeNamed(r.Context(), r.vars["id"])
	if err != nil {
		if flag(r.URL.Query(), "force") && status(err) == http.StatusNotFound {
			w.WriteHeader(http.StatusNoContent)
			return nil
		}
		return err
	}
	return s.forward(w, r, v.Node, forwarding{path: r.ownPath(v.Volume.Name), before: func(res *http.Response) error {
		if res.StatusCode < 300 || res.StatusCode == http.StatusNotFound {
			s.refresh(r.Context(), v.Node, fleet.KindVolume, "")
			s.groups.gone(object{fleet.KindVolume, v.Volume.Name}, "")
		}
		return nil
	}})
}

// anonymousAPI is the API version since which a prune takes anonymous volumes only, unless told otherwise.
const anonymousAPI = "1.42"

// pruneVolumes gives each node what means the same to it as the client's request means in the client's version.
func pruneVolumes(s *Server, w http.ResponseWriter, r *request) error {
	f, err := parseFilters(r.URL.Query(), "all", "label", "label!")
	if err != nil {
		return err
	}
	everything, _, err := f.boolean("all")
	if err != nil {
		return err
	}
	everything = everything || fleet.CompareVersions(r.version, anonymousAPI) < 0
	return s.pruneWith(w, r, "VolumesDeleted", fleet.KindVolume, func(ctx context.Context, n *fleet.Node) (*pruned, error) {
		old := fleet.CompareVersions(n.Clamp(r.version), anonymousAPI) < 0
		if old && !everything {
			return s.pruneAnonymous(ctx, n, r, f)
		}
		mine := maps.Clone(f)
		delete(mine, "all") // which old engines do not know
		if !old && everything {
			mine["all"] = []string{"true"}
		}
		q := url.Values{}
		if len(mine) > 0 {
			q.Set("filters", mine.encode())
		}
		return s.pruneOn(ctx, n, r, q, "VolumesDeleted", fleet.KindVolume)
	})
}

// anonymousName is what engines call a volume that was given no name.
var anonymousName = regexp.MustCompile(`^[0-9a-f]{64}$`)

// pruneAnonymous does for an engine that would prune named volumes too what a newer one does.
func (s *Server) pruneAnonymous(ctx context.Context, n *fleet.Node, r *request, f filters) (*pruned, error) {
	b, err := s.ask(ctx, n, http.MethodGet, r.version, "/volumes", url.Values{"filters": {filters{"dangling": {"true"}}.encode()}}, nil)
	if err != nil {
		return nil, fmt.Errorf("node %s: %w", n.Name, err)
	}
	var list struct {
		Volumes []struct {
			Name   string
			Labels map[string]string
		}
	}
	if err := decode(n, "volume list", b, &list); err != nil {
		return nil, err
	}
	var names []string
	for _, v := range list.Volumes {
		label := func(k string) (string, bool) { value, ok := v.Labels[k]; return value, ok }
		if anonymousName.MatchString(v.Name) && f.labels("label", label) && (!f.has("label!") || !f.labels("label!", label)) {
			names = append(names, v.Name)
		}
	}
	p := new(pruned)
	if len(names) == 0 {
		return p, nil
	}
	sizes := s.volumeSizes(ctx, n, r)
	for _, name := range names {
		code, b, err := s.call(ctx, n, http.MethodDelete, r.version, "/volumes/"+name, nil, nil, nil)
		switch {
		case err != nil:
			return nil, err
		case code < 300:
			p.items = append(p.items, name)
			p.space += sizes[name]
		case code != http.StatusConflict && code != http.StatusNotFound: // somebody was faster
			return nil, fmt.Errorf("node %s: remove volume %s: %s", n.Name, name, strings.TrimSpace(engineMessage(b)))
		}
	}
	s.refresh(ctx, n, fleet.KindVolume, "")
	return p, nil
}

// volumeSizes asks how large a node's volumes are. Without an answer a prune says that less was freed than was.
func (s *Server) volumeSizes(ctx context.Context, n *fleet.Node, r *request) map[string]uint64 {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	sizes := map[string]uint64{}
	b, err := s.ask(ctx, n, http.MethodGet, r.version, "/system/df", nil, nil)
	var df struct {
		Volumes []struct {
			Name      string
			UsageData struct{ Size int64 }
		}
	}
	if err == nil {
		err = decode(n, "disk usage", bytes.TrimSpace(b), &df)
	}
	if err != nil {
		s.o.Log.Warn("the sizes of volumes to be pruned are unknown", "node", n.Name, "error", err)
		return sizes
	}
	for _, v := range df.Volumes {
		sizes[v.Name] = uint64(max(v.UsageData.Size, 0))
	}
	return sizes
}
