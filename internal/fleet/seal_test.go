package fleet

import (
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"
	"unique"

	"pgregory.net/rapid"
)

func TestOverlaps(t *testing.T) {
	for _, tt := range []struct {
		a, b Port
		want bool
	}{
		{Port{"tcp", "", 80, 1}, Port{"tcp", "", 80, 2}, true},
		{Port{"tcp", "", 80, 1}, Port{"", "", 80, 1}, true},
		{Port{"tcp", "", 80, 1}, Port{"udp", "", 80, 1}, false},
		{Port{"tcp", "", 80, 1}, Port{"tcp", "", 81, 1}, false},
		{Port{"tcp", "10.0.0.1", 80, 1}, Port{"tcp", "10.0.0.2", 80, 1}, false},
		{Port{"tcp", "10.0.0.1", 80, 1}, Port{"tcp", "10.0.0.1", 80, 1}, true},
		{Port{"tcp", "10.0.0.1", 80, 1}, Port{"tcp", "", 80, 1}, true},
		{Port{"tcp", "10.0.0.1", 80, 1}, Port{"tcp", "0.0.0.0", 80, 1}, true},
		{Port{"tcp", "10.0.0.1", 80, 1}, Port{"tcp", "::", 80, 1}, false},
		{Port{"tcp", "fe80::1", 80, 1}, Port{"tcp", "::", 80, 1}, true},
		{Port{"tcp", "[::1]", 80, 1}, Port{"tcp", "0:0::1", 80, 1}, true},
		{Port{"tcp", "::ffff:10.0.0.1", 80, 1}, Port{"tcp", "10.0.0.1", 80, 1}, true},
		{Port{"tcp", "lan", 80, 1}, Port{"tcp", "10.0.0.1", 80, 1}, true},
	} {
		if got := tt.a.Overlaps(tt.b); got != tt.want {
			t.Errorf("%+v overlaps %+v = %v, want %v", tt.a, tt.b, got, tt.want)
		}
		if got := tt.b.Overlaps(tt.a); got != tt.want {
			t.Errorf("%+v overlaps %+v = %v, want %v", tt.b, tt.a, got, tt.want)
		}
	}
}

func TestPortTakenFindsWhatAnyContainerHasOrWants(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		port := rapid.Custom(func(t *rapid.T) Port {
			return Port{
				rapid.SampledFrom([]string{"tcp", "udp"}).Draw(t, "proto"), rapid.SampledFrom([]string{"", "10.0.0.1", "10.0.0.2"}).Draw(t, "ip"),
				rapid.SampledFrom([]uint16{0, 80, 80 + 256, 81, 65535}).Draw(t, "host"), 80,
			}
		})
		n := &Node{ID: "n"}
		for i := range rapid.IntRange(0, 4).Draw(t, "containers") {
			n.Containers = append(n.Containers, &Container{
				ID: fmt.Sprint(i), Wanted: rapid.SliceOfN(port, 0, 2).Draw(t, "wanted"), Published: rapid.SliceOfN(port, 0, 2).Draw(t, "published"),
			})
		}
		asked := port.Draw(t, "asked")
		if asked.HostPort == 0 {
			return
		}
		want := false
		for _, c := range n.Containers {
			want = want || slices.ContainsFunc(c.Wanted, asked.Overlaps) || slices.ContainsFunc(c.Published, asked.Overlaps)
		}
		if got := n.Facts().PortTaken(asked); got != want {
			t.Fatalf("unsealed: PortTaken(%+v) = %v, want %v", asked, got, want)
		}
		if got := n.Seal().Facts().PortTaken(asked); got != want {
			t.Fatalf("sealed: PortTaken(%+v) = %v, want %v", asked, got, want)
		}
	})
}

func TestSealAddsUp(t *testing.T) {
	n := &Node{ID: "n", CPUs: 2, Memory: 100, Labels: map[string]string{LabelSlots: "7"}, Containers: []*Container{
		{ID: "a", State: "running", Memory: 10, NanoCPUs: 5}, {ID: "b", State: "paused", Memory: 20}, {ID: "c", State: "exited", NanoCPUs: 7},
	}}
	f := n.Seal().Facts()
	if f.Memory != 100 || f.NanoCPUs != 2e9 || f.UsedMemory != 30 || f.UsedNanoCPUs != 12 || f.Containers != 3 || f.Running != 2 || f.Slots != 7 {
		t.Errorf("facts = %+v", f)
	}
	if want := (Sum{Memory: 30, NanoCPUs: 12, Running: 1, Paused: 1, Stopped: 1}); n.Sum != want {
		t.Errorf("sum = %+v, want %+v", n.Sum, want)
	}
}

func texts(list []Text) []string {
	var out []string
	for _, t := range list {
		out = append(out, t.Value())
	}
	slices.Sort(out)
	return out
}

