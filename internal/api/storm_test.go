package api

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"sync"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"berth/internal/dockertest"
	"berth/internal/engine"
	"berth/internal/fleet"
)

const (
	stormNodes  = 100
	stormAtOnce = 64
	stormZones  = 4
)

// stormSize is how many containers are created: BERTH_STORM says another number, as the nightly suite does.
func stormSize(t *testing.T) int {
	v := os.Getenv("BERTH_STORM")
	if v == "" {
		return 1000
	}
	n, err := strconv.Atoi(v)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// stormed is a container as its client was told of it.
type stormed struct {
	id, node string
	zone     int
	port     bool
}

// Many creates at once: none is lost, doubled or misplaced, no name is given twice, and no host port twice on one node.
func TestManyCreatesAtOnce(t *testing.T) {
	f := &testFleet{t: t, timing: engine.DefaultTiming()}
	f.timing.PingTimeout = time.Minute // engines, manager and clients are one process here, which the race detector makes slow
	i := 0
	f.start(stormNodes, func(o *dockertest.Options) {
		o.Labels, o.NoRequestLog, o.Network = []string{"zone=" + strconv.Itoa(i%stormZones)}, true, "mem"
		i++
	})
	size := stormSize(t)
	var mu sync.Mutex
	all := map[string]stormed{} // by name, or by ID for those without
	refused := 0
	var g errgroup.Group
	g.SetLimit(stormAtOnce)
	for i := range size {
		g.Go(func() error {
			name, m, err := f.createOne(i)
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err != nil:
				return err
			case m.id == "":
				refused++
			default:
				all[name] = m
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	if len(all)+refused != size {
		t.Errorf("%d containers were told of, and %d creates refused, of %d", len(all), refused, size)
	}
	// Every tenth wants a port that a node has once.
	if want := max(0, size/10-stormNodes); refused != want {
		t.Errorf("%d creates were refused, want %d", refused, want)
	}
	f.checkStorm(all)
	f.cluster.Settle(t.Context(), fleet.KindContainer)
	if n := f.cluster.Snapshot().Containers(); n != len(all) {
		t.Errorf("the picture has %d containers, want %d", n, len(all))
	}
}

// createOne creates and starts one container. An empty ID says that no node had the port free.
func (f *testFleet) createOne(i int) (name string, m stormed, err error) {
	m = stormed{zone: i % stormZones, port: i%10 == 0}
	body := map[string]any{"Image": "busybox", "Cmd": []string{"sleep", "1000"}, "Labels": map[string]string{"i": strconv.Itoa(i)}}
	if m.port {
		body["HostConfig"] = map[string]any{"PortBindings": map[string]any{"80/tcp": []map[string]string{{"HostPort": "8080"}}}}
	} else {
		body["Env"] = []string{fmt.Sprintf("constraint:zone==%d", m.zone)}
	}
	query := ""
	if i%2 == 0 {
		name = fmt.Sprintf("c%d", i)
		query = "?name=" + name
	}
	code, header, b, err := f.post("/containers/create"+query, body)
	if err != nil || code == http.StatusServiceUnavailable && m.port || code == http.StatusInternalServerError && m.port {
		return name, m, err
	}
	var told struct {
		ID string `json:"Id"`
	}
	if err := json.Unmarshal(b, &told); err != nil || code != http.StatusCreated || told.ID == "" {
		return name, m, fmt.Errorf("create %d: %d %s", i, code, b)
	}
	m.id, m.node = told.ID, header.Get("X-Berth-Node")
	if name == "" {
		name = m.id
	}
	code, _, b, err = f.post("/containers/"+m.id+"/start", nil)
	if err == nil && code != http.StatusNoContent {
		err = fmt.Errorf("start %d: %d %s", i, code, b)
	}
	return name, m, err
}

func (f *testFleet) post(path string, body any) (int, http.Header, []byte, error) {
	var b []byte
	if body != nil {
		var err error
		if b, err = json.Marshal(body); err != nil {
			return 0, nil, nil, err
		}
	}
	res, err := http.Post(f.URL+"/v1.41"+path, "application/json", bytes.NewReader(b)) //nolint:noctx // the test's own end is enough
	if err != nil {
		return 0, nil, nil, err
	}
	defer res.Body.Close()
	b, err = io.ReadAll(res.Body)
	return res.StatusCode, res.Header, b, err
}

// checkStorm compares what clients were told with what the engines have.
func (f *testFleet) checkStorm(all map[string]stormed) {
	f.t.Helper()
	names := map[string]bool{}
	count := 0
	for i, d := range f.daemons {
		ports := 0
		for _, c := range d.Containers() {
			count++
			m, told := all[c.Name]
			if !told {
				m, told = all[c.ID]
			}
			switch {
			case !told:
				f.t.Errorf("nobody was told of container %s on %s", c.Name, d.Name())
			case m.id != c.ID || m.node != d.Name():
				f.t.Errorf("container %s is on %s; its client was told of %s on %s", c.Name, d.Name(), m.id, m.node)
			case !m.port && m.zone != i%stormZones:
				f.t.Errorf("container %s is in zone %d, and was to be in %d", c.Name, i%stormZones, m.zone)
			case names[c.Name]:
				f.t.Errorf("two containers are called %s", c.Name)
			}
			names[c.Name] = true
			if m.port {
				ports++
			}
		}
		if ports > 1 {
			f.t.Errorf("%d containers of %s publish port 8080", ports, d.Name())
		}
	}
	if count != len(all) {
		f.t.Errorf("the engines have %d containers, and clients were told of %d", count, len(all))
	}
}
