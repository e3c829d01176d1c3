package ingress

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"berth/internal/fleet"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// here and there are two addresses of this computer; there stands for nodes.
const here, there = "127.0.0.1", "127.0.0.2"

// fakeFleet is a snapshot that tests change.
type fakeFleet struct {
	snap    atomic.Pointer[fleet.Snapshot]
	reached atomic.Int64
}

func (f *fakeFleet) Snapshot() *fleet.Snapshot { return f.snap.Load() }
func (f *fakeFleet) Looked() <-chan struct{}   { c := make(chan struct{}); close(c); return c }
func (f *fakeFleet) Reaches(id string) bool    { return id == "ssh" }
func (f *fakeFleet) Reach(ctx context.Context, id, addr string) (net.Conn, error) {
	f.reached.Add(1)
	_, port, _ := net.SplitHostPort(addr)
	return new(net.Dialer).DialContext(ctx, "tcp", net.JoinHostPort(there, port))
}

func (f *fakeFleet) set(nodes ...*fleet.Node) {
	s := new(fleet.Snapshot)
	if old := f.snap.Load(); old != nil {
		s = old
		for _, n := range old.Nodes() {
			s = s.Without(n.ID)
		}
	}
	for _, n := range nodes {
		s = s.Replace(n.Seal())
	}
	f.snap.Store(s)
}

func node(id string, cs ...*fleet.Container) *fleet.Node {
	return &fleet.Node{ID: id, Name: id, Addr: there + ":2375", IP: there, State: fleet.Healthy, Containers: cs}
}

func running(id string, ports ...fleet.Port) *fleet.Container {
	return &fleet.Container{ID: id, Name: "name-" + id, State: "running", Published: ports, Wanted: ports}
}

func tcp(port uint16) fleet.Port {
	return fleet.Port{Proto: "tcp", HostIP: "0.0.0.0", HostPort: port, Port: 80}
}
func udp(port uint16) fleet.Port {
	return fleet.Port{Proto: "udp", HostIP: "0.0.0.0", HostPort: port, Port: 53}
}

// start runs an ingress on here.
func start(t *testing.T, f *fakeFleet, edit ...func(*Options)) *Ingress {
	t.Helper()
	if f.snap.Load() == nil {
		f.set()
	}
	o := Options{Fleet: f, Address: netip.MustParseAddr(here), Limits: DefaultLimits(), Timing: DefaultTiming(), Log: slog.New(slog.DiscardHandler)}
	o.Timing.Every, o.Timing.Retry, o.Timing.Dial = 5*time.Millisecond, 10*time.Millisecond, time.Second
	for _, e := range edit {
		e(&o)
	}
	i := New(o)
	i.ours = func(netip.Addr) bool { return false }
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- i.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("Run: %v", err)
		}
	})
	eventually(t, "the ingress runs", func() bool {
		i.mu.Lock()
		defer i.mu.Unlock()
		return i.ctx != nil
	})
	return i
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(5 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within 5 s: %s", what)
		}
	}
}

func dial(t *testing.T, port uint16) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", net.JoinHostPort(here, strconv.Itoa(int(port))))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func answers(port uint16) bool {
	c, err := net.Dial("tcp", net.JoinHostPort(here, strconv.Itoa(int(port))))
	if err != nil {
		return false
	}
	_ = c.Close()
	return true
}

// backend listens there, on a port that is free on both addresses, and serves each connection.
func backend(t *testing.T, serve func(net.Conn)) uint16 {
	t.Helper()
	var wg sync.WaitGroup
	for range 100 {
		l, err := net.Listen("tcp", there+":0")
		if err != nil {
			t.Fatal(err)
		}
		port := l.Addr().(*net.TCPAddr).AddrPort().Port() //nolint:forcetypeassert // a TCP listener's
		if probe(key{"tcp", netip.AddrPortFrom(netip.MustParseAddr(here), port)}) != nil {
			_ = l.Close()
			continue
		}
		wg.Go(func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				wg.Go(func() { defer c.Close(); serve(c) })
			}
		})
		t.Cleanup(func() { _ = l.Close(); wg.Wait() })
		return port
	}
	t.Fatal("no port is free")
	return 0
}

