package api

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/distribution/reference"

	"berth/internal/fleet"
	"berth/internal/rawjson"
)

// imageRow is one image of the fleet: rows of the same ID made one.
type imageRow struct {
	first   *fleet.Image // of the first node that has it
	ids     []string     // of which it has several where nodes store images differently
	tags    []string
	digests []string
}

// listImages answers from memory, with one row for an image on any number of nodes. What only the engines know, such as
// intermediate images and shared sizes, is asked of them.
func listImages(s *Server, w http.ResponseWriter, r *request) error {
	q := r.URL.Query()
	l, err := s.parseImageListing(r, q)
	if err != nil {
		return err
	}
	s.settleBuilds(r.Context())
	nodes, err := s.imageLists(w, r, q)
	if err != nil {
		return err
	}
	nodes = slices.DeleteFunc(nodes, func(n *fleet.Node) bool {
		return !l.f.any("node", func(v string) bool { return n.Name == v || n.ID == v || n.EngineID == v })
	})
	out := []byte{'['}
	for _, row := range s.mergeImages(r.Context(), nodes) {
		if !l.match(row) {
			continue
		}
		b, err := row.encode(r.version)
		if err != nil {
			return err
		}
		if len(out) > 1 {
			out = append(out, ',')
		}
		out = append(out, b...)
	}
	writeRaw(w, http.StatusOK, append(out, ']', '\n'))
	return nil
}

// imageLists are the healthy nodes with their images.
func (s *Server) imageLists(w http.ResponseWriter, r *request, q url.Values) ([]*fleet.Node, error) {
	s.fleet.Settle(r.Context(), fleet.KindImage)
	for _, n := range s.fleet.Snapshot().Nodes() {
		if n.State != fleet.Healthy {
			w.Header().Add("X-Berth-Partial", n.Name)
		}
	}
	nodes := s.nodes()
	ask := url.Values{}
	for _, name := range []string{"all", "shared-size", "manifests", "identity"} {
		if flag(q, name) {
			ask.Set(name, "1")
		}
	}
	if len(ask) == 0 {
		return nodes, nil
	}
	lists, errs := each(r.Context(), nodes, 30*time.Second, func(ctx context.Context, n *fleet.Node) (*fleet.Node, error) {
		images, err := s.askImages(ctx, n, r.version, ask)
		return &fleet.Node{ID: n.ID, Name: n.Name, EngineID: n.EngineID, State: n.State, Skew: n.Skew, Images: images}, err
	})
	if err := partial(w, nodes, errs); err != nil {
		return nil, err
	}
	var answered []*fleet.Node
	for i, n := range lists {
		if errs[i] == nil {
			answered = append(answered, n)
		}
	}
	return answered, nil
}

func (s *Server) askImages(ctx context.Context, n *fleet.Node, version string, q url.Values) ([]*fleet.Image, error) {
	b, err := s.ask(ctx, n, http.MethodGet, version, "/images/json", q, nil)
	if err != nil {
		return nil, err
	}
	raws, err := rawjson.Array(b)
	if err != nil {
		return nil, fmt.Errorf("node %s: image list: %w", n.Name, err)
	}
	images := make([]*fleet.Image, 0, len(raws))
	for _, raw := range raws {
		var row struct {
			ID                    string `json:"Id"`
			RepoTags, RepoDigests []string
			Labels                map[string]string
			Created, Size         int64
		}
		if err := decode(n, "image list", raw, &row); err != nil {
			return nil, err
		}
		images = append(images, &fleet.Image{
			ID: row.ID, RepoTags: named(row.RepoTags), RepoDigests: named(row.RepoDigests),
			Labels: row.Labels, Created: row.Created, Size: row.Size, Row: raw,
		})
	}
	return images, nil
}

// named drops the placeholders that engines before 24 list for images without names.
func named(refs []string) []string {
	return slices.DeleteFunc(refs, func(r string) bool { return strings.HasPrefix(r, "<none>") })
}

