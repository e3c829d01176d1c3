package cluster

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	mathrand "math/rand/v2"
	"net/http"
	"slices"
	"time"

	"berth/internal/engine"
	"berth/internal/fleet"
	"berth/internal/rawjson"
	"berth/internal/schedule"
	"berth/internal/tracing"
)

const (
	// createLimit ends a create that an engine works on without an end.
	createLimit = 10 * time.Minute
	// tries bounds how many nodes are asked for one create.
	tries = 8
)

// build makes the create request for a node: the URL with its version and query, and the body, with the name and labelled
// with our own labels. claim finds host ports that are unique over the fleet, and holds them like the request's own; it is nil
// where engines choose. build is called once for each node that is tried.
type build = func(n *fleet.Node, name string, labels map[string]string, claim func([]fleet.Port) ([]fleet.Port, error)) (*http.Request, error)

// Create places a container and has its engine create it. The answer is the engine's, whatever its status, with the whole
// body at hand; on 201 the snapshot already shows the container. Its name is held over the fleet meanwhile; one without a
// name is given one, as an engine would, but that nobody in the fleet has.
//
// Another node is tried only if the chosen one cannot have carried the create out, or if it stopped answering and the
// container that it may yet make will be removed by the Swarm ID.
func (c *Cluster) Create(ctx context.Context, r *schedule.Request, b build) (*http.Response, *fleet.Node, error) {
	if len(r.Rules.Affinities) > 0 {
		c.Settle(ctx, fleet.KindContainer) // of those that are new, the labels of their images are not known yet
	}
	ctx, leave, err := c.inOffice(ctx)
	if err != nil {
		return nil, nil, err
	}
	defer leave()
	seat, name, err := c.sit(r)
	if err != nil {
		return nil, nil, err
	}
	defer c.seats.release(seat)
	ask := *r
	ask.Exclude = map[string]string{}
	for id, why := range r.Exclude {
		ask.Exclude[id] = why
	}
	if ask.Seed == 0 && ask.Name == "" {
		ask.Seed = mathrand.Uint64() // or all that have no name would be the same to the scheduler
	}
	refused := 0
	for try := 0; ; try++ {
		n, err := c.choose(ctx, seat, &ask)
		if err != nil {
			return nil, nil, err
		}
		swarmID := newID()
		labels := ownLabels(ctx, swarmID)
		res, err := c.createOn(ctx, n, swarmID, func() (*http.Request, error) {
			return b(n, name, labels, c.claimer(seat, &ask))
		})
		switch {
		case err == nil && res.StatusCode == http.StatusConflict && try < tries && r.Name == "":
			name = c.rename(seat, name) // somebody took it on that very node
			continue
		case err == nil && res.StatusCode == http.StatusConflict && try < tries && c.dropOrphan(ctx, n, r.Name):
			continue
		case err == nil && res.StatusCode < 500:
			if res.StatusCode == http.StatusCreated {
				_, end := tracing.Step(ctx, "read back")
				err = c.promise(ctx, seat, n, made{name, labels, r}, res)
				end(err)
			}
			return res, n, err
		case err == nil:
			if refused++; refused > c.o.CreateRetry || try >= tries {
				return res, n, nil
			}
			ask.Exclude[n.ID] = "refused it: " + answerText(res)
		default:
			var u *engine.UnreachableError
			if ctx.Err() != nil || try >= tries || !errors.As(err, &u) {
				return nil, n, err
			}
			ask.Exclude[n.ID] = "did not answer"
			c.doubts.add(ctx, ask.Exclude)
		}
		c.o.Log.Warn("create is tried elsewhere", "container", r.Name, "node", n.Name, "error", err)
	}
}

// sit makes a reservation with the name alone, or with one of our own.
func (c *Cluster) sit(r *schedule.Request) (seat uint64, name string, err error) {
	c.seats.mu.Lock()
	defer c.seats.mu.Unlock()
	s := c.seats.state
	s.next++
	if r.Name == "" {
		return s.next, s.invent(c.Snapshot(), s.next), nil
	}
	return s.next, r.Name, s.claim(c.Snapshot(), s.next, r.Name, "")
}

// rename gives a reservation another name of our own.
func (c *Cluster) rename(seat uint64, name string) string {
	c.seats.mu.Lock()
	defer c.seats.mu.Unlock()
	delete(c.seats.state.names, name)
	return c.seats.state.invent(c.Snapshot(), seat)
}