// count answers with how many bytes came, once the client has ended its side.
func countBytes(c net.Conn) {
	n, _ := io.Copy(io.Discard, c)
	_, _ = io.WriteString(c, strconv.FormatInt(n, 10))
}

func echo(c net.Conn) { _, _ = io.Copy(c, c) }

func TestAPortOfAnotherNodeAnswersHere(t *testing.T) {
	f := new(fakeFleet)
	port := backend(t, countBytes)
	f.set(node("n1", running("a", tcp(port))))
	start(t, f)
	eventually(t, "the port is open", func() bool { return answers(port) })
	c := dial(t, port)
	body := bytes.Repeat([]byte("x"), 3<<20)
	if _, err := c.Write(body); err != nil {
		t.Fatal(err)
	}
	if err := c.(*net.TCPConn).CloseWrite(); err != nil { //nolint:forcetypeassert // dial's
		t.Fatal(err)
	}
	if b, err := io.ReadAll(c); err != nil || string(b) != strconv.Itoa(len(body)) {
		t.Errorf("the answer after a half-close is %q, %v, want %d", b, err, len(body))
	}
	f.set(node("n1"))
	eventually(t, "the port is closed with the container", func() bool { return !answers(port) })
}

func TestConnectionsEndWithTheirPort(t *testing.T) {
	f := new(fakeFleet)
	port := backend(t, echo)
	f.set(node("n1", running("a", tcp(port))))
	start(t, f)
	eventually(t, "the port is open", func() bool { return answers(port) })
	c := dial(t, port)
	if _, err := io.WriteString(c, "hi"); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(c, make([]byte, 2)); err != nil {
		t.Fatal(err)
	}
	f.set()
	if err := c.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
		t.Fatal(err)
	}
	var late net.Error
	if _, err := c.Read(make([]byte, 1)); err == nil || errors.As(err, &late) && late.Timeout() {
		t.Errorf("the connection lives on: %v", err)
	}
}

func TestAnEngineBehindSSHIsReachedThroughIt(t *testing.T) {
	f := new(fakeFleet)
	port := backend(t, echo)
	n := node("ssh", running("a", fleet.Port{Proto: "tcp", HostIP: "127.0.0.1", HostPort: port, Port: 80}))
	n.Addr = "ssh://root@host"
	f.set(n)
	start(t, f)
	eventually(t, "the port is open", func() bool { return answers(port) })
	c := dial(t, port)
	if _, err := io.WriteString(c, "hi"); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 2)
	if _, err := io.ReadFull(c, b); err != nil || string(b) != "hi" {
		t.Errorf("got %q, %v", b, err)
	}
	if f.reached.Load() == 0 { // asked beside the accepting
		t.Error("Reach was not asked")
	}
}

func TestWhatCannotBeReachedResets(t *testing.T) {
	f := new(fakeFleet)
	port := backend(t, echo)
	var gone uint16
	for gone = port + 1; probe(key{"tcp", netip.AddrPortFrom(netip.MustParseAddr(here), gone)}) != nil; gone++ { //nolint:revive // the condition is the work
	}
	f.set(node("n1", running("a", tcp(gone))))
	start(t, f)
	eventually(t, "the port is open", func() bool { return answers(gone) })
	c, err := net.Dial("tcp", net.JoinHostPort(here, strconv.Itoa(int(gone))))
	if err != nil {
		return // reset before we looked
	}
	defer c.Close()
	if b, err := io.ReadAll(c); err == nil {
		t.Errorf("a container that does not listen answers %q", b)
	}
}

