package overlay

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/api/types/swarm"

	"berth/internal/fleet"
)

// nodesOf reads a fleet: names with what their engines say. "a" is in no swarm, "a:m" a manager, "a:w" a worker, "a:p" pending, "a:x" in
// another swarm; "-a:m" does not answer, "?a" never did, and "a!" can be in none.
func nodesOf(text string) []*fleet.Node {
	var managers []string
	var nodes []*fleet.Node
	for _, word := range strings.Fields(text) {
		n := &fleet.Node{State: fleet.Healthy, Swarm: fleet.Swarm{State: "inactive"}}
		name, state, _ := strings.Cut(word, ":")
		if rest, silent := strings.CutPrefix(name, "-"); silent {
			n.State, name = fleet.Unhealthy, rest
		}
		if rest, never := strings.CutPrefix(name, "?"); never {
			n.State, name, n.Swarm.State = fleet.Pending, rest, ""
		} else {
			n.EngineID = "E" + name
		}
		if rest, cannot := strings.CutSuffix(name, "!"); cannot {
			n.NoOverlay, name = "rootless engines cannot", rest
		}
		n.ID, n.Name, n.Addr, n.IP = "E"+name+"|"+name, name, name+":2376", "10.0.0.1"
		switch state {
		case "m":
			n.Swarm = fleet.Swarm{State: "active", NodeID: "S" + name, Manager: true, Cluster: "C"}
			managers = append(managers, "S"+name)
		case "w":
			n.Swarm = fleet.Swarm{State: "active", NodeID: "S" + name}
		case "p":
			n.Swarm = fleet.Swarm{State: "pending", NodeID: "S" + name}
		case "x":
			n.Swarm = fleet.Swarm{State: "active", NodeID: "S" + name, Managers: []string{"Sother"}}
		}
		nodes = append(nodes, n)
	}
	for _, n := range nodes {
		if len(n.Swarm.Managers) == 0 && n.Swarm.NodeID != "" {
			n.Swarm.Managers = managers
		}
	}
	return nodes
}

// membersOf reads the entries of a cluster: "a" a worker, "a*" a manager, "a*!" one that is not reachable, "a*?" one that has
// just been promoted, "-a" a node that is down, "(a)" an entry that berth has not labelled.
func membersOf(text string) []swarm.Node {
	var all []swarm.Node
	for i, word := range strings.Fields(text) {
		m := swarm.Node{Status: swarm.NodeStatus{State: swarm.NodeStateReady}, Spec: swarm.NodeSpec{Role: swarm.NodeRoleWorker}}
		name, down := strings.CutPrefix(word, "-")
		if down {
			m.Status.State = swarm.NodeStateDown
		}
		bare := strings.Trim(name, "()*!?")
		m.ID = "S" + bare
		if strings.Contains(name, "*") {
			m.Spec.Role = swarm.NodeRoleManager
			m.ManagerStatus = &swarm.ManagerStatus{Leader: i == 0, Reachability: swarm.ReachabilityReachable}
			if strings.Contains(name, "!") {
				m.ManagerStatus.Reachability = swarm.ReachabilityUnreachable
			}
			if strings.Contains(name, "?") {
				m.ManagerStatus = nil
			}
		}
		m.Description.Hostname = bare
		if !strings.HasPrefix(name, "(") {
			node, _, _ := strings.Cut(bare, "=") // "a=old" is an earlier life of a
			m.Spec.Labels = map[string]string{labelNode: node, labelAddr: node + ":2376"}
		}
		all = append(all, m)
	}
	return all
}

