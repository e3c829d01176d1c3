package overlay

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	engines "berth/internal/cluster" // cluster is ours
	"berth/internal/dockertest"
	"berth/internal/engine"
	"berth/internal/proxy"
	"berth/internal/schedule"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// rig is engines called n1, n2, …, of which the first so many are in the fleet, and a Keeper over them.
type rig struct {
	*Keeper
	t       *testing.T
	daemons []*dockertest.Daemon
	fleet   *engines.Cluster
	set     chan []engine.Endpoint
	log     *text
}

// text is what was logged.
type text struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *text) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

func (l *text) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func newRig(t *testing.T, n, members int, edit ...func(*Options)) *rig {
	t.Helper()
	r := &rig{t: t, set: make(chan []engine.Endpoint), log: new(text)}
	for i := range n {
		r.daemons = append(r.daemons, dockertest.New(t, dockertest.Options{Name: fmt.Sprintf("n%d", i+1), Images: []string{"busybox"}}))
	}
	log := slog.New(slog.NewTextHandler(r.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	tunnels := new(proxy.Tunnels)
	r.fleet = engines.New(engines.Options{
		Engine: engine.Options{APIMax: "1.51", FailureRetry: 1, Log: log, Tunnels: tunnels, Timing: engine.Timing{
			Dial: time.Second, Probe: 2 * time.Second, List: 5 * time.Second, PingEvery: 50 * time.Millisecond, PingTimeout: time.Second,
			RetryMin: 10 * time.Millisecond, RetryMax: 50 * time.Millisecond, Resync: time.Hour,
		}},
		Policy: schedule.DefaultPolicy(), Backlog: 64, Log: log,
	})
	o := Options{
		Fleet: r.fleet, APIMax: "1.51", On: true, Every: 20 * time.Millisecond, Grace: 200 * time.Millisecond, RetryMin: 10 * time.Millisecond,
		RetryMax: 50 * time.Millisecond, Log: log,
	}
	for _, e := range edit {
		e(&o)
	}
	r.Keeper = New(o)
	ctx, cancel := context.WithCancel(context.Background())
	var work sync.WaitGroup
	work.Go(func() { _ = r.fleet.Run(ctx, r) })    // it ends with ctx
	work.Go(func() { _ = r.Run(ctx) })             // likewise
	work.Go(func() { r.members(ctx, 0, members) }) // likewise
	t.Cleanup(func() {
		cancel()
		work.Wait()
		if t.Failed() {
			t.Logf("log:\n%s", r.log)
		}
	})
	return r
}

// Watch is the source of the fleet.
func (r *rig) Watch(ctx context.Context, update func([]engine.Endpoint)) error {
	for {
		select {
		case eps := <-r.set:
			update(eps)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// members makes the engines from one number to another the fleet.
func (r *rig) members(ctx context.Context, from, to int) {
	var eps []engine.Endpoint
	for _, d := range r.daemons[from:to] {
		eps = append(eps, engine.Endpoint{
			Addr: d.HostPort(), Key: d.HostPort(), Dial: func(ctx context.Context) (net.Conn, error) { return d.Dial(ctx, "", "") },
		})
	}
	select {
	case r.set <- eps:
	case <-ctx.Done():
	}
}

// swarm is "n1* n2 -n3": the cluster as an engine sees it, managers with a star, those that are down with a dash, those that berth has
// not labelled in brackets.
func (r *rig) swarm(of int) string {
	var all []string
	for _, line := range r.daemons[of].SwarmNodes() {
		words := strings.Fields(line)
		name := words[0]
		if words[1] == "manager" {
			name += "*"
		}
		if words[2] == "down" {
			name = "-" + name
		}
		if !strings.Contains(line, labelAddr) {
			name = "(" + name + ")"
		}
		all = append(all, name)
	}
	slices.Sort(all)
	return strings.Join(all, " ")
}

func (r *rig) await(what string, ok func() bool) {
	r.t.Helper()
	for began := time.Now(); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Since(began) > 20*time.Second {
			s := r.Status()
			r.t.Fatalf("not within 20 s: %s; the swarm is %q, the status %+v", what, r.swarm(0), s)
		}
	}
}

// becomes waits for the cluster to look so to an engine.
func (r *rig) becomes(of int, want string) {
	r.t.Helper()
	r.await("the swarm is "+want, func() bool { return r.swarm(of) == want })
}

// ready waits until so many nodes take part.
func (r *rig) ready(members int) {
	r.t.Helper()
	r.await(fmt.Sprintf("%d nodes take part", members), func() bool { s := r.Status(); return s.State == "ready" && s.Members == members })
}

// on asks an engine and returns its answer, which has to be good.
func (r *rig) on(i int, method, path string, body any) []byte {
	r.t.Helper()
	status, b := r.daemons[i].Do(method, path, body)
	if status/100 != 2 {
		r.t.Fatalf("n%d: %s %s = %d %s", i+1, method, path, status, b)
	}
	return b
}

// run starts a container in a network on an engine, with an address if there is one.
func (r *rig) run(i int, name, network, address string) {
	r.t.Helper()
	at := map[string]any{}
	if address != "" {
		at = map[string]any{"IPAMConfig": map[string]string{"IPv4Address": address}, "DriverOpts": map[string]string{"berth.address": "fixed"}, "Aliases": []string{"alias"}}
	}
	r.on(i, "POST", "/v1.41/containers/create?name="+name, map[string]any{
		"Image": "busybox", "Cmd": []string{"sleep", "1000"}, "HostConfig": map[string]any{"NetworkMode": network},
		"NetworkingConfig": map[string]any{"EndpointsConfig": map[string]any{network: at}},
	})
	r.on(i, "POST", "/v1.41/containers/"+name+"/start", nil)
}

// place is a container's address in a network, and its aliases but the first of its ID.
func (r *rig) place(i int, name, network string) string {
	r.t.Helper()
	var is struct {
		ID              string `json:"Id"`
		NetworkSettings struct {
			Networks map[string]struct {
				IPAddress string
				Aliases   []string
			}
		}
	}
	if err := json.Unmarshal(r.on(i, "GET", "/v1.41/containers/"+name+"/json", nil), &is); err != nil {
		r.t.Fatal(err)
	}
	at := is.NetworkSettings.Networks[network]
	aliases := slices.DeleteFunc(at.Aliases, func(a string) bool { return strings.HasPrefix(is.ID, a) })
	return strings.TrimSpace(at.IPAddress + " " + strings.Join(aliases, " "))
}

func decodeInto(t *testing.T, b []byte, v any) {
	t.Helper()
	if err := json.Unmarshal(b, v); err != nil {
		t.Fatalf("%v in %s", err, b)
	}
}

// users is how many containers are seen in networks.
func (r *rig) users() int {
	n := 0
	for _, w := range networks(r.fleet.Snapshot()) {
		n += len(w.Containers)
	}
	return n
}
