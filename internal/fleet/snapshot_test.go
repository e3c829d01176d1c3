package fleet

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/maruel/natural"
	"pgregory.net/rapid"
)

// model is a fleet as a plain map, searched from end to end.
type model map[string]*Node

func (m model) containers(match func(*Container) bool) []string {
	var found []string
	for _, n := range m {
		for _, c := range n.Containers {
			if match(c) {
				found = append(found, n.ID+" "+c.ID)
			}
		}
	}
	slices.Sort(found)
	return found
}

func refsText(refs []Ref) []string {
	var out []string
	for _, r := range refs {
		out = append(out, r.Node.ID+" "+r.Container.ID)
	}
	slices.Sort(out)
	return out
}

// wanted is what Container must answer, by a search through all.
func (m model) wanted(ref string) string {
	if ref == "" {
		return "not found"
	}
	name := strings.TrimPrefix(ref, "/")
	for _, match := range []func(*Container) bool{
		func(c *Container) bool { return c.ID == ref },
		func(c *Container) bool { return c.Name == name },
	} {
		if found := m.containers(match); len(found) > 0 {
			return oneOf(found)
		}
	}
	if node, rest, ok := strings.Cut(name, "/"); ok && rest != "" {
		if found := m.on(node, rest); found != "" {
			return found
		}
	}
	for _, match := range []func(*Container) bool{
		func(c *Container) bool { return strings.HasPrefix(c.ID, ref) },
		func(c *Container) bool { return strings.HasPrefix(c.Labels.Get(LabelSwarmID), ref) },
	} {
		if found := m.containers(match); len(found) > 0 {
			return oneOf(found)
		}
	}
	return "not found"
}

// on finds node/ref; "" if it is not there or not one.
func (m model) on(node, ref string) string {
	for _, n := range m {
		if n.Name != node && n.ID != node {
			continue
		}
		var prefixed []string
		for _, c := range n.Containers {
			if c.Name == ref || c.ID == ref {
				return n.ID + " " + c.ID
			}
			if strings.HasPrefix(c.ID, ref) {
				prefixed = append(prefixed, n.ID+" "+c.ID)
			}
		}
		if len(prefixed) == 1 {
			return prefixed[0]
		}
	}
	return ""
}

func oneOf(found []string) string {
	if len(found) > 1 {
		return "ambiguous"
	}
	return found[0]
}

// TestSnapshotEqualsASearchThroughAll changes a fleet at random and compares every index with a plain search. Names, IDs and
// prefixes come from so few letters that they meet.
func TestSnapshotEqualsASearchThroughAll(t *testing.T) {
	word := rapid.StringMatching(`(01234567)?[ab]{1,3}`) // some begin alike for longer than the indexes look
	rapid.Check(t, func(t *rapid.T) {
		m, s := model{}, new(Snapshot)
		for range rapid.IntRange(1, 12).Draw(t, "steps") {
			id := rapid.SampledFrom([]string{"N1", "N2", "N3"}).Draw(t, "node")
			before, was := s, describe(s)
			if rapid.IntRange(0, 3).Draw(t, "gone") == 0 {
				delete(m, id)
				s = s.Without(id)
			} else {
				n := drawNode(t, id, word, m[id])
				m[id], s = n, s.Replace(n)
			}
			if got := describe(before); got != was {
				t.Fatalf("an older snapshot changed from %s to %s", was, got)
			}
			compare(t, m, s)
		}
	})
}

// drawNode makes a node's next version; some containers stay the very same.
func drawNode(t *rapid.T, id string, word *rapid.Generator[string], old *Node) *Node {
	byID := map[string]*Container{}
	if old != nil {
		for _, c := range old.Containers {
			if rapid.Bool().Draw(t, "kept") {
				byID[c.ID] = c
			}
		}
	}
	for range rapid.IntRange(0, 3).Draw(t, "containers") {
		c := &Container{ID: word.Draw(t, "id"), Name: word.Draw(t, "name")}
		if rapid.Bool().Draw(t, "swarm") {
			c.Labels = LabelsOf(map[string]string{LabelSwarmID: word.Draw(t, "swarmID")})
		}
		if rapid.IntRange(0, 3).Draw(t, "linked") == 0 {
			c.Aliases = []string{word.Draw(t, "alias")}
		}
		byID[c.ID] = c
	}
	name := id + rapid.SampledFrom([]string{"", "x", "10", "9"}).Draw(t, "nodeName")
	state := rapid.SampledFrom([]State{Pending, Healthy, Unhealthy}).Draw(t, "state")
	return &Node{ID: id, Name: name, State: state, Containers: slices.SortedFunc(maps.Values(byID), func(a, b *Container) int { return strings.Compare(a.ID, b.ID) })}
}

func describe(s *Snapshot) string {
	var b strings.Builder
	for _, n := range s.Nodes() {
		fmt.Fprint(&b, n.Name, n.ID, n.State, len(s.Unwell()), ":")
		for _, c := range n.Containers {
			fmt.Fprint(&b, " ", c.ID, "=", refsText(s.Named(c.Name)))
		}
	}
	return b.String()
}