func TestAPortThatAnotherProgramHas(t *testing.T) {
	f := new(fakeFleet)
	port := backend(t, echo)
	other, err := net.Listen("tcp", net.JoinHostPort(here, strconv.Itoa(int(port))))
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	n, a := node("n1"), running("a", tcp(port))
	i := start(t, f)
	if got := i.Conflicts(n, a.Wanted, func(string) bool { return false }); len(got) != 1 || got[0].Elsewhere != there || got[0].Reason != "another program has it on this computer" {
		t.Errorf("conflicts: %+v", got)
	}
	if i.Free(tcp(port)) {
		t.Error("the port counts as free")
	}
	f.set(node("n1", a))
	eventually(t, "the container is hindered", func() bool { return len(i.Hindered("a")) == 1 })
	if h := i.Hindered("a")[0]; h.Elsewhere != there || h.Port != tcp(port) {
		t.Errorf("hindered: %+v", h)
	}
	if len(i.Notices()) != 1 {
		t.Error("docker info does not tell")
	}
	_ = other.Close()
	eventually(t, "the port is had once the other program has ended", func() bool { return len(i.Hindered("a")) == 0 && answers(port) })
	if len(i.Notices()) != 0 {
		t.Error("docker info still tells")
	}
}

func TestAStrictIngressRefusesTheStart(t *testing.T) {
	f := new(fakeFleet)
	port := backend(t, echo)
	f.set(node("n1", running("a", tcp(port))), node("n2"))
	i := start(t, f, func(o *Options) { o.Strict = true })
	eventually(t, "the port is open", func() bool { return answers(port) })
	b := running("b", tcp(port))
	_, err := i.Claim(node("n2"), b)
	var taken *fleet.PortTakenError
	if want := "Bind for 0.0.0.0:" + strconv.Itoa(int(port)) + " failed: port is already allocated: it leads to container name-a on node n1"; !errors.As(err, &taken) || err.Error() != want {
		t.Errorf("claim of a taken port: %v, want %s", err, want)
	}
	if got := i.Conflicts(node("n2"), b.Wanted, func(id string) bool { return id == "a" }); len(got) != 0 {
		t.Errorf("a predecessor is in the way: %+v", got)
	}
	f.set(node("n1"), node("n2"))
	eventually(t, "the port is closed", func() bool { return !answers(port) })
	done, err := i.Claim(node("n2"), b)
	if err != nil {
		t.Fatal(err)
	}
	if !answers(port) {
		t.Error("a port that was claimed does not answer at once")
	}
	done(false)
	if answers(port) {
		t.Error("the port of a container that did not start answers")
	}
	waiting := *b
	waiting.State, waiting.Published = "created", nil
	f.set(node("n1"), node("n2", &waiting))
	done, err = i.Claim(node("n2"), &waiting)
	if err != nil {
		t.Fatal(err)
	}
	done(true)
	time.Sleep(20 * time.Millisecond) // some passes, without the snapshot having caught up
	if !answers(port) {
		t.Error("the port of a started container closed before the snapshot showed it")
	}
	f.set(node("n1"), node("n2", b))
	time.Sleep(20 * time.Millisecond)
	f.set(node("n1"), node("n2"))
	eventually(t, "the port is closed again", func() bool { return !answers(port) })
}

func TestAPortFollowsTheContainer(t *testing.T) {
	f := new(fakeFleet)
	port := backend(t, echo)
	old, young := running("b", tcp(port)), running("a", tcp(port))
	old.Created, young.Created = 1, 2
	f.set(node("n1", old), node("n2", young))
	i := start(t, f)
	owner := func() string {
		i.mu.Lock()
		defer i.mu.Unlock()
		for _, o := range i.open {
			return o.owner().id
		}
		return ""
	}
	eventually(t, "the older has it", func() bool { return owner() == "b" && len(i.Hindered("a")) == 1 })
	lost := node("n1", old)
	lost.State = fleet.Unhealthy
	f.set(lost, node("n2", young))
	eventually(t, "that on a node that answers has it", func() bool { return owner() == "a" && len(i.Hindered("a")) == 0 && len(i.Hindered("b")) == 1 })
	f.set(node("n1", old), node("n2", young))
	time.Sleep(20 * time.Millisecond)
	if owner() != "a" {
		t.Error("the port went back although nothing was wrong with where it led")
	}
	f.set(node("n1", old), node("n2"))
	eventually(t, "the other has it again", func() bool { return owner() == "b" })
}

