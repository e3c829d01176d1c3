//go:build e2e

package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

const (
	// replicationTTL of the managers under test.
	replicationTTL = 3 * time.Second
	// inTime is when another primary is there on a computer that does nothing else, and slack what a busy one may take.
	inTime = replicationTTL + 2*time.Second
	slack  = 20 * time.Second
)

// soon is eventually, which tells how long it took where that is worth knowing. At night, with nothing else to do, it has to be in time.
func soon(t *testing.T, what string, ok func() bool) {
	t.Helper()
	began := time.Now()
	eventually(t, inTime+slack, what, ok)
	if took := time.Since(began); took > inTime {
		tell := t.Logf
		if nightly() {
			tell = t.Errorf
		}
		tell("%s: only after %s", what, took.Round(time.Millisecond))
	}
}

// team is several managers over the shared engines, with an etcd beneath.
type team struct {
	w        *world
	dir      string
	etcd     *kvServer
	engines  []string
	managers []*teamManager
	options  []string // of berth serve, beside what all have
	// by leads managers to an engine by another address; nil is the direct way.
	by func(host, addr string) string
}

type teamManager struct {
	name, addr string
	cmd        *exec.Cmd
	// peers is the way from other managers to this one, and store its way to etcd; nil is the direct one.
	peers, store *gate
}

func (m *teamManager) advertised() string {
	if m.peers != nil {
		return m.peers.addr
	}
	return m.addr
}

func (g *team) storeOf(m *teamManager) string {
	if m.store != nil {
		return "etcd://" + m.store.addr
	}
	return g.url()
}

// newTeam starts etcd, three managers and what leads them to the engines.
func newTeam(t *testing.T, w *world) *team {
	t.Helper()
	return newTeamOf(t, w, &team{}, func(*teamManager, *kvServer) {})
}

// newTeamOf is newTeam of what g has of its own already, and with managers that are prepared before they are started.
func newTeamOf(t *testing.T, w *world, g *team, prepare func(*teamManager, *kvServer)) *team {
	t.Helper()
	g.w, g.dir, g.etcd = w, t.TempDir(), startEtcd(t)
	for _, host := range []string{"host1", "host2", "host3"} {
		addr := forward(t, w.engineSocket(t, host))
		if g.by != nil {
			addr = g.by(host, addr)
		}
		g.engines = append(g.engines, addr)
		background(t, w.command("berth", "join", "--advertise", addr, "--heartbeat", "1s", "--ttl", "20s", g.url()))
	}
	for i := range 3 {
		m := &teamManager{name: "manager" + strconv.Itoa(i+1), addr: "127.0.0.1:" + freePort(t)}
		prepare(m, g.etcd)
		g.managers = append(g.managers, m)
		g.start(t, m)
	}
	t.Cleanup(g.end(t))
	for _, m := range g.managers {
		eventually(t, 20*time.Second, m.name+" knows the fleet", func() bool {
			info, err := m.info(t.Context())
			return err == nil && strings.Contains(info, "Nodes 3\n") && strings.Count(info, "Status Healthy\n") == 3
		})
	}
	return g
}

// end kills the managers, and tells what they said if the test failed.
func (g *team) end(t *testing.T) func() {
	return func() {
		for _, m := range g.managers {
			m.kill()
		}
		if t.Failed() {
			for _, m := range g.managers {
				b, _ := os.ReadFile(filepath.Join(g.dir, m.name+".log")) // for reading only
				t.Logf("%s at %s:\n%s", m.name, m.addr, b[max(0, len(b)-4000):])
			}
		}
	}
}

// forward leads a port of this computer to an engine's socket, for as long as the test goes on.
func forward(t *testing.T, socket string) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(func() { cancel(); l.Close(); wg.Wait() })
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { carry(ctx, c, socket) })
		}
	})
	return l.Addr().String()
}

func carry(ctx context.Context, c net.Conn, socket string) {
	defer c.Close()
	e, err := net.Dial("unix", socket)
	if err != nil {
		return
	}
	defer e.Close()
	stop := context.AfterFunc(ctx, func() { c.Close(); e.Close() })
	defer stop()
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = io.Copy(e, c)
		_ = e.(*net.UnixConn).CloseWrite()
	}()
	_, _ = io.Copy(c, e)
	c.Close()
	<-done
}

func (g *team) url() string { return "etcd://" + g.etcd.addr }