// choose is take, told to those who watch.
func (c *Cluster) choose(ctx context.Context, seat uint64, r *schedule.Request) (*fleet.Node, error) {
	_, end := tracing.Step(ctx, "place")
	began := time.Now()
	n, err := c.take(seat, r)
	if c.o.Placed != nil {
		c.o.Placed(time.Since(began), err)
	}
	end(err)
	if err == nil {
		tracing.Tell(ctx, "node", n.Name)
	}
	return n, err
}

// take asks the scheduler and holds the place that it gives.
func (c *Cluster) take(seat uint64, r *schedule.Request) (*fleet.Node, error) {
	c.seats.mu.Lock()
	defer c.seats.mu.Unlock()
	s := c.seats.state
	snap := c.Snapshot()
	n, err := schedule.Place(schedule.View{Snapshot: snap, Pending: s.pending(seat)}, r, c.o.Policy)
	if err != nil {
		return nil, err
	}
	place, _ := snap.Position(n.ID, 0)
	s.taken[seat] = schedule.Pending{NodeID: n.ID, Request: r, Place: place}
	return n, nil
}

// Place tells where a create would go now, without reserving anything.
func (c *Cluster) Place(r *schedule.Request) (*fleet.Node, error) {
	c.seats.mu.Lock()
	defer c.seats.mu.Unlock()
	return schedule.Place(c.view(0), r, c.o.Policy)
}

// View is what the scheduler would see now.
func (c *Cluster) View() schedule.View {
	c.seats.mu.Lock()
	defer c.seats.mu.Unlock()
	return c.view(0)
}

// Policy is how the scheduler decides.
func (c *Cluster) Policy() schedule.Policy { return c.o.Policy }

func (c *Cluster) view(except uint64) schedule.View {
	return schedule.View{Snapshot: c.Snapshot(), Pending: c.seats.state.pending(except)}
}

// createOn sends the create to one node. If the engine may have carried it out although it did not say so, what it made is
// removed when it shows.
func (c *Cluster) createOn(ctx context.Context, n *fleet.Node, swarmID string, b func() (*http.Request, error)) (*http.Response, error) {
	e, err := c.engineOf(n.ID)
	if err != nil {
		return nil, &engine.UnreachableError{Node: n.Name, Err: err}
	}
	req, err := b()
	if err != nil {
		return nil, err
	}
	// The engine finishes what it began even if the client leaves, and the answer tells us what to remove then.
	if err := stillInOffice(ctx); err != nil {
		return nil, err
	}
	work, stop := c.doubts.watch(ctx, e, n.Name)
	res, err := e.Do(work, req)
	if err == nil {
		err = buffer(res)
	}
	stop()
	if err != nil {
		var u *engine.UnreachableError
		if !errors.As(err, &u) || u.Sent {
			c.seats.abandon(swarmID, n.ID)
			e.Republish() // it may be in the picture already
		}
		return nil, err
	}
	if err := cmp.Or(context.Cause(ctx), stillInOffice(ctx)); err != nil {
		if res.StatusCode == http.StatusCreated {
			c.discard(e, n, res)
		}
		return nil, err
	}
	return res, nil
}

// buffer reads the whole answer, so that it can be read after its connection is free.
func buffer(res *http.Response) error {
	room := min(max(res.ContentLength, 0), 16<<20) + bytes.MinRead // which is what is asked for once more, to see the end
	whole := bytes.NewBuffer(make([]byte, 0, room))
	_, err := whole.ReadFrom(io.LimitReader(res.Body, 16<<20))
	b := whole.Bytes()
	closeErr := res.Body.Close()
	if err != nil {
		return err
	}
	res.Body = io.NopCloser(bytes.NewReader(b))
	res.ContentLength = int64(len(b))
	return closeErr
}

// answered reads the ID of an answer to a create, leaving the body readable.
func answered(res *http.Response) (string, error) {
	b, err := io.ReadAll(res.Body)
	if err != nil {
		return "", err
	}
	res.Body = io.NopCloser(bytes.NewReader(b))
	if id, ok := rawjson.Text(b, "Id"); ok && id != "" {
		return id, nil
	}
	return "", fmt.Errorf("the engine created a container but did not say which: %.200s", b)
}

func answerText(res *http.Response) string {
	b, err := io.ReadAll(res.Body)
	if err != nil {
		return res.Status
	}
	res.Body = io.NopCloser(bytes.NewReader(b))
	var m struct{ Message string }
	if json.Unmarshal(b, &m) == nil && m.Message != "" {
		return m.Message
	}
	return res.Status
}

// made is what an engine was asked for.
type made struct {
	name    string
	labels  map[string]string // ours
	request *schedule.Request
}

