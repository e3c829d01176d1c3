package rescue

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"berth/internal/fleet"
)

// inspection is what is read of one.
type inspection struct {
	ID    string `json:"Id"`
	Name  string
	Image string // its ID
	State struct {
		Status              string
		Running, Restarting bool
		FinishedAt          time.Time
	}
	Config struct {
		Image       string
		Labels      map[string]string
		StopTimeout *int
	}
	HostConfig struct {
		AutoRemove    bool
		RestartPolicy struct{ Name string }
	}
	Mounts []struct{ Type, Name string }
}

func parse(b []byte) (*inspection, error) {
	i := new(inspection)
	if err := json.Unmarshal(b, i); err != nil {
		return nil, fmt.Errorf("inspect: %w", err)
	}
	if i.ID == "" {
		return nil, fmt.Errorf("inspect: a container without an ID")
	}
	i.Name = strings.TrimPrefix(i.Name, "/")
	return i, nil
}

func (i *inspection) runs() bool { return i.State.Running || i.State.Restarting }

// record is what is kept of one container, beside its inspection.
type record struct {
	ID, Name, SwarmID string
	Policy            fleet.Reschedule
	Node              site
	// Run: it is to be started. It stays so for a moment after it ended: an engine that shuts down ends its containers first.
	Run   bool
	Ended time.Time // since when it does not run, if Run
	// Image is as the container was created with, ImageID what that was.
	Image, ImageID string
	AutoRemove     bool
	Volumes        []volume // that only its node has
	Was            []string // IDs of those whose place it took
}

// site is where a node was.
type site struct{ ID, Addr, Name string }

// node stands for a node that may not be in the fleet any more.
func (s site) node() *fleet.Node { return &fleet.Node{ID: s.ID, Addr: s.Addr, Name: s.Name} }

// volume is a local one.
type volume struct {
	Name   string
	Labels map[string]string
}

// named tells a volume that somebody named from one that an engine made for one container.
func (v volume) named() bool {
	return len(v.Name) != 64 || strings.Trim(v.Name, "0123456789abcdef") != ""
}

func (v volume) shown() string {
	if v.named() {
		return "volume " + v.Name
	}
	return "a volume without a name"
}

func (r *record) volumeNames() []string {
	var names []string
	for _, v := range r.Volumes {
		names = append(names, v.Name)
	}
	return names
}

// newRecord reads an inspection. What the container was before says whether it ended a moment ago.
func newRecord(n *fleet.Node, i *inspection, volumes []volume, before *record, now time.Time) *record {
	labels := fleet.LabelsOf(i.Config.Labels)
	r := &record{
		ID: i.ID, Name: i.Name, SwarmID: i.Config.Labels[fleet.LabelSwarmID], Policy: fleet.ParseReschedule(labels),
		Node: site{n.ID, n.Addr, n.Name}, Image: i.Config.Image, ImageID: i.Image, AutoRemove: i.HostConfig.AutoRemove, Volumes: volumes,
	}
	if m := fleet.ParseMove(labels); m != nil {
		r.Was = append(r.Was, m.From)
	}
	toStart := false // it has a place whose last one ran
	if m := fleet.ParseRescue(labels); m != nil {
		r.Was = append(r.Was, m.From...)
		toStart = m.Run && len(r.Was) == len(m.From)
	}
	switch {
	case i.runs(), i.State.Status == "created" && toStart:
		r.Run = true
	case i.State.Status != "created" && before != nil && before.Run:
		r.Run, r.Ended = true, before.Ended
		if r.Ended.IsZero() {
			r.Ended = now
			if at := i.State.FinishedAt.Add(-n.Skew); !i.State.FinishedAt.IsZero() && at.Before(now) {
				r.Ended = at
			}
		}
		r.settle(now)
	}
	return r
}

// farewell is how long before its node a container may have ended and still count as ended by the node's end.
const farewell = 30 * time.Second

// settle forgets that the container ran if it ended while its node went on.
func (r *record) settle(now time.Time) (changed bool) {
	if !r.Run || r.Ended.IsZero() || now.Sub(r.Ended) < farewell {
		return false
	}
	r.Run, r.Ended = false, time.Time{}
	return true
}
