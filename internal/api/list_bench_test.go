package api

import (
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"berth/internal/fleet"
)

// manyListed is a fleet of nodes with so many containers each.
func manyListed(nodes, containers int) *fleet.Snapshot {
	snap := new(fleet.Snapshot)
	tail := []byte(`,"Padding":"` + strings.Repeat("x", 700) + `"}`)
	for i := range nodes {
		n := &fleet.Node{ID: fmt.Sprintf("E%05d|a", i), Name: fmt.Sprintf("n%d", i), State: fleet.Healthy, Health: 100}
		for j := range containers {
			c := &fleet.Container{
				ID: fmt.Sprintf("%08x%056x", (i*containers+j)*2654435761%(1<<32), i), Name: fmt.Sprintf("c-%d-%d", i, j), State: "running",
				Created: listedAt.Add(-time.Duration(i+j*nodes) * time.Second).UnixNano(), StartedAt: listedAt.Add(-time.Duration(j) * time.Hour),
				Labels: fleet.LabelsOf(map[string]string{"app": fmt.Sprintf("a%d", j), "tier": "back"}), Inspected: true,
			}
			c.Head, c.Tail = []byte(`{"Id":"`+c.ID+`","Names":["/`+c.Name+`"],"State":"running","Status":`), tail
			n.Containers = append(n.Containers, c)
		}
		slices.SortFunc(n.Containers, func(a, b *fleet.Container) int { return strings.Compare(a.ID, b.ID) })
		snap = snap.Replace(n.Seal())
	}
	return snap
}

type nowhere struct{ header http.Header }

func (n nowhere) Header() http.Header         { return n.header }
func (n nowhere) Write(b []byte) (int, error) { return len(b), nil }
func (n nowhere) WriteHeader(int)             {}

// BenchmarkList serves lists of 1,000 nodes with 30 containers each.
func BenchmarkList(b *testing.B) {
	s := New(picture{snap: manyListed(1000, 30)}, Options{Version: "test", APIMax: "1.51", ID: "test", Log: slog.New(slog.NewTextHandler(io.Discard, nil))})
	for _, bb := range []struct{ name, query string }{
		{"all", "all=1"},
		{"limit=1", "limit=1"},
		{"id", "all=1&filters=" + url.QueryEscape(`{"id":["0000`+`"]}`)},
		{"name", "all=1&filters=" + url.QueryEscape(`{"name":["c-500-7"]}`)},
		{"whole-name", "all=1&filters=" + url.QueryEscape(`{"name":["^/?c-500-7$"]}`)},
		{"label", "all=1&filters=" + url.QueryEscape(`{"label":["app=none"]}`)},
	} {
		b.Run(bb.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				s.ServeHTTP(nowhere{http.Header{}}, httptest.NewRequest(http.MethodGet, "/v1.41/containers/json?"+bb.query, nil))
			}
		})
	}
}

// The merge gives the order that sorting would give, whatever the filters leave of each node, and stops at the limit.
func TestRunsMergeInOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		type hit struct {
			age int64
			id  string
		}
		var all runs
		var want, got []hit
		even := func(_ *fleet.Node, c *fleet.Container) bool { return c.Created%2 == 0 }
		for i := range rapid.IntRange(0, 6).Draw(t, "nodes") {
			n := &fleet.Node{ID: fmt.Sprint(i)}
			for j, age := range rapid.SliceOfN(rapid.Int64Range(0, 9), 0, 8).Draw(t, "ages") {
				c := &fleet.Container{ID: fmt.Sprintf("%d-%d", j, i), Created: age}
				n.Containers = append(n.Containers, c)
				if even(n, c) {
					want = append(want, hit{-age, c.ID})
				}
			}
			all.add(n.Seal(), nil, even)
		}
		slices.SortFunc(want, func(a, b hit) int {
			if a.age != b.age {
				return int(a.age - b.age)
			}
			return strings.Compare(a.id, b.id)
		})
		ordered := all.merge()
		for f, ok := ordered.pop(even); ok; f, ok = ordered.pop(even) {
			got = append(got, hit{-f.Created, f.ID})
		}
		if !slices.Equal(got, want) {
			t.Fatalf("merged %v, want %v", got, want)
		}
	})
}

// The quick ways to match a name are those of the regular expression.
func TestNameFiltersMatchAsExpressions(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		name := rapid.StringMatching(`[ab.-][ab./-]{0,5}`).Draw(t, "name")
		v := rapid.StringMatching(`\^?(/\??)?([ab.-]|\\\.|a\*){0,5}\$?`).Draw(t, "filter")
		if got, want := nameFilter(v)(name), slowNameFilter(v)(name); got != want {
			t.Fatalf("%q on %q is %v, want %v", v, name, got, want)
		}
	})
}

func slowNameFilter(v string) func(string) bool {
	re, err := regexp.Compile(v)
	return func(name string) bool {
		if name == v || "/"+name == v {
			return true
		}
		return err == nil && (re.MatchString("/"+name) || re.MatchString(name))
	}
}
