package api

import (
	"fmt"
	"net/http"
	"testing"

	"berth/internal/dockertest"
)

// BenchmarkCreateAndStart is what docker run does, over ten engines in this process: it includes what those do.
func BenchmarkCreateAndStart(b *testing.B) {
	f := &testFleet{t: b}
	n := 0
	f.start(8, func(o *dockertest.Options) {
		o.NoRequestLog, o.Network, o.NCPU, o.MemTotal = true, "mem", 64, 256<<30
		o.Labels = []string{fmt.Sprint("zone=", n%stormZones)}
		n++
	})
	b.ReportAllocs()
	for b.Loop() {
		n++
		if _, _, err := f.createOne(10*n + 1); err != nil {
			b.Fatal(err)
		}
	}
	b.StopTimer()
	if a := f.do(http.MethodPost, "/containers/prune", nil); a.status != http.StatusOK {
		b.Error(fmt.Sprint(a.status))
	}
}
