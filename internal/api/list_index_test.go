package api

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"berth/internal/fleet"
)

// What the indexes, and the order of the last list of all, leave of a fleet for the filters id, name, label and node is what looking at every
// container leaves.
func TestIndexedListsEqualAScan(t *testing.T) {
	word := rapid.StringMatching(`(01234567)?[ab]{1,3}`)
	value := rapid.OneOf(word, rapid.Map(word, func(w string) string { return "^/?" + w + "$" }), rapid.StringMatching(`\^?[ab]*\.?[ab]*`))
	rapid.Check(t, func(t *rapid.T) {
		s, snap := new(Server), new(fleet.Snapshot)
		listAll := func() {
			if rapid.Bool().Draw(t, "list all") {
				names(s.sequence(snap, &listing{all: true}), nil)
			}
		}
		for i := range rapid.IntRange(0, 3).Draw(t, "nodes") {
			n := &fleet.Node{ID: fmt.Sprint("N", i), Name: fmt.Sprint("n", i), State: fleet.Healthy}
			for _, id := range rapid.SliceOfNDistinct(word, 0, 4, rapid.ID).Draw(t, "ids") {
				c := &fleet.Container{ID: id + fmt.Sprint(i), Name: word.Draw(t, "name"), State: "running", Created: rapid.Int64Range(0, 3).Draw(t, "created")}
				if rapid.Bool().Draw(t, "linked") {
					c.Aliases = []string{word.Draw(t, "alias")}
				}
				if rapid.Bool().Draw(t, "labelled") {
					c.Labels = fleet.LabelsOf(map[string]string{"k": word.Draw(t, "value")})
				}
				n.Containers = append(n.Containers, c)
			}
			slices.SortFunc(n.Containers, func(a, b *fleet.Container) int { return strings.Compare(a.ID, b.ID) })
			snap = snap.Replace(n.Seal())
			listAll()
		}
		l := &listing{all: true, f: filters{}}
		for name, g := range map[string]*rapid.Generator[string]{
			"id": word, "name": value, "label": rapid.OneOf(rapid.Just("k"), rapid.Map(word, func(w string) string { return "k=" + w })), "node": rapid.SampledFrom([]string{"n0", "n1"}),
		} {
			if v := rapid.SliceOfN(g, 0, 2).Draw(t, name); len(v) > 0 {
				l.f[name] = v
			}
		}
		if err := l.parseTests(); err != nil {
			t.Fatal(err)
		}
		var want []string
		got := names(s.sequence(snap, l), l.match())
		var scan []fleet.Ref
		for _, n := range snap.Nodes() {
			for _, c := range n.Containers {
				if naive(l.f, n, c) {
					scan = append(scan, fleet.Ref{Node: n, Container: c})
				}
			}
		}
		slices.SortFunc(scan, func(a, b fleet.Ref) int {
			if a.Container.Created != b.Container.Created {
				return int(b.Container.Created - a.Container.Created)
			}
			return strings.Compare(a.Container.ID+a.Node.Name, b.Container.ID+b.Node.Name)
		})
		for _, ref := range scan {
			want = append(want, ref.Node.Name+" "+ref.Container.ID)
		}
		if !slices.Equal(got, want) {
			t.Fatalf("filters %v list %v, want %v", l.f, got, want)
		}
	})
}

// An order that is mended is what it would be if made anew, whatever nodes come, change and go.
func TestAMendedOrderIsTheOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s, snap := new(Server), new(fleet.Snapshot)
		all := &listing{all: true}
		change := func(i int) {
			n := &fleet.Node{ID: fmt.Sprint("N", i), Name: fmt.Sprint("n", i), State: fleet.Healthy}
			for k, born := range rapid.SliceOfN(rapid.Int64Range(0, 3), 0, 4).Draw(t, "born") {
				n.Containers = append(n.Containers, &fleet.Container{ID: fmt.Sprint(k, i), State: "running", Created: born})
			}
			snap = snap.Replace(n.Seal())
		}
		for i := range 20 {
			change(i)
		}
		mended := 0
		for range rapid.IntRange(1, 6).Draw(t, "lists") {
			for range rapid.IntRange(0, 7).Draw(t, "changes") {
				switch i := rapid.IntRange(0, 19).Draw(t, "node"); rapid.IntRange(0, 9).Draw(t, "kind") {
				case 0:
					snap = snap.Without(fmt.Sprint("N", i))
				default:
					change(i)
				}
			}
			if o := s.orders.last.Load(); o != nil && o.snapshot != snap {
				if _, _, few := snap.Changed(o.snapshot, snap.Len()/fewChanged); few {
					mended++
				}
			}
			got, want := names(s.sequence(snap, all), nil), names(all.runs(snap).merge(), nil)
			if !slices.Equal(got, want) {
				t.Fatalf("mended %v, want %v", got, want)
			}
		}
		t.Logf("%d orders were mended", mended)
	})
}

// names goes through a list.
func names(all sequence, match test) (list []string) {
	for f, ok := all.pop(match); ok; f, ok = all.pop(match) {
		list = append(list, f.node.Name+" "+f.ID)
	}
	return list
}

// naive is the filters id, name, label and node as the engine has them.
func naive(f filters, n *fleet.Node, c *fleet.Container) bool {
	some := func(name string, passes func(v string) bool) bool {
		return len(f[name]) == 0 || slices.ContainsFunc(f[name], passes)
	}
	for _, v := range f["label"] {
		key, want, hasValue := strings.Cut(v, "=")
		if got, ok := c.Labels.Lookup(key); !ok || hasValue && got != want {
			return false
		}
	}
	return some("id", func(v string) bool { return strings.HasPrefix(c.ID, v) }) &&
		some("node", func(v string) bool { return n.Name == v }) &&
		some("name", func(v string) bool {
			return slices.ContainsFunc(append([]string{c.Name}, c.Aliases...), slowNameFilter(v))
		})
}