// udpBackend answers each datagram with itself and "!".
func udpBackend(t *testing.T) uint16 {
	t.Helper()
	for range 100 {
		c, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.ParseIP(there)})
		if err != nil {
			t.Fatal(err)
		}
		port := c.LocalAddr().(*net.UDPAddr).AddrPort().Port() //nolint:forcetypeassert // a UDP socket's
		if probe(key{"udp", netip.AddrPortFrom(netip.MustParseAddr(here), port)}) != nil {
			_ = c.Close()
			continue
		}
		done := make(chan struct{})
		go func() {
			defer close(done)
			buf := make([]byte, datagramSize)
			for {
				n, from, err := c.ReadFromUDPAddrPort(buf)
				if err != nil {
					return
				}
				_, _ = c.WriteToUDPAddrPort(append(buf[:n:n], '!'), from)
			}
		}()
		t.Cleanup(func() { _ = c.Close(); <-done })
		return port
	}
	t.Fatal("no port is free")
	return 0
}

func ask(t *testing.T, c net.Conn, what string) string {
	t.Helper()
	buf := make([]byte, datagramSize)
	for range 50 {
		_, _ = io.WriteString(c, what)
		_ = c.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
		if n, err := c.Read(buf); err == nil {
			return string(buf[:n])
		}
	}
	return ""
}

func TestDatagrams(t *testing.T) {
	f := new(fakeFleet)
	port := udpBackend(t)
	f.set(node("n1", running("a", udp(port))))
	i := start(t, f, func(o *Options) { o.Limits.Flows, o.Timing.Idle = 3, 100*time.Millisecond })
	eventually(t, "the port is open", func() bool { open, _ := i.Summary(); return open == 1 })
	var clients []net.Conn
	for n := range 6 { // twice as many as there are places
		c, err := net.Dial("udp", net.JoinHostPort(here, strconv.Itoa(int(port))))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		clients = append(clients, c)
		if got, want := ask(t, c, strconv.Itoa(n)), strconv.Itoa(n)+"!"; got != want {
			t.Errorf("client %d got %q", n, got)
		}
	}
	if got := ask(t, clients[0], "again"); got != "again!" {
		t.Errorf("a peer that was forgotten got %q", got)
	}
	time.Sleep(250 * time.Millisecond)
	if got := ask(t, clients[5], "late"); got != "late!" {
		t.Errorf("a peer that was silent got %q", got)
	}
	big := string(bytes.Repeat([]byte("b"), 60000))
	if got := ask(t, clients[5], big); got != big+"!" {
		t.Errorf("of a large datagram came back %d bytes", len(got))
	}
}