func (g *team) start(t *testing.T, m *teamManager) {
	t.Helper()
	log, err := os.OpenFile(filepath.Join(g.dir, m.name+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	m.cmd = g.w.command("berth", "-s", filepath.Join(g.dir, m.name), "serve", "--no-context", "-H", "tcp://"+m.addr, "--replication", "--replication-ttl", replicationTTL.String(),
		"--advertise", m.advertised())
	m.cmd.Args = append(append(m.cmd.Args, g.options...), g.storeOf(m))
	m.cmd.Stdout, m.cmd.Stderr = log, log
	if err := m.cmd.Start(); err != nil {
		t.Fatal(err)
	}
}

func (m *teamManager) kill() {
	if m.cmd != nil {
		_ = m.cmd.Process.Kill()
		_ = m.cmd.Wait() // that it ended is what counts
		m.cmd = nil
	}
}

// info is the table that docker info shows.
func (m *teamManager) info(ctx context.Context) (string, error) {
	_, b, err := m.ask(ctx, http.MethodGet, "/info", "")
	if err != nil {
		return "", err
	}
	var info struct{ SystemStatus [][2]string }
	if err := json.Unmarshal([]byte(b), &info); err != nil {
		return "", err
	}
	var text strings.Builder
	for _, row := range info.SystemStatus {
		text.WriteString(row[0] + " " + row[1] + "\n")
	}
	return text.String(), nil
}

func (m *teamManager) ask(ctx context.Context, method, path, body string) (int, string, error) {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, method, "http://"+m.addr+path, strings.NewReader(body))
	if err != nil {
		return 0, "", err
	}
	r.Header.Set("Content-Type", "application/json")
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		return 0, "", err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	return res.StatusCode, string(b), err
}

// primary is the one manager that says it is; nil while there is none.
func (g *team) primary(t *testing.T) *teamManager {
	t.Helper()
	for _, m := range g.managers {
		if m.cmd == nil {
			continue
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		info, err := m.info(ctx)
		cancel()
		if err == nil && strings.Contains(info, "Role primary\n") {
			return m
		}
	}
	return nil
}

// elected waits for a primary, another one than not.
func (g *team) elected(t *testing.T, not *teamManager) (p *teamManager) {
	t.Helper()
	soon(t, "there is a primary", func() bool { p = g.primary(t); return p != nil && p != not })
	return p
}

// load is clients that create containers, each at any of the managers, and try again what was not answered well.
type load struct {
	g    *team
	stop context.CancelFunc
	wg   sync.WaitGroup

	mu      sync.Mutex
	made    map[string]string // ID → name, of those that were answered 201
	last    time.Time         // of the latest of these
	refused map[string]int    // answers that let a client try again
	wrong   []string
}

const loadClients = 32

// loadPatience is how long a client waits until it tries another manager: one that hears of no primary waits for longer. At night it is less than
// what is allowed for: all clients may wait at that one manager.
func loadPatience() time.Duration {
	if nightly() {
		return replicationTTL / 2
	}
	return 8 * time.Second
}

// labelPort says what host port a container asks for, which lists do not say of one that was never started.
const labelPort = "port"

func (g *team) load(t *testing.T) *load {
	ctx, cancel := context.WithCancel(t.Context())
	l := &load{g: g, stop: cancel, made: map[string]string{}, refused: map[string]int{}}
	for c := range loadClients {
		l.wg.Go(func() { l.client(ctx, c) })
	}
	t.Cleanup(l.end)
	return l
}

func (l *load) end() {
	l.stop()
	l.wg.Wait()
}

func (l *load) client(ctx context.Context, c int) {
	for i := 0; ctx.Err() == nil; i++ {
		name := fmt.Sprintf("load-%d-%d", c, i)
		spec := `{"Image":"busybox:latest","Cmd":["true"]}`
		if i%2 == 0 { // two clients want one port, which two nodes have
			port := strconv.Itoa(30000 + c/2*1000 + i)
			spec = fmt.Sprintf(`{"Image":"busybox:latest","Cmd":["true"],"Labels":{%q:%q},"HostConfig":{"PortBindings":{"80/tcp":[{"HostPort":%q}]}}}`, labelPort, port, port)
		}
		for try := 0; ctx.Err() == nil && !l.create(ctx, l.g.managers[(c+i+try)%len(l.g.managers)], name, spec); try++ {
			time.Sleep(100 * time.Millisecond)
		}
		time.Sleep(time.Second) // engines that do nothing but create leave managers and stores too little of the computer to be in time
	}
}

// create tells whether the client is done with that name.
func (l *load) create(ctx context.Context, m *teamManager, name, spec string) bool {
	ctx, cancel := context.WithTimeout(ctx, loadPatience())
	defer cancel()
	code, body, err := m.ask(ctx, http.MethodPost, "/containers/create?name="+name, spec)
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case err != nil:
		l.refused["connection"]++
		return false
	case code == http.StatusCreated:
		var a struct {
			ID string `json:"Id"`
		}
		if err := json.Unmarshal([]byte(body), &a); err != nil || a.ID == "" || l.made[a.ID] != "" {
			l.wrong = append(l.wrong, fmt.Sprintf("%s: 201 with %s, %v", name, body, err))
		}
		l.made[a.ID], l.last = name, time.Now()
		return true
	case code == http.StatusConflict:
		l.refused["conflict"]++ // an earlier try was carried out and not answered
		return true
	case code == http.StatusServiceUnavailable, code == http.StatusInternalServerError:
		l.refused[fmt.Sprint(code)]++
		return false
	}
	l.wrong = append(l.wrong, fmt.Sprintf("%s: %d %s", name, code, body))
	return true
}

func (l *load) since(at time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.last.After(at)
}

// check compares what clients were told with what the engines have.
func (l *load) check(t *testing.T) {
	t.Helper()
	l.end()
	l.g.settle(t)
	where, names := map[string]int{}, map[string]int{}
	for _, addr := range l.g.engines {
		ports := map[string]string{}
		for id, c := range containersAt(t, addr) {
			where[id]++
			names[c.name]++
			if other := ports[c.port]; other != "" && c.port != "" {
				t.Errorf("%s and %s have port %s of one node", c.name, other, c.port)
			}
			ports[c.port] = c.name
		}
	}
	for id, name := range l.made {
		if where[id] != 1 {
			t.Errorf("%s was answered 201 and exists %d times", name, where[id])
		}
	}
	for name, n := range names {
		if n > 1 {
			t.Errorf("%s exists %d times", name, n)
		}
	}
	for _, w := range l.wrong {
		t.Errorf("answered wrongly: %s", w)
	}
	t.Logf("%d created, tried again after %v", len(l.made), l.refused)
	l.g.clear(t)
}

// held is what an engine's container has that nobody else may have.
type held struct{ name, port string }

// containersAt are an engine's containers by ID.
func containersAt(t *testing.T, addr string) map[string]held {
	t.Helper()
	_, b, err := (&teamManager{addr: addr}).ask(t.Context(), http.MethodGet, `/containers/json?all=1`, "")
	if err != nil {
		t.Fatal(err)
	}
	var rows []struct {
		ID     string `json:"Id"`
		Names  []string
		Labels map[string]string
	}
	if err := json.Unmarshal([]byte(b), &rows); err != nil {
		t.Fatal(err)
	}
	all := map[string]held{}
	for _, r := range rows {
		all[r.ID] = held{r.Names[0], r.Labels[labelPort]}
	}
	return all
}

// settle waits until what clients began is made, and what they left is removed.
func (g *team) settle(t *testing.T) {
	t.Helper()
	before, calm := "", 0
	eventually(t, time.Minute, "the engines come to rest", func() bool {
		now := ""
		for _, addr := range g.engines {
			now += fmt.Sprintln(slices.Sorted(maps.Keys(containersAt(t, addr))))
		}
		if calm++; now != before {
			before, calm = now, 0
		}
		time.Sleep(200 * time.Millisecond)
		return calm >= 8
	})
}

// clear removes all containers by their engines.
func (g *team) clear(t *testing.T) {
	t.Helper()
	var wg sync.WaitGroup
	for _, addr := range g.engines {
		all := containersAt(t, addr)
		wg.Go(func() {
			e := &teamManager{addr: addr}
			for id, c := range all {
				code, answer, err := e.ask(t.Context(), http.MethodDelete, "/containers/"+id+"?force=1&v=1", "")
				if err != nil || code != http.StatusNoContent && code != http.StatusNotFound {
					t.Errorf("remove %s: %d %s, %v", c.name, code, answer, err)
				}
			}
		})
	}
	wg.Wait()
}

// Primaries die, are stopped and wake up, managers come back, and the store goes away, while clients create containers: each that was
// answered exists once, no name is held twice, and there is always soon a primary again.
func TestManagersUnderFaults(t *testing.T) {
	w := fleet(t)
	g := newTeam(t, w)
	seed := uint64(time.Now().UnixNano()) //nolint:gosec // any will do
	if v := os.Getenv("BERTH_SEED"); v != "" {
		n, err := strconv.ParseUint(v, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		seed = n
	}
	t.Logf("BERTH_SEED=%d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	l := g.load(t)
	eventually(t, 20*time.Second, "containers are created", func() bool { return l.since(time.Time{}) })
	faults := []func(*testing.T, *team){killPrimary, stopPrimary, restartEtcd}
	random.Shuffle(len(faults), func(i, j int) { faults[i], faults[j] = faults[j], faults[i] })
	for _, fault := range faults {
		fault(t, g)
		again := time.Now()
		soon(t, "containers are created again", func() bool { return l.since(again) })
		soon(t, "there is a primary", func() bool { return g.primary(t) != nil })
		time.Sleep(time.Duration(random.IntN(1000)) * time.Millisecond)
	}
	l.check(t)
}

// What is wanted of nodes is wanted of them whoever is the primary.
func TestIntentsOutliveThePrimary(t *testing.T) {
	w := fleet(t)
	g := newTeam(t, w)
	was := g.elected(t, nil)
	at := func(m *teamManager, args ...string) *exec.Cmd {
		return w.command("docker", append([]string{"-H", "tcp://" + m.addr}, args...)...)
	}
	var replica *teamManager
	for _, m := range g.managers {
		if m != was {
			replica = m
		}
	}
	must(t, at(replica, "node", "update", "--availability", "pause", "--label-add", "rack=7", "host2"))
	wanted := func(m *teamManager) string {
		return must(t, at(m, "node", "inspect", "--format", "{{.Spec.Availability}} {{.Spec.Labels.rack}}", "host2"))
	}
	same(t, "at the replica that was asked", wanted(replica), "pause 7")
	same(t, "at the primary", wanted(was), "pause 7")
	for _, m := range g.managers {
		soon(t, m.name+" shows it", func() bool { return wanted(m) == "pause 7" })
	}
	t.Logf("kill -9 %s", was.name)
	was.kill()
	now := g.elected(t, was)
	contains(t, "node ls at the new primary", must(t, at(now, "node", "ls", "--filter", "name=host2")), "host2", "Pause")
	contains(t, "a create for the paused node", fails(t, at(now, "create", "-e", "constraint:rack==7", "busybox")), "1 paused")
	g.start(t, was)
	eventually(t, 20*time.Second, "the one that was killed knows it", func() bool {
		out, err := at(was, "node", "ls", "--filter", "name=host2").CombinedOutput()
		return err == nil && strings.Contains(string(out), "Pause")
	})
	must(t, at(was, "node", "update", "--availability", "active", "host2"))
	soon(t, now.name+" lets the node take containers", func() bool { return wanted(now) == "active 7" })
}

// killPrimary kills the primary and starts it again.
func killPrimary(t *testing.T, g *team) {
	m := g.primary(t)
	if m == nil {
		t.Fatal("no primary to kill")
	}
	t.Logf("kill -9 %s", m.name)
	m.kill()
	soon(t, "there is another primary", func() bool { return g.primary(t) != nil })
	g.start(t, m)
}

// stopPrimary stops it for longer than its lease, and lets it go on.
func stopPrimary(t *testing.T, g *team) {
	m := g.primary(t)
	if m == nil {
		t.Fatal("no primary to stop")
	}
	t.Logf("SIGSTOP %s", m.name)
	if err := m.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	soon(t, "there is another primary", func() bool { p := g.primary(t); return p != nil && p != m })
	asleep := time.Second
	if nightly() {
		asleep = time.Minute // longer than most of what waits for it
	}
	time.Sleep(asleep)
	if err := m.cmd.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
}

// restartEtcd takes the store away for longer than a lease lasts. Nobody may be primary then.
func restartEtcd(t *testing.T, g *team) {
	t.Log("etcd stops, and starts again")
	g.etcd.stop()
	soon(t, "nobody is primary without a store", func() bool { return g.primary(t) == nil })
	g.etcd.start()
	// etcd listens before it has elected itself; all leases last for their whole time anew from then on.
	eventually(t, 20*time.Second, "etcd answers", func() bool {
		res, err := http.Get("http://" + g.etcd.addr + "/health")
		if err != nil {
			return false
		}
		defer res.Body.Close()
		return res.StatusCode == http.StatusOK
	})
	soon(t, "there is a primary again", func() bool { return g.primary(t) != nil })
}