func compare(t *rapid.T, m model, s *Snapshot) {
	names := slices.SortedFunc(maps.Values(m), func(a, b *Node) int {
		if natural.Less(a.Name, b.Name) {
			return -1
		}
		return 1
	})
	if !slices.Equal(s.Nodes(), names) {
		t.Fatalf("nodes = %v, want %v", s.Nodes(), names)
	}
	unwell := slices.DeleteFunc(names, func(n *Node) bool { return n.State == Healthy })
	if !slices.Equal(s.Unwell(), unwell) {
		t.Fatalf("unwell = %v, want %v", s.Unwell(), unwell)
	}
	total := 0
	for id, n := range m {
		total += len(n.Containers)
		if got, ok := s.Node(id); !ok || got != n {
			t.Fatalf("node %s = %v, want %v", id, got, n)
		}
		if got, ok := s.NodeByName(n.Name); !ok || got != n {
			t.Fatalf("node of name %s = %v, want %v", n.Name, got, n)
		}
		for _, c := range n.Containers {
			if got, ok := n.Find(c.ID); !ok || got != c {
				t.Fatalf("%s on %s = %v, want %v", c.ID, id, got, c)
			}
		}
	}
	if s.Containers() != total {
		t.Fatalf("%d containers, want %d", s.Containers(), total)
	}
	if _, ok := s.Node("N9"); ok {
		t.Fatal("a node that nobody has")
	}
	ref := rapid.StringMatching(`/?(N[123](x|10|9)?/)?(01234567)?[abc]{0,4}`)
	for range 20 {
		r := ref.Draw(t, "ref")
		got := "not found"
		switch c, err := s.Container(r); err.(type) { //nolint:errorlint // never wrapped
		case nil:
			got = c.Node.ID + " " + c.Container.ID
		case *AmbiguousError:
			got = "ambiguous"
		}
		if want := m.wanted(r); got != want {
			t.Fatalf("Container(%q) = %s, want %s", r, got, want)
		}
		word := strings.TrimPrefix(r, "/")
		if got, want := refsText(s.Named(word)), m.containers(func(c *Container) bool { return c.Name == word }); !slices.Equal(got, want) {
			t.Fatalf("Named(%q) = %v, want %v", word, got, want)
		}
		if got, want := refsText(s.Called(word)), m.containers(func(c *Container) bool {
			return c.Name == word || slices.Contains(c.Aliases, word)
		}); !slices.Equal(got, want) {
			t.Fatalf("Called(%q) = %v, want %v", word, got, want)
		}
		if got, want := refsText(s.WithID(word, math.MaxInt)), m.containers(func(c *Container) bool { return strings.HasPrefix(c.ID, word) }); !slices.Equal(got, want) {
			t.Fatalf("WithID(%q) = %v, want %v", word, got, want)
		}
		want := m.containers(func(c *Container) bool { return word != "" && c.Labels.Get(LabelSwarmID) == word })
		if got := refsText(s.WithSwarmID(word)); !slices.Equal(got, want) {
			t.Fatalf("WithSwarmID(%q) = %v, want %v", word, got, want)
		}
	}
}

func TestNodesAreInNaturalOrder(t *testing.T) {
	s := new(Snapshot)
	for i, name := range []string{"host10", "host2", "web", "host1", "host2"} {
		s = s.Replace(&Node{ID: fmt.Sprint("id", i), Name: name, EngineID: "E" + fmt.Sprint(i)})
	}
	var got []string
	for _, n := range s.Nodes() {
		got = append(got, n.Name+" "+n.ID)
	}
	if want := []string{"host1 id3", "host2 id1", "host2 id4", "host10 id0", "web id2"}; !slices.Equal(got, want) {
		t.Errorf("nodes = %v, want %v", got, want)
	}
	if n, ok := s.NodeByName("E2"); !ok || n.Name != "web" {
		t.Errorf("the node of engine E2 = %v", n)
	}
	if n, ok := s.NodeByName(""); ok {
		t.Errorf("the node without a name = %v", n)
	}
	v := s.Version()
	if s.Without("nobody") != s {
		t.Error("taking away what is not there changes the fleet")
	}
	if s = s.Without("id2"); s.Version() <= v || len(s.Nodes()) != 4 {
		t.Errorf("version %d with %d nodes after version %d with 5", s.Version(), len(s.Nodes()), v)
	}
}

func TestAnEmptyFleetHasNothing(t *testing.T) {
	s := new(Snapshot)
	if _, err := s.Container("x"); err == nil || err.Error() != "No such container: x" {
		t.Errorf("container of no fleet: %v", err)
	}
	if got := len(s.Named("x")) + len(s.WithSwarmID("x")) + len(s.Nodes()) + s.Containers(); got != 0 {
		t.Errorf("%d things in an empty fleet", got)
	}
}
