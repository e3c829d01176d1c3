package move

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"path"
	"regexp"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"berth/internal/enginecall"
	"berth/internal/fleet"
)

// LabelCopied is on a volume that was copied: the node and the time of creation of the original, which is released once it is
// in use nowhere.
const LabelCopied = "berth.copied"

// copyLimit bounds the copy of one volume, and its second reading.
const copyLimit = 12 * time.Hour

// volume is a local volume that a container mounts.
type volume struct {
	mount
	CreatedAt string
	Labels    map[string]string
	Options   map[string]string
	// readOnlyRoot: of the container's files only its volumes can be written.
	readOnlyRoot bool
	users        []string // names of other containers of its node that mount it
}

var nameless = regexp.MustCompile(`^[0-9a-f]{64}$`)

// named tells a volume that somebody named from one that an engine made for one container.
func (v volume) named() bool { return !nameless.MatchString(v.Name) }

func (v volume) shown() string {
	if v.named() {
		return v.Name
	}
	return "at " + v.Destination
}

// on tells whether a node has a volume of the same name that is no copy of this one.
func (v volume) on(n, from *fleet.Node) bool {
	return slices.ContainsFunc(n.Volumes, func(o *fleet.Volume) bool { return o.Name == v.Name && o.Labels[LabelCopied] != v.mark(from) })
}

// mark is what the copy's label says.
func (v volume) mark(from *fleet.Node) string { return from.ID + " " + v.CreatedAt }

// reasons against carrying the volume along.
func (v volume) reasons(n *fleet.Node, id string, wanted bool) []string {
	if !wanted {
		return []string{"it keeps data in local volume " + v.shown()}
	}
	var why []string
	if v.Driver != "local" {
		why = append(why, "volume "+v.shown()+" is of driver "+v.Driver)
	}
	if len(v.Options) > 0 {
		why = append(why, "volume "+v.shown()+" has options, so its data may be elsewhere")
	}
	if !v.RW {
		why = append(why, "volume "+v.shown()+" is mounted read-only, so it cannot be filled")
	}
	for _, user := range v.users {
		why = append(why, "volume "+v.shown()+" is used by "+user+", too")
	}
	return why
}

// volumes asks for those that a container mounts and that are on its node only.
func (m *Mover) volumes(ctx context.Context, n *fleet.Node, c *container) ([]volume, error) {
	var all []volume
	for _, mt := range c.Mounts {
		if mt.Type != "volume" {
			continue
		}
		b, err := m.eng.Ask(ctx, callLimit, n, http.MethodGet, "/volumes/"+mt.Name, nil, nil)
		if err != nil {
			return nil, err
		}
		v := volume{mount: mt, readOnlyRoot: c.HostConfig.ReadonlyRootfs}
		var row struct {
			Driver, Scope, CreatedAt string
			Labels, Options          map[string]string
		}
		if err := json.Unmarshal(b, &row); err != nil {
			return nil, fmt.Errorf("node %s: volume %s: %w", n.Name, mt.Name, err)
		}
		if row.Scope == "global" {
			continue
		}
		v.Driver, v.CreatedAt, v.Labels, v.Options = row.Driver, row.CreatedAt, row.Labels, row.Options
		for _, x := range n.Containers {
			if x.ID != c.ID && slices.ContainsFunc(x.Mounts, func(o fleet.Mount) bool { return o.Type == "volume" && o.Name == mt.Name }) {
				v.users = append(v.users, x.Name)
			}
		}
		all = append(all, v)
	}
	return all, nil
}

// makeVolume makes a named volume on the target, marked as a copy. Nameless ones come with the container.
func (m *Mover) makeVolume(ctx context.Context, from, to *fleet.Node, v volume) error {
	if !v.named() {
		return nil
	}
	// One that an interrupted move left may hold half of the data.
	if err := m.dropCopy(ctx, to, v.Name, v.mark(from)); err != nil {
		return err
	}
	labels := map[string]string{LabelCopied: v.mark(from)}
	for k, value := range v.Labels {
		if k != LabelCopied {
			labels[k] = value
		}
	}
	b, err := json.Marshal(map[string]any{"Name": v.Name, "Driver": v.Driver, "Labels": labels})
	if err != nil {
		return err
	}
	answer, err := m.eng.Ask(ctx, callLimit, to, http.MethodPost, "/volumes/create", nil, b)
	if err != nil {
		return err
	}
	var made struct{ Labels map[string]string }
	if err := json.Unmarshal(answer, &made); err != nil {
		return fmt.Errorf("node %s: create volume %s: %w", to.Name, v.Name, err)
	}
	if made.Labels[LabelCopied] != labels[LabelCopied] {
		return fmt.Errorf("node %s has a volume %s of its own", to.Name, v.Name)
	}
	return nil
}

