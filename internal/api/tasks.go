package api

import (
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/moby/moby/api/types/swarm"

	"berth/internal/fleet"
)

// listTasks shows the containers of a node as tasks, for docker node ps. The client asks for the service of each to put its
// name in front of the slot; it takes the ID where there is none, so the container's name is the ID.
func listTasks(s *Server, w http.ResponseWriter, r *request) error {
	f, err := anyFilters(r.URL.Query())
	if err != nil {
		return err
	}
	if !f.has("node") {
		return unavailable(noSwarm)
	}
	if f, err = parseFilters(r.URL.Query(), "node", "id", "name", "label", "service", "desired-state", "_up-to-date"); err != nil {
		return err
	}
	s.awaitReady(r.Context())
	s.fleet.Settle(r.Context(), fleet.KindContainer)
	tasks := []swarm.Task{}
	for _, ref := range f["node"] {
		m, err := s.member(ref)
		if err != nil {
			return err
		}
		notes := s.moveNotes(m.Node)
		for _, c := range m.Containers {
			t := s.task(m, c)
			if note, ok := notes[c.ID]; ok {
				t.Status.Err = note
			}
			if note := s.rescueNote(c); note != "" {
				t.Status.Err += "; " + note
			}
			if f.any("id", func(v string) bool { return strings.HasPrefix(t.ID, v) }) &&
				f.any("name", func(v string) bool { return strings.HasPrefix(c.Name, v) }) && f.any("service", func(v string) bool { return v == c.Name }) &&
				f.equal("desired-state", string(t.DesiredState)) && f.labels("label", c.Labels.Lookup) {
				tasks = append(tasks, t)
			}
		}
	}
	slices.SortFunc(tasks, func(a, b swarm.Task) int { return strings.Compare(a.ServiceID, b.ServiceID) })
	writeJSON(w, http.StatusOK, tasks)
	return nil
}

// moveNotes say of the containers of a node that is drained what becomes of them, by ID.
func (s *Server) moveNotes(n *fleet.Node) map[string]string {
	notes := map[string]string{}
	if n.Availability != fleet.Drain || s.o.Moves == nil {
		return notes
	}
	r := s.o.Moves.Report(n)
	for _, x := range r.Stuck {
		notes[x.ID] = "not moved: " + strings.Join(x.Reasons, "; ")
	}
	for _, x := range r.Moving {
		notes[x.ID] = strings.TrimSpace("moves: " + x.Step + " " + x.To)
	}
	return notes
}

// rescueNote says why a container of a lost node does not run elsewhere yet.
func (s *Server) rescueNote(c *fleet.Container) string {
	if s.o.Rescues == nil || c.Reschedule == fleet.RescheduleOff {
		return ""
	}
	if why := s.o.Rescues.Waiting(c.ID); why != "" {
		return "not rescheduled: " + why
	}
	return ""
}

func (s *Server) task(m member, c *fleet.Container) swarm.Task {
	t := swarm.Task{ID: c.ID, ServiceID: c.Name, Slot: 1, NodeID: m.object, DesiredState: swarm.TaskStateShutdown}
	t.CreatedAt = time.Unix(0, c.Created).UTC()
	t.UpdatedAt, t.Labels = t.CreatedAt, maps.Collect(c.Labels.All())
	t.Spec.ContainerSpec = &swarm.ContainerSpec{Image: c.Image}
	if c.Running() {
		t.DesiredState = swarm.TaskStateRunning
	}
	t.Status = swarm.TaskStatus{
		State: taskState(c), Timestamp: t.CreatedAt, ContainerStatus: &swarm.ContainerStatus{ContainerID: c.ID, ExitCode: c.ExitCode},
	}
	switch {
	case c.Running() && !c.StartedAt.IsZero():
		t.Status.Timestamp = c.StartedAt.UTC()
	case !c.FinishedAt.IsZero():
		t.Status.Timestamp = c.FinishedAt.UTC()
	}
	if m.State != fleet.Healthy {
		t.Status.State, t.Status.Err = swarm.TaskStateOrphaned, "node "+m.Name+" does not answer"
	}
	return t
}

// taskState is the nearest word that Swarm mode has for the state of a container.
func taskState(c *fleet.Container) swarm.TaskState {
	switch c.State {
	case "created":
		return swarm.TaskStateReady
	case "running", "paused":
		return swarm.TaskStateRunning
	case "restarting":
		return swarm.TaskStateStarting
	case "removing":
		return swarm.TaskStateRemove
	case "exited":
		if c.ExitCode == 0 {
			return swarm.TaskStateComplete
		}
	}
	return swarm.TaskStateFailed
}
