package etcd

import (
	"context"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.etcd.io/etcd/client/pkg/v3/transport"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"go.uber.org/goleak"

	"berth/internal/cert"
	"berth/internal/discovery"
	"berth/internal/discovery/discoverytest"
	"berth/internal/election"
	"berth/internal/election/electiontest"
	"berth/internal/intents"
	"berth/internal/intents/intentstest"
)

func TestMain(m *testing.M) {
	if endpoint := os.Getenv(actor); endpoint != "" {
		act(endpoint)
		return
	}
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("gopkg.in/natefinch/lumberjack%2ev2.(*Logger).millRun"))
}

// server is a real etcd inside the test.
type server struct {
	dir    string
	client string // host:port
	peer   string
	etcd   *embed.Etcd
	tls    transport.TLSInfo // that clients must use, if it is not empty
}

func free(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func start(t *testing.T) *server {
	t.Helper()
	s := &server{dir: t.TempDir(), client: free(t), peer: free(t)}
	s.start(t)
	t.Cleanup(func() { s.stop(t) })
	return s
}

func (s *server) start(t *testing.T) {
	t.Helper()
	c := embed.NewConfig()
	c.Name, c.Dir, c.LogLevel = "e", s.dir, "fatal"
	c.LogOutputs = []string{os.DevNull}
	c.ListenClientUrls, c.AdvertiseClientUrls = []url.URL{{Scheme: "http", Host: s.client}}, []url.URL{{Scheme: "http", Host: s.client}}
	c.ListenPeerUrls, c.AdvertisePeerUrls = []url.URL{{Scheme: "http", Host: s.peer}}, []url.URL{{Scheme: "http", Host: s.peer}}
	if !s.tls.Empty() {
		c.ListenClientUrls[0].Scheme, c.AdvertiseClientUrls[0].Scheme, c.ClientTLSInfo = "https", "https", s.tls
	}
	c.InitialCluster = "e=http://" + s.peer
	c.TickMs, c.ElectionMs = 20, 200
	c.UnsafeNoFsync, c.BcryptCost = true, 4 // tests are not worth the time
	e, err := embed.StartEtcd(c)
	if err != nil {
		t.Fatal(err)
	}
	select {
	case <-e.Server.ReadyNotify():
	case <-time.After(20 * time.Second):
		e.Close()
		t.Fatal("etcd does not start")
	}
	s.etcd = e
}

func (s *server) stop(t *testing.T) {
	t.Helper()
	if s.etcd == nil {
		return
	}
	s.etcd.Close()
	<-s.etcd.Server.StopNotify()
	s.etcd = nil
}

func (s *server) admin(t *testing.T, user, password string) *clientv3.Client {
	t.Helper()
	c, err := clientv3.New(clientv3.Config{Endpoints: []string{s.client}, Username: user, Password: password, DialTimeout: 5 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func secret(t *testing.T, word string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(path, []byte(word+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// lock makes etcd want a user: root, and one who may do what berth does.
func (s *server) lock(t *testing.T) {
	t.Helper()
	c := s.admin(t, "", "")
	defer c.Close()
	ctx := t.Context()
	end := clientv3.GetPrefixRangeEnd("locked/")
	for name, err := range map[string]error{
		"root": second(c.UserAdd(ctx, "root", "r")), "role": second(c.RoleAdd(ctx, "fleet")), "berth": second(c.UserAdd(ctx, "berth", "b")),
		"other": second(c.UserAdd(ctx, "other", "o")),
	} {
		if err != nil {
			t.Fatal(name, err)
		}
	}
	for _, do := range []func() error{
		func() error { return second(c.UserGrantRole(ctx, "root", "root")) },
		func() error {
			return second(c.RoleGrantPermission(ctx, "fleet", "locked/", end, clientv3.PermissionType(clientv3.PermReadWrite)))
		},
		func() error { return second(c.UserGrantRole(ctx, "berth", "fleet")) },
		func() error { return second(c.AuthEnable(ctx)) },
	} {
		if err := do(); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		root := s.admin(t, "root", "r")
		defer root.Close()
		if err := second(root.AuthDisable(context.Background())); err != nil {
			t.Log(err)
		}
	})
}

func second[T any](_ T, err error) error { return err }

func TestMembers(t *testing.T) {
	t.Parallel()
	s := start(t)
	locked := start(t)
	discoverytest.Run(t, discoverytest.Server{
		New: New, URL: func(prefix string) string { return "etcd://" + s.client + "/" + prefix },
		TTL: 2 * time.Second, Slack: 3 * time.Second, StoppedSays: "does not answer", BadSays: "refuses",
		Stop:  s.stop,
		Start: s.start,
		Lose: func(t *testing.T) {
			s.stop(t)
			if err := os.RemoveAll(s.dir); err != nil {
				t.Fatal(err)
			}
			s.start(t)
		},
		Wipe: func(t *testing.T, prefix string) {
			c := s.admin(t, "", "")
			defer c.Close()
			if _, err := c.Delete(t.Context(), prefix, clientv3.WithPrefix()); err != nil {
				t.Fatal(err)
			}
		},
		Half: func(prefix string) string { return "etcd://" + free(t) + "," + s.client + "/" + prefix },
		Locked: func(t *testing.T) string {
			locked.lock(t)
			return "etcd://" + locked.client + "/locked"
		},
		Good: func(t *testing.T) map[string]string {
			return map[string]string{"kv.user": "berth", "kv.password-file": secret(t, "b")}
		},
		Bad: func(t *testing.T) map[string]string {
			return map[string]string{"kv.user": "other", "kv.password-file": secret(t, "o")}
		},
	})
}

// A store that goes away after the list, and before the watch has begun, is noticed like any other.
func TestGoneBeforeTheWatch(t *testing.T) {
	t.Parallel()
	s := start(t)
	m, err := New("etcd://"+s.client+"/gone", discovery.Options{Heartbeat: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	err = m.Follow(ctx, func([]string) { s.stop(t) })
	if ctx.Err() != nil || err == nil || !strings.Contains(err.Error(), "does not answer") {
		t.Errorf("%v (context: %v), want that it does not answer", err, ctx.Err())
	}
	if err := m.Close(); err != nil {
		t.Error(err)
	}
}

// Mutual TLS: without it, and without our certificate, nobody is let in.
func TestTLS(t *testing.T) {
	t.Parallel()
	authority, err := cert.NewAuthority("test")
	if err != nil {
		t.Fatal(err)
	}
	own, err := cert.NewServer(authority, "test", []string{"127.0.0.1"})
	if err != nil {
		t.Fatal(err)
	}
	client, err := cert.NewClient(authority, "test")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	file := func(name string, content []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	ca := file("ca.pem", authority.Cert)
	s := &server{dir: t.TempDir(), client: free(t), peer: free(t), tls: transport.TLSInfo{
		CertFile: file("server.pem", own.Cert), KeyFile: file("server-key.pem", own.Key), TrustedCAFile: ca, ClientCertAuth: true,
	}}
	s.start(t)
	t.Cleanup(func() { s.stop(t) })
	for name, tt := range map[string]struct {
		opts map[string]string
		ok   bool
	}{
		"both":           {map[string]string{"kv.cacertfile": ca, "kv.certfile": file("c.pem", client.Cert), "kv.keyfile": file("k.pem", client.Key)}, true},
		"no certificate": {map[string]string{"kv.cacertfile": ca}, false},
		"no TLS":         {nil, false},
	} {
		m, err := New("etcd://"+s.client+"/tls", discovery.Options{Opts: tt.opts})
		if err != nil {
			t.Fatal(err)
		}
		if err := m.Register(t.Context(), "10.0.0.1:2376", time.Minute); (err == nil) != tt.ok {
			t.Errorf("%s: %v", name, err)
		} else if err != nil {
			t.Logf("%s: %v", name, err)
		}
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestLeaser(t *testing.T) {
	t.Parallel()
	s := start(t)
	const ttl = 2 * time.Second // the server's shortest: one and a half elections, in whole seconds
	leaser := func(t *testing.T, place, addr string) election.Leaser {
		l, err := NewLeaser("etcd://"+free(t)+","+s.client+"/"+place, discovery.Options{}, addr, ttl)
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	electiontest.Run(t, electiontest.Server{
		New: leaser, TTL: ttl, Slack: 2 * time.Second, Stop: s.stop, Start: s.start,
		Steal: func(t *testing.T, place string) {
			c := s.admin(t, "", "")
			defer c.Close()
			if _, err := c.Delete(t.Context(), place+"/docker/swarm/leader"); err != nil {
				t.Fatal(err)
			}
		},
	})
	t.Run("a manager that was stopped does not lead when it wakes", func(t *testing.T) { stopAndWake(t, s, ttl, leaser) })
}

func TestShelf(t *testing.T) {
	t.Parallel()
	s := start(t)
	intentstest.Run(t, intentstest.Server{
		New: func(t *testing.T, place string) intents.Shelf {
			shelf, err := NewShelf("etcd://"+free(t)+","+s.client+"/"+place, discovery.Options{})
			if err != nil {
				t.Fatal(err)
			}
			return shelf
		},
		Wipe: func(t *testing.T, place string) {
			c := s.admin(t, "", "")
			defer c.Close()
			if _, err := c.Delete(t.Context(), place+"/docker/swarm/berth/intents"); err != nil {
				t.Fatal(err)
			}
		},
		Stop: s.stop, Start: s.start,
	})
}

// actor is the environment of a process that campaigns and says when it acts.
const actor = "BERTH_TEST_ACTOR"

func act(endpoint string) {
	l, err := NewLeaser("etcd://"+endpoint+"/wake", discovery.Options{}, "10.0.0.1:3376", 2*time.Second)
	if err != nil {
		panic(err)
	}
	_ = election.Run(context.Background(), l, election.Options{}, func(ctx context.Context, tenure *election.Tenure) error {
		for ctx.Err() == nil {
			before := time.Now().UnixNano()
			if tenure.Valid() {
				fmt.Println(tenure.Term(), before)
			}
			time.Sleep(time.Millisecond)
		}
		return nil
	})
}

func stopAndWake(t *testing.T, s *server, ttl time.Duration, leaser func(*testing.T, string, string) election.Leaser) {
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), actor+"="+s.client)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}()
	type deed struct {
		term uint64
		at   int64
	}
	deeds := make(chan deed, 100000)
	go func() {
		defer close(deeds)
		for {
			var d deed
			if _, err := fmt.Fscan(out, &d.term, &d.at); err != nil {
				return
			}
			deeds <- d
		}
	}()
	first := <-deeds
	if err := cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	mine := leaser(t, "wake", "10.0.0.2:3376")
	defer mine.Close()
	var lease election.Lease
	for end := time.Now().Add(ttl + 3*time.Second); lease == nil; time.Sleep(10 * time.Millisecond) {
		if lease, err = mine.Acquire(t.Context()); err != nil && time.Now().After(end) {
			t.Fatal(err)
		}
	}
	from := time.Now().UnixNano()
	if err := cmd.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	time.Sleep(200 * time.Millisecond)
	if err := lease.Renew(t.Context()); err != nil {
		t.Fatal(err)
	}
	to := time.Now().UnixNano()
	if err := lease.Release(t.Context()); err != nil {
		t.Fatal(err)
	}
	for d := range deeds {
		if d.at >= from && d.at <= to {
			t.Fatalf("it acted %v after it woke, by term %d", time.Duration(d.at-from), d.term)
		}
		if d.at > to { // it leads again
			if d.term <= lease.Term() || first.term >= lease.Term() {
				t.Errorf("terms %d, %d, %d", first.term, lease.Term(), d.term)
			}
			break
		}
	}
	_ = cmd.Process.Kill()
	for range deeds { // until its pipe is closed
	}
}
