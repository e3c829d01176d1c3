package dockertest

import (
	"fmt"
	"net/http"
	"runtime"
	"testing"
)

// TestAThousandDaemonsFit holds the size that benchmarks of a fleet need: 1,000 daemons with 50 running containers and a
// follower of their events each, in less than 500 MiB. Under the race detector a tenth has to do.
func TestAThousandDaemonsFit(t *testing.T) {
	if testing.Short() {
		t.Skip("makes 50,000 containers")
	}
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	n := 1000
	if raceDetector {
		n /= 10
	}
	daemons := make([]*Daemon, n)
	for i := range daemons {
		daemons[i] = New(t, Options{Name: fmt.Sprintf("n%d", i), Network: "mem", Containers: 50, NoRequestLog: true})
		resp, err := httpClient(t, daemons[i]).Get("http://daemon/events")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { resp.Body.Close() })
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	used := (after.HeapInuse + after.StackInuse - before.HeapInuse - before.StackInuse) >> 20
	t.Logf("%d MiB", used)
	if limit := uint64(n / 2); used >= limit {
		t.Errorf("%d MiB in use, want less than %d", used, limit)
	}
	for _, d := range []*Daemon{daemons[0], daemons[n-1]} {
		if n := len(d.Containers()); n != 50 || d.EventStreams() != 1 {
			t.Errorf("%s has %d containers, %d followers", d.Name(), n, d.EventStreams())
		}
	}
}

// BenchmarkList is what one refresh of an engine with 50 containers costs here, so that it can be told from the manager's part.
func BenchmarkList(b *testing.B) {
	d := New(b, Options{Network: "mem", Containers: 50, NoRequestLog: true})
	for b.Loop() {
		if status, _ := d.Do(http.MethodGet, "/v1.41/containers/json?all=1", nil); status != http.StatusOK {
			b.Fatal(status)
		}
	}
}

// BenchmarkLife is a container's life: create, start, kill, remove.
func BenchmarkLife(b *testing.B) {
	d := New(b, Options{Network: "mem", Containers: 50, NoRequestLog: true})
	for b.Loop() {
		for _, r := range []struct {
			method, path string
			body         any
		}{
			{"POST", "/containers/create?name=web", map[string]any{"Image": "app:1", "Cmd": []string{"sleep", "infinity"}}},
			{"POST", "/containers/web/start", nil}, {"POST", "/containers/web/kill", nil}, {"DELETE", "/containers/web", nil},
		} {
			if status, answer := d.Do(r.method, r.path, r.body); status >= 300 {
				b.Fatalf("%s: %d %s", r.path, status, answer)
			}
		}
	}
}