// mergeImages makes one row of each image, the youngest first. A tag that means different images is shown with the one that
// it means in the fleet.
func (s *Server) mergeImages(ctx context.Context, nodes []*fleet.Node) []*imageRow {
	same := s.sameness(ctx)
	rows := map[string]*imageRow{}
	byID := map[string]*fleet.Image{}
	tagged := map[string][]fleet.ImageRef{}
	for _, n := range nodes {
		for _, i := range n.Images {
			row := rows[same.key(i.ID)]
			if row == nil {
				row = &imageRow{first: i}
				rows[same.key(i.ID)] = row
			}
			if byID[i.ID] == nil {
				byID[i.ID] = i
				row.ids = append(row.ids, i.ID)
			}
			for _, d := range i.RepoDigests {
				if !slices.Contains(row.digests, d) {
					row.digests = append(row.digests, d)
				}
			}
			for _, t := range i.RepoTags {
				tagged[t] = append(tagged[t], fleet.ImageRef{Node: n, Image: i})
			}
		}
	}
	j := judge{s: s, same: same}
	for tag, found := range tagged {
		row := rows[same.key(j.winner(ctx, tag, found))]
		row.tags = append(row.tags, tag)
	}
	list := make([]*imageRow, 0, len(rows))
	for _, row := range rows {
		row.first = byID[s.face(same, row.ids)]
		slices.Sort(row.tags)
		slices.Sort(row.digests)
		list = append(list, row)
	}
	slices.SortFunc(list, func(a, b *imageRow) int {
		return cmp.Or(-cmp.Compare(a.first.Created, b.first.Created), strings.Compare(a.first.ID, b.first.ID))
	})
	return list
}

// encode is the engine's row with the names that the fleet knows, in the form of the client's API version.
func (row *imageRow) encode(version string) ([]byte, error) {
	o, err := rawjson.ParseTrusted(row.first.Row)
	if err != nil {
		return nil, fmt.Errorf("row of image %s: %w", row.first.ID, err)
	}
	tags, digests := row.tags, row.digests
	old := fleet.CompareVersions(version, "1.43") < 0
	if old && len(tags) == 0 && len(digests) == 0 {
		tags, digests = []string{"<none>:<none>"}, []string{"<none>@<none>"}
	}
	if !old {
		tags, digests = append([]string{}, tags...), append([]string{}, digests...)
	}
	o.Set("RepoTags", tags)
	o.Set("RepoDigests", digests)
	if fleet.CompareVersions(version, "1.44") < 0 && !o.Has("VirtualSize") && o.Has("Size") {
		o.SetRaw("VirtualSize", o.Get("Size"))
	}
	return o.Bytes(), nil
}

// imageListing is a parsed GET /images/json.
type imageListing struct {
	f            filters
	dangling     bool
	isDangling   bool // the filter was given
	before       time.Time
	since, until time.Time
	exact        func(*fleet.Image) time.Time
}

func (s *Server) parseImageListing(r *request, q url.Values) (*imageListing, error) {
	f, err := parseFilters(q, "before", "dangling", "label", "node", "reference", "since", "until")
	if err != nil {
		return nil, err
	}
	if v := q.Get("filter"); v != "" && fleet.CompareVersions(r.version, "1.41") < 0 {
		f["reference"] = append(f["reference"], v)
	}
	l := &imageListing{f: f, exact: func(i *fleet.Image) time.Time { return time.Unix(i.Created, 0) }}
	if l.dangling, l.isDangling, err = f.boolean("dangling"); err != nil {
		return nil, err
	}
	for _, pattern := range f["reference"] {
		if _, err := path.Match(pattern, ""); err != nil {
			return nil, &statusError{status: http.StatusInternalServerError, message: err.Error()}
		}
	}
	for _, v := range f["until"] {
		if l.until, err = moment(v, s.o.Now()); err != nil {
			return nil, invalidf("invalid filter 'until=%s': %v", v, err)
		}
	}
	return l, s.imageBounds(r, l)
}