func TestKeysAndRoutes(t *testing.T) {
	i := New(Options{Fleet: new(fakeFleet), Limits: DefaultLimits()})
	at := &fleet.Node{ID: "n", Name: "n", Addr: "10.0.0.1:2376", IP: "10.0.0.1"}
	forwarded := &fleet.Node{ID: "n", Name: "n", Addr: "127.0.0.1:40001"} // whose own address leads elsewhere
	overSSH := &fleet.Node{ID: "n", Name: "n", Addr: "ssh://root@h", IP: "10.0.0.1"}
	tunnelled := &fleet.Node{ID: "n", Name: "n", Addr: "ssh://root@localhost:2222", IP: "127.0.0.1"}
	for _, tt := range []struct {
		what    string
		n       *fleet.Node
		p       fleet.Port
		reaches bool
		keys    string
		route   route
		why     string
	}{
		{"everywhere", at, fleet.Port{Proto: "tcp", HostPort: 80}, false, "0.0.0.0:80/tcp [::]:80/tcp ", route{"n", "10.0.0.1:80", false}, ""},
		{"IPv4", at, fleet.Port{Proto: "udp", HostIP: "0.0.0.0", HostPort: 80}, false, "0.0.0.0:80/udp ", route{"n", "10.0.0.1:80", false}, ""},
		{"IPv6", at, fleet.Port{Proto: "tcp", HostIP: "::", HostPort: 80}, false, "[::]:80/tcp ", route{"n", "10.0.0.1:80", false}, ""},
		{"the node's own address", at, fleet.Port{Proto: "tcp", HostIP: "10.0.0.1", HostPort: 80}, false, "", route{}, ""},
		{"loopback", at, fleet.Port{Proto: "tcp", HostIP: "127.0.0.1", HostPort: 80}, false, "127.0.0.1:80/tcp ", route{}, "it is published on the loopback of node n, where only SSH would lead"},
		{"loopback, with SSH", at, fleet.Port{Proto: "tcp", HostIP: "127.0.0.1", HostPort: 80}, true, "127.0.0.1:80/tcp ", route{"n", "127.0.0.1:80", true}, ""},
		{"over SSH", overSSH, fleet.Port{Proto: "tcp", HostPort: 80}, true, "0.0.0.0:80/tcp [::]:80/tcp ", route{"n", "127.0.0.1:80", true}, ""},
		{"behind a forward", forwarded, fleet.Port{Proto: "tcp", HostPort: 80}, true, "0.0.0.0:80/tcp [::]:80/tcp ", route{"n", "127.0.0.1:80", true}, ""},
		{"behind a forward, without SSH", forwarded, fleet.Port{Proto: "tcp", HostPort: 80}, false, "0.0.0.0:80/tcp [::]:80/tcp ", route{}, "the address of node n is not known"},
		{"UDP behind a forward", forwarded, fleet.Port{Proto: "udp", HostPort: 80}, true, "0.0.0.0:80/udp [::]:80/udp ", route{}, "UDP does not go through SSH"},
		{"UDP beside SSH", overSSH, fleet.Port{Proto: "udp", HostPort: 80}, true, "0.0.0.0:80/udp [::]:80/udp ", route{"n", "10.0.0.1:80", false}, ""},
		{"UDP through SSH", tunnelled, fleet.Port{Proto: "udp", HostPort: 80}, true, "0.0.0.0:80/udp [::]:80/udp ", route{}, "UDP does not go through SSH"},
		{"SCTP", at, fleet.Port{Proto: "sctp", HostPort: 80}, true, "0.0.0.0:80/sctp [::]:80/sctp ", route{}, "SCTP is not forwarded"},
	} {
		keys, ok := i.keys(tt.p)
		got := ""
		for _, k := range keys {
			got += k.String() + " "
		}
		if got != tt.keys || ok != (tt.keys != "") {
			t.Errorf("%s: keys %q, %v, want %q", tt.what, got, ok, tt.keys)
		}
		if !ok {
			continue
		}
		if r, why := i.route(tt.n, tt.p, tt.reaches); r != tt.route || why != tt.why {
			t.Errorf("%s: route %+v, %q, want %+v, %q", tt.what, r, why, tt.route, tt.why)
		}
	}
	for addr, want := range map[string]bool{"unix:///var/run/docker.sock": true, "127.0.0.1:2375": true, "ssh://root@127.0.0.1": false, "192.0.2.1:2376": false} {
		host, _, err := net.SplitHostPort(addr)
		if err != nil {
			host = here
		}
		if got := i.here(&fleet.Node{Addr: addr, IP: host}); got != want {
			t.Errorf("%s is on this computer: %v, want %v", addr, got, want)
		}
	}
}

// What is open follows from the snapshot alone, whatever came before.
func TestItIsLevelTriggered(t *testing.T) {
	f := new(fakeFleet)
	var ports []uint16
	for range 4 {
		ports = append(ports, backend(t, echo))
	}
	i := start(t, f)
	for range 60 {
		var a, b []*fleet.Container
		want := map[uint16]bool{}
		for k, p := range ports {
			c := running(strconv.Itoa(k), tcp(p))
			switch rand.IntN(4) {
			case 0:
				a, want[p] = append(a, c), true
			case 1:
				b, want[p] = append(b, c), true
			case 2:
				c.State, c.Published = "exited", nil
				b = append(b, c)
			}
		}
		f.set(node("n1", a...), node("n2", b...))
		if rand.IntN(2) == 0 {
			i.Follow()
		}
		if rand.IntN(4) > 0 {
			continue
		}
		for _, p := range ports {
			eventually(t, "the port is as it should be", func() bool { return answers(p) == want[p] })
		}
	}
}
