package rescue

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"berth/internal/fleet"
)

const (
	censusLimit  = 5 * time.Second // of one node's list
	censusAtOnce = 16
)

// census has the snapshot show what was made for lost containers, if there may be something that it does not show yet: a manager that has just
// become the primary knows what the one before did by events only, which may be under way, and so does one whose call was cut off.
// A node that does not answer is not waited for; if it has a second one, look finds it when it does.
func (r *Rescuer) census(ctx context.Context) {
	r.mu.Lock()
	unsure := r.unsure
	r.unsure = false
	r.mu.Unlock()
	if !unsure {
		return
	}
	var g errgroup.Group
	g.SetLimit(censusAtOnce)
	for _, n := range r.o.Fleet.Whole() {
		if n.State == fleet.Healthy {
			g.Go(func() error {
				if err := r.count(ctx, n); err != nil && ctx.Err() == nil {
					r.o.Log.Warn("a node does not say what it has", "node", n.Name, "error", err)
				}
				return nil
			})
		}
	}
	_ = g.Wait() // each has said what was wrong
}

// count looks for containers of a node that the snapshot does not show as they are.
func (r *Rescuer) count(ctx context.Context, n *fleet.Node) error {
	q := url.Values{"all": {"1"}, "filters": {`{"label":["` + fleet.LabelRescued + `"]}`}}
	b, err := r.eng.Ask(ctx, censusLimit, n, http.MethodGet, "/containers/json", q, nil)
	if err != nil {
		return err
	}
	var rows []struct {
		ID    string `json:"Id"`
		Names []string
		State string
	}
	if err := json.Unmarshal(b, &rows); err != nil {
		return err
	}
	for _, row := range rows {
		c, known := n.Find(row.ID)
		if !known || c.State != row.State || len(row.Names) == 0 || c.Name != strings.TrimPrefix(row.Names[0], "/") {
			r.see(ctx, n, row.ID)
		}
	}
	return nil
}