// imageBounds resolves before and since, which name images. Lists tell whole seconds, so images of the same second are
// inspected.
func (s *Server) imageBounds(r *request, l *imageListing) error {
	for _, b := range []struct {
		name string
		at   *time.Time
	}{{"before", &l.before}, {"since", &l.since}} {
		for _, ref := range l.f[b.name] {
			img, err := s.findImage(r.Context(), ref)
			if err != nil {
				if errors.As(err, new(*fleet.NotFoundError)) {
					return noSuchImage(ref)
				}
				return err
			}
			if *b.at, err = s.createdAt(r, img); err != nil {
				return err
			}
		}
	}
	l.exact = func(i *fleet.Image) time.Time {
		at := time.Unix(i.Created, 0)
		if i.Created != l.before.Unix() && i.Created != l.since.Unix() {
			return at
		}
		if img, err := s.findImage(r.Context(), i.ID); err == nil {
			if exact, err := s.createdAt(r, img); err == nil {
				return exact
			}
		}
		return at // it went away meanwhile
	}
	return nil
}

func (s *Server) createdAt(r *request, img *image) (time.Time, error) {
	h := img.holders[0]
	ctx, cancel := context.WithTimeout(r.Context(), listDeadline)
	defer cancel()
	b, err := s.ask(ctx, h.Node, http.MethodGet, r.version, "/images/"+h.Image.ID+"/json", nil, nil)
	if err != nil {
		return time.Time{}, fmt.Errorf("node %s: inspect image: %w", h.Node.Name, err)
	}
	var i struct{ Created time.Time }
	return i.Created, decode(h.Node, "inspect image", b, &i)
}

// match applies the filters by the rules of moby's image list, and takes away the names that the filter reference does not
// ask for.
func (l *imageListing) match(row *imageRow) bool {
	i := row.first
	switch {
	case !l.before.IsZero() && !l.exact(i).Before(l.before):
		return false
	case !l.since.IsZero() && !l.exact(i).After(l.since):
		return false
	case !l.until.IsZero() && !time.Unix(i.Created, 0).Before(l.until):
		return false
	case !l.f.labels("label", func(k string) (string, bool) { v, ok := i.Labels[k]; return v, ok }):
		return false
	case l.isDangling && l.dangling && len(row.tags) > 0:
		return false
	case l.isDangling && !l.dangling && len(row.tags)+len(row.digests) == 0:
		return false
	}
	if !l.f.has("reference") {
		return true
	}
	row.tags = slices.DeleteFunc(row.tags, func(t string) bool { return !l.refers(t) })
	row.digests = slices.DeleteFunc(row.digests, func(d string) bool { return !l.refers(d) })
	return len(row.tags)+len(row.digests) > 0
}

func (l *imageListing) refers(ref string) bool {
	n, err := reference.ParseNormalizedNamed(ref)
	if err != nil {
		return false
	}
	return slices.ContainsFunc(l.f["reference"], func(pattern string) bool {
		ok, err := reference.FamiliarMatch(pattern, n)
		return ok && err == nil // patterns were checked
	})
}

// moment reads the time of a filter: seconds since 1970, a date, or how long ago.
func moment(v string, now time.Time) (time.Time, error) {
	var seconds json.Number
	if err := json.Unmarshal([]byte(v), &seconds); err == nil {
		f, err := seconds.Float64()
		return time.UnixMilli(int64(f * 1000)), err
	}
	if d, err := time.ParseDuration(v); err == nil {
		return now.Add(-d), nil
	}
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04:05", "2006-01-02T15:04", "2006-01-02T15", "2006-01-02Z07:00", "2006-01-02"} {
		if t, err := time.ParseInLocation(layout, v, time.Local); err == nil {
			return t, nil
		}
	}
	return time.Time{}, fmt.Errorf("not a time: %q", v)
}