// promise puts the new container into the picture, and asks the engine only for what the request does not tell.
func (c *Cluster) promise(ctx context.Context, seat uint64, n *fleet.Node, m made, res *http.Response) error {
	id, err := answered(res)
	if err != nil {
		return err
	}
	e, err := c.engineOf(n.ID)
	if err != nil {
		return nil //nolint:nilerr // it was created; that its node left since is for the next request to find out
	}
	r := m.request
	if r.HostNetwork {
		// There the ports that its image exposes count too.
		if err := e.RefreshDetails(ctx, id); err != nil {
			c.o.Log.Warn("created, but not seen yet", "node", n.Name, "container", id, "error", err)
		}
		return nil
	}
	labels := maps.Clone(m.labels)
	maps.Copy(labels, r.Labels) // which may have a Swarm ID of an earlier life
	var networks []fleet.Attachment
	for _, name := range r.Overlays {
		networks = append(networks, fleet.Attachment{Name: name}) // the start has to know
	}
	return e.Promise(fleet.Container{
		ID: id, Networks: networks, Name: m.name, Image: r.Image, Labels: fleet.LabelsOf(labels),
		Memory: r.Memory, NanoCPUs: r.NanoCPUs, Wanted: wanted(c.heldPorts(seat)), Exposed: r.Exposed,
	})
}

// wanted leaves out the ports for which the engine chooses the host's.
func wanted(ports []fleet.Port) []fleet.Port {
	return slices.DeleteFunc(slices.Clone(ports), func(p fleet.Port) bool { return p.HostPort == 0 })
}

// discard removes a container of which nobody can be told: its client left, or this manager may not create any more.
func (c *Cluster) discard(e *engine.Engine, n *fleet.Node, res *http.Response) {
	id, err := answered(res)
	if err == nil {
		err = c.removeNow(e, n, id)
	}
	if err != nil {
		c.o.Log.Warn("a container that nobody was told of could not be removed", "node", n.Name, "error", err)
	}
}

// removeNow removes a container that nobody was told of.
func (c *Cluster) removeNow(e *engine.Engine, n *fleet.Node, id string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodDelete, n.Path(n.API, "/containers/"+id)+"?force=1&v=1", nil)
	if err != nil {
		return err
	}
	res, err := e.Do(ctx, r)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	// 409 says that it is being removed already.
	if res.StatusCode >= 300 && res.StatusCode != http.StatusNotFound && res.StatusCode != http.StatusConflict {
		return fmt.Errorf("remove container %s: %s", id, answerText(res))
	}
	e.Forget(id)
	return nil
}

// clean removes the abandoned containers that a node's new state shows. It is called while the engine publishes, so the
// calls are made by goroutines that Run waits for.
func (c *Cluster) clean(e *engine.Engine, n *fleet.Node) {
	if n.State != fleet.Healthy {
		return
	}
	for swarmID, id := range c.seats.found(n) {
		c.work.Go(func() {
			err := c.removeNow(e, n, id)
			if err != nil {
				c.seats.retry(swarmID)
				c.o.Log.Warn("a container that was made after its create was given up could not be removed", "node", n.Name, "container", id, "error", err)
				return
			}
			c.o.Log.Info("removed a container that was made after its create was given up", "node", n.Name, "container", id)
		})
	}
}

// dropOrphan removes the container that holds a name on a node if it is one whose create was given up. The fleet does not
// know it, so the name was free.
func (c *Cluster) dropOrphan(ctx context.Context, n *fleet.Node, name string) bool {
	e, err := c.engineOf(n.ID)
	if err != nil || name == "" || len(c.Snapshot().Named(name)) > 0 {
		return false
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, n.Path(n.API, "/containers/"+name+"/json"), nil)
	if err != nil {
		return false
	}
	res, err := e.Do(ctx, r)
	if err != nil {
		return false
	}
	defer res.Body.Close()
	var found struct {
		ID     string `json:"Id"`
		Config struct{ Labels map[string]string }
	}
	if err := json.NewDecoder(res.Body).Decode(&found); err != nil {
		return false
	}
	if res.StatusCode == http.StatusNotFound {
		return true // removed meanwhile
	}
	swarmID := found.Config.Labels[fleet.LabelSwarmID]
	return c.seats.isAbandoned(swarmID, n.ID) && c.removeNow(e, n, found.ID) == nil
}

func newID() string {
	var b [32]byte
	_, _ = rand.Read(b[:]) // never fails: crypto/rand.Read ends the program instead
	return hex.EncodeToString(b[:])
}