func TestPlan(t *testing.T) {
	for name, tt := range map[string]struct {
		nodes, members string
		foreign        bool
		after          time.Duration // since when all is as it is
		want           string
	}{
		"nothing yet":                        {nodes: "a b c", want: "form a"},
		"those that cannot are passed over":  {nodes: "a! b c", want: "form b"},
		"none that can":                      {nodes: "a! -b", want: "wait: no node that answers can form"},
		"one was never reached":              {nodes: "a b ?c", want: "wait: c may be in a swarm already"},
		"it has had its time":                {nodes: "a b ?c", after: time.Minute, want: "form a"},
		"too many were never reached":        {nodes: "a ?b ?c", after: time.Hour, want: "wait: b, c may be in a swarm already"},
		"one that was in a swarm is away":    {nodes: "a b -c:w", want: "wait: c may be in a swarm already"},
		"one that was in none is away":       {nodes: "a b -c", want: "form a"},
		"the others join":                    {nodes: "a:m b c d!", members: "a*", want: "join b, join c"},
		"a second node is no second manager": {nodes: "a:m b:w", members: "a* b", want: ""},
		"of three all are managers":          {nodes: "a:m b:w c:w", members: "a* b c", want: "promote b"},
		"one that was left out is down":      {nodes: "a:m -b:w", members: "a* -b*?", after: time.Minute, want: ""},
		"one that was left out is back":      {nodes: "a:m b:w", members: "a* b*?", after: time.Minute, want: "rejoin b"},
		"one at a time":                      {nodes: "a:m b:m c:w", members: "a* b*? c", want: ""},
		"and the third":                      {nodes: "a:m b:m c:w", members: "a* b* c", want: "promote c"},
		"of seven, five":                     {nodes: "a:m b:m c:m d:w e:w f:w g:w", members: "a* b* c* d e f g", want: "promote d"},
		"five are enough":                    {nodes: "a:m b:m c:m d:m e:m f:w g:w", members: "a* b* c* d* e* f g", want: ""},
		"a manager is away for a moment":     {nodes: "a:m b:m -c:m d:w", members: "a* b* -c*! d", want: ""},
		"a manager is lost":                  {nodes: "a:m b:m -c:m d:w", members: "a* b* -c*! d", after: time.Minute, want: "promote d"},
		"and has been replaced":              {nodes: "a:m b:m -c:m d:m", members: "a* b* -c*! d*", after: time.Minute, want: "demote c"},
		"without another it stays":           {nodes: "a:m b:m -c:m", members: "a* b* -c*!", after: time.Minute, want: ""},
		"the fleet has shrunk":               {nodes: "a:m b:m", members: "a* b*", after: time.Minute, want: "demote b"},
		"it may grow again":                  {nodes: "a:m b:m", members: "a* b*", want: ""},
		"pending, and removed":               {nodes: "a:m b:p", members: "a*", after: 10 * time.Second, want: "rejoin b"},
		"a node has left the fleet":          {nodes: "a:m b:w", members: "a* b -c", after: time.Minute, want: "remove c"},
		"it may only be away":                {nodes: "a:m b:w", members: "a* b -c", want: ""},
		"a manager has left the fleet":       {nodes: "a:m b:m d:m", members: "a* b* d* -c*!", after: time.Minute, want: "demote c"},
		"what berth did not bring stays":     {nodes: "a:m b:w", members: "a* b (-c)", after: time.Hour, want: ""},
		"a node that is down stays":          {nodes: "a:m -b:w", members: "a* -b", after: time.Hour, want: ""},
		"it has joined anew":                 {nodes: "a:m b:w", members: "a* b -b=old", want: "remove b"},
		"an entry without labels":            {nodes: "a:m b:w", members: "a* (b)", want: "label b"},
		"removed by somebody":                {nodes: "a:m b:w", members: "a*", want: ""},
		"removed by somebody a while ago":    {nodes: "a:m b:w", members: "a*", after: time.Minute, want: "rejoin b"},
		"in another swarm":                   {nodes: "a:m b:x", members: "a*", after: time.Hour, want: ""},
		"pending as it starts":               {nodes: "a:m b:p", members: "a* b", want: ""},
		"pending for ever":                   {nodes: "a:m b:p", members: "a* b", after: time.Minute, want: "rejoin b"},
		"a manager that is none any more":    {nodes: "a:m b:m", members: "a* b", after: time.Minute, want: "rejoin b"},
		"no quorum":                          {nodes: "a:m -b:m -c:m", members: "a* -b*! -c*!", want: "wait: the swarm has lost its quorum (1 of 3 managers reach each other): a cannot"},
		"no manager answers":                 {nodes: "-a:m b:w c:w", want: "wait: no manager of the swarm answers (a) that b, c is in"},
		"somebody else's: join":              {nodes: "a:m b c:w", members: "(a*) (c)", foreign: true, want: "join b"},
		"somebody else's: no managers":       {nodes: "a:m b:w c:w", members: "(a*) (b) (c)", foreign: true, want: ""},
		"somebody else's: what we brought":   {nodes: "a:m", members: "(a*) (-x) -c", foreign: true, after: time.Minute, want: "remove c"},
	} {
		t.Run(name, func(t *testing.T) {
			if got := planned(tt.nodes, tt.members, tt.foreign, tt.after); !strings.HasPrefix(got, tt.want) || tt.want == "" && got != "" {
				t.Errorf("plan of %s in %s: %s, want %s", tt.nodes, tt.members, got, tt.want)
			}
		})
	}
}

// planned is the plan in words, after all has been as it is for a while.
func planned(nodes, members string, foreign bool, after time.Duration) string {
	began := time.Unix(0, 0)
	since := map[string]time.Time{}
	var steps []step
	var waits []string
	for _, now := range []time.Time{began, began.Add(after)} {
		p := pictureOf(nodes, members, foreign)
		tm := &timers{now: now, since: since, seen: map[string]bool{}}
		steps, waits = plan(p, 30*time.Second, tm)
		tm.end()
	}
	var words []string
	for _, s := range steps {
		words = append(words, s.String())
	}
	for _, w := range waits {
		words = append(words, "wait: "+strings.TrimPrefix(w, "overlay networks: "))
	}
	return strings.Join(words, ", ")
}

func pictureOf(nodes, members string, foreign bool) *picture {
	p := &picture{nodes: nodesOf(nodes)}
	for _, n := range p.healthy() {
		if n.Swarm.Manager {
			if p.cluster == nil {
				p.cluster = &cluster{id: "C", ours: !foreign, speaker: n, members: membersOf(members)}
			}
			p.cluster.managers = append(p.cluster.managers, n)
		}
	}
	if p.cluster == nil {
		p.headless = slices.DeleteFunc(p.healthy(), func(n *fleet.Node) bool { return !n.Swarm.Active() })
	}
	return p
}

func TestManagersAreSpreadOverZones(t *testing.T) {
	p := pictureOf("a:m b:w c:w", "a* b c", false)
	for i, zone := range []string{"east", "east", "west"} {
		p.nodes[i].Labels = map[string]string{labelZone: zone}
	}
	steps := planManagers(p, time.Minute, &timers{since: map[string]time.Time{}, seen: map[string]bool{}})
	if got := fmt.Sprint(steps); got != "[promote c]" {
		t.Errorf("with b in the leader's zone: %s, want [promote c]", got)
	}
}

func TestSettingsAsLabels(t *testing.T) {
	for _, s := range []Settings{{}, {Encrypted: true}, {MTU: 1400, DataInterface: "eth1"}} {
		if got := (Settings{}).read(s.labels()); got != s {
			t.Errorf("%+v became %+v", s, got)
		}
		if !s.same(s.labels()) || s.same(Settings{MTU: 9000}.labels()) {
			t.Errorf("%+v is not the same as itself, or the same as another", s)
		}
	}
}