// TestSealKeepsOnlyWhatStillHolds walks a node through versions, as an engine does.
func TestSealKeepsOnlyWhatStillHolds(t *testing.T) {
	key, none := unique.Make("tier"), unique.Make("")
	v1 := &Node{
		ID: "n", Labels: map[string]string{"zone": "a"},
		Containers: []*Container{{ID: "1", Labels: LabelsOf(map[string]string{"tier": "front"})}, {ID: "2"}},
		Images:     []*Image{{ID: "sha256:1", RepoTags: []string{"nginx:1", "<none>:<none>"}, RepoDigests: []string{"nginx@sha256:d"}}},
	}
	v1.Seal()
	look := func(n *Node) string {
		f := n.Facts()
		return fmt.Sprintf("%s %s %s", texts(f.LabelValues(key)), texts(f.ImageNames()), f.Label(unique.Make("zone"), none).Value())
	}
	was := "[ front] [nginx nginx:1 nginx@sha256:d sha256:1] a"
	if got := look(v1); got != was {
		t.Fatalf("first version = %s, want %s", got, was)
	}
	v2 := *v1
	v2.Containers = append(slices.Clip(v1.Containers), &Container{ID: "3", Labels: LabelsOf(map[string]string{"tier": "back"})})
	v2.Seal()
	if got, want := look(&v2), "[ back front] [nginx nginx:1 nginx@sha256:d sha256:1] a"; got != want {
		t.Errorf("with another container = %s, want %s", got, want)
	}
	v3 := v2
	v3.Images = []*Image{{ID: "sha256:2", RepoTags: []string{"localhost:5000/redis:7"}}}
	v3.Labels = maps.Clone(v2.Labels)
	v3.Labels["zone"] = "b"
	v3.Seal()
	if got, want := look(&v3), "[ back front] [localhost:5000/redis localhost:5000/redis:7 sha256:2] b"; got != want {
		t.Errorf("with another image and label = %s, want %s", got, want)
	}
	if got := look(v1); got != was {
		t.Errorf("the first version became %s, want %s", got, was)
	}
}

func TestLabelValuesRemembersFewKeys(t *testing.T) {
	labels := map[string]string{}
	for i := range 3 * keptLabels {
		labels[fmt.Sprint("k", i)] = fmt.Sprint("v", i)
	}
	f := (&Node{ID: "n", Containers: []*Container{{ID: "1", Labels: LabelsOf(labels)}}}).Seal().Facts()
	for round := range 2 {
		for k, v := range labels {
			if got := texts(f.LabelValues(unique.Make(k))); !slices.Equal(got, []string{v}) {
				t.Fatalf("round %d: values of %s = %q, want %s", round, k, got, v)
			}
			kept := 0
			for l := f.values.Load(); l != nil; l = l.next {
				kept++
			}
			if kept > keptLabels {
				t.Fatalf("%d keys are kept, want at most %d", kept, keptLabels)
			}
		}
	}
}

func TestFactsMayBeAskedByManyAtOnce(t *testing.T) {
	n := &Node{ID: "n", Images: []*Image{{ID: "i", RepoTags: []string{"a:1"}}}}
	for i := range 20 {
		n.Containers = append(n.Containers, &Container{ID: fmt.Sprintf("%02d", i), Labels: LabelsOf(map[string]string{"a": fmt.Sprint(i), "b": "x"})})
	}
	n.Seal()
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			key, want := unique.Make("a"), 20
			if i%2 == 1 {
				key, want = unique.Make("b"), 1
			}
			for range 100 {
				if got := len(n.Facts().LabelValues(key)); got != want {
					t.Errorf("%d values of %s, want %d", got, key.Value(), want)
				}
				if got := len(n.Facts().ImageNames()); got != 3 {
					t.Errorf("%d image names, want 3", got)
				}
				next := *n
				next.Seal()
			}
		})
	}
	wg.Wait()
}

func TestRepository(t *testing.T) {
	for ref, want := range map[string]string{
		"nginx": "nginx", "nginx:1": "nginx", "localhost:5000/a": "localhost:5000/a", "localhost:5000/a:1": "localhost:5000/a",
		"a/b@sha256:00": "a/b", "a/b:1@sha256:00": "a/b",
	} {
		if got := Repository(ref); got != want {
			t.Errorf("Repository(%s) = %s, want %s", ref, got, want)
		}
	}
}

// BenchmarkSeal is what each event on a node of 50 containers costs.
func BenchmarkSeal(b *testing.B) {
	n := &Node{ID: "n", Labels: map[string]string{"storagedriver": "overlay2", "kernelversion": "6.1", "operatingsystem": "Debian", "ostype": "linux", "zone": "a"}}
	for i := range 50 {
		n.Containers = append(n.Containers, &Container{ID: fmt.Sprintf("%064d", i), State: "running", Memory: 1 << 20,
			Wanted: []Port{{"tcp", "", uint16(8000 + i*37%50), 80}}, Published: []Port{{"tcp", "0.0.0.0", uint16(8000 + i*37%50), 80}}})
	}
	n.Seal()
	b.ReportAllocs()
	for b.Loop() {
		next := *n
		next.Seal()
	}
}

func TestRelaysAreNoLoad(t *testing.T) {
	n := (&Node{ID: "n", Containers: []*Container{
		{ID: "1", State: "running"}, {ID: "2", State: "exited"}, {ID: "3", State: "running", Relay: true}, {ID: "4", State: "exited", Relay: true},
	}}).Seal()
	if f := n.Facts(); f.Containers != 2 || f.Running != 1 {
		t.Errorf("%d containers, %d of them running, want 2 and 1", f.Containers, f.Running)
	}
	if n.Sum.Running != 2 || n.Sum.Stopped != 2 {
		t.Errorf("docker info counts %d running and %d stopped, want 2 of each", n.Sum.Running, n.Sum.Stopped)
	}
}