// copyVolume streams a volume from the old container, which is stopped, to the new one, and compares what arrived.
func (m *Mover) copyVolume(ctx context.Context, from *fleet.Node, old string, to *fleet.Node, id string, v volume) error {
	ctx, cancel := context.WithTimeoutCause(ctx, copyLimit, fmt.Errorf("not done within %s", copyLimit))
	defer cancel()
	get, into := road(v.Destination, v.readOnlyRoot)
	source, err := m.eng.archive(ctx, from, old, get)
	if err != nil {
		return err
	}
	defer source.Body.Close()
	sent := newDigest()
	seen, see := io.Pipe()
	body, put := io.Pipe()
	g, work := errgroup.WithContext(ctx)
	stop := context.AfterFunc(work, func() { source.Body.Close() }) //nolint:errcheck // only so that nobody reads on
	defer stop()
	g.Go(func() error { return pump(source.Body, see, put) })
	g.Go(func() error {
		err := sent.read(seen)
		seen.CloseWithError(err) //nolint:errcheck // never fails
		return err
	})
	g.Go(func() error {
		defer body.Close() //nolint:errcheck // never fails
		res, err := m.eng.Open(work, to, http.MethodPut, "/containers/"+id+"/archive", url.Values{"path": {into}}, body, "application/x-tar")
		if err != nil {
			return err
		}
		return res.Body.Close()
	})
	if err := g.Wait(); err != nil {
		return err
	}
	copied, err := m.eng.archive(ctx, to, id, get)
	if err != nil {
		return err
	}
	defer copied.Body.Close()
	arrived := newDigest()
	if err := arrived.read(copied.Body); err != nil {
		return fmt.Errorf("read the copy: %w", err)
	}
	if diff := sent.compare(arrived); diff != "" {
		return fmt.Errorf("the copy differs: %s", diff)
	}
	m.o.Log.Info("volume copied", "volume", v.Name, "from", from.Name, "to", to.Name, "files", len(sent.entries), "sum", sent.sum())
	return nil
}

// road is how a directory is taken out of a container and into another: by itself, together with its owner and mode, into its
// parent. Where the parent cannot be written only its contents can be taken; that its own owner or mode differ shows then.
func road(dir string, readOnly bool) (get, put string) {
	dir = path.Clean("/" + dir)
	if readOnly {
		return dir + "/.", dir
	}
	return dir, path.Dir(dir)
}

// archive opens a directory of a container as a tar.
func (e caller) archive(ctx context.Context, n *fleet.Node, id, path string) (*http.Response, error) {
	return e.Open(ctx, n, http.MethodGet, "/containers/"+id+"/archive", url.Values{"path": {path}}, nil, "")
}

// dropCopies removes the named volumes that were made on the target for a move that is undone.
func (m *Mover) dropCopies(ctx context.Context, from, to *fleet.Node, volumes []volume) error {
	var failed error
	for _, v := range volumes {
		if v.named() {
			failed = errors.Join(failed, m.dropCopy(ctx, to, v.Name, v.mark(from)))
		}
	}
	return failed
}

// dropCopy removes a volume whose mark begins so. One that has no mark is somebody's own.
func (m *Mover) dropCopy(ctx context.Context, n *fleet.Node, name, mark string) error {
	b, err := m.eng.Ask(ctx, callLimit, n, http.MethodGet, "/volumes/"+name, nil, nil)
	if enginecall.IsStatus(err, http.StatusNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	var row struct{ Labels map[string]string }
	if err := json.Unmarshal(b, &row); err != nil {
		return fmt.Errorf("node %s: volume %s: %w", n.Name, name, err)
	}
	if !strings.HasPrefix(row.Labels[LabelCopied], mark) {
		return nil
	}
	_, err = m.eng.Ask(ctx, callLimit, n, http.MethodDelete, "/volumes/"+name, nil, nil)
	m.look(ctx, n, fleet.KindVolume, "")
	return err
}

// releaseVolumes removes the originals of named volumes that were copied, unless somebody else uses them by now.
func (m *Mover) releaseVolumes(ctx context.Context, from *fleet.Node, volumes []volume) error {
	var failed error
	for _, v := range volumes {
		if !v.named() {
			continue
		}
		b, err := m.eng.Ask(ctx, callLimit, from, http.MethodGet, "/volumes/"+v.Name, nil, nil)
		if enginecall.IsStatus(err, http.StatusNotFound) {
			continue
		}
		var row struct{ CreatedAt string }
		if err == nil {
			err = json.Unmarshal(b, &row)
		}
		if err == nil && row.CreatedAt == v.CreatedAt {
			_, err = m.eng.Ask(ctx, callLimit, from, http.MethodDelete, "/volumes/"+v.Name, nil, nil)
		}
		failed = errors.Join(failed, err)
	}
	if len(volumes) > 0 {
		m.look(ctx, from, fleet.KindVolume, "")
	}
	return failed
}
