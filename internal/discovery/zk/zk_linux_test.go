package zk

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/go-zookeeper/zk"
	"go.uber.org/goleak"

	"berth/internal/discovery"
	"berth/internal/discovery/discoverytest"
	"berth/internal/election"
	"berth/internal/election/electiontest"
	"berth/internal/intents"
	"berth/internal/intents/intentstest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// jar is where Debian's package zookeeper has the server.
const jar = "/usr/share/java/zookeeper.jar"

// server is a real ZooKeeper.
type server struct {
	dir  string
	addr string
	cmd  *exec.Cmd
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

// start needs a java and ZooKeeper, which `make test` installs.
func start(t *testing.T) *server {
	t.Helper()
	if _, err := exec.LookPath("java"); err != nil {
		t.Skip("no java to run ZooKeeper with")
	}
	if _, err := os.Stat(jar); err != nil {
		t.Skip("no ZooKeeper: install Debian's package zookeeper")
	}
	s := &server{dir: t.TempDir(), addr: free(t)}
	host, port, _ := net.SplitHostPort(s.addr)
	config := fmt.Sprintf("tickTime=100\ndataDir=%s/data\nclientPortAddress=%s\nclientPort=%s\nmaxSessionTimeout=120000\nadmin.enableServer=false\nmaxClientCnxns=0\n", s.dir, host, port)
	if err := os.WriteFile(filepath.Join(s.dir, "zoo.cfg"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	s.start(t)
	t.Cleanup(func() { s.stop(t) })
	return s
}

func (s *server) start(t *testing.T) {
	t.Helper()
	// What a test needs to start soon; fsync is not worth its time here.
	s.cmd = exec.Command("java", "-Xmx96m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Dzookeeper.forceSync=no", "-cp", jar,
		"org.apache.zookeeper.server.quorum.QuorumPeerMain", filepath.Join(s.dir, "zoo.cfg"))
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} // it must not outlive a test that panics
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		if serves(s.addr) {
			return
		}
		if time.Now().After(end) {
			t.Fatal("zookeeper does not start")
		}
	}
}

// serves asks by one of ZooKeeper's words of four letters.
func serves(addr string) bool {
	c, err := net.Dial("tcp", addr)
	if err != nil {
		return false
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(300 * time.Millisecond)); err != nil { // a connection that comes too early is never answered
		return false
	}
	if _, err := c.Write([]byte("srvr")); err != nil {
		return false
	}
	b, err := io.ReadAll(c)
	return err == nil && strings.Contains(string(b), "Mode:")
}

func (s *server) stop(*testing.T) {
	if s.cmd != nil {
		_ = s.cmd.Process.Kill()
		_ = s.cmd.Wait()
		s.cmd = nil
	}
}

func (s *server) admin(t *testing.T, auth string) *session {
	t.Helper()
	st, err := open("zk://"+s.addr, discovery.Options{})
	if err != nil {
		t.Fatal(err)
	}
	n, err := st.dial(t.Context(), 10*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	if auth != "" {
		if err := n.conn.AddAuth("digest", []byte(auth)); err != nil {
			t.Fatal(err)
		}
	}
	return n
}

func secret(t *testing.T, word string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(path, []byte(word+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestMembers(t *testing.T) {
	t.Parallel()
	s := start(t)
	discoverytest.Run(t, discoverytest.Server{
		New: New, URL: func(prefix string) string { return "zk://" + s.addr + "/" + prefix },
		TTL: 2 * time.Second, Slack: 2 * time.Second, StoppedSays: "does not answer", BadSays: "refuses",
		Stop:  s.stop,
		Start: s.start,
		Lose: func(t *testing.T) {
			s.stop(t)
			if err := os.RemoveAll(filepath.Join(s.dir, "data")); err != nil {
				t.Fatal(err)
			}
			s.start(t)
		},
		Wipe: func(t *testing.T, prefix string) {
			n := s.admin(t, "")
			defer n.close()
			dir := "/" + prefix + "/docker/swarm/nodes"
			names, _, err := n.conn.Children(dir)
			if err != nil {
				t.Fatal(err)
			}
			var all []any
			for _, name := range names {
				all = append(all, &zk.DeleteRequest{Path: dir + "/" + name, Version: -1})
			}
			if _, err := n.conn.Multi(all...); err != nil {
				t.Fatal(err)
			}
		},
		Half: func(prefix string) string { return "zk://" + free(t) + "," + s.addr + "/" + prefix },
		Locked: func(t *testing.T) string {
			n := s.admin(t, "berth:b")
			defer n.close()
			if _, err := n.conn.Create("/locked", nil, 0, zk.AuthACL(zk.PermAll)); err != nil {
				t.Fatal(err)
			}
			return "zk://" + s.addr + "/locked"
		},
		Good: func(t *testing.T) map[string]string {
			return map[string]string{"kv.user": "berth", "kv.password-file": secret(t, "b")}
		},
		Bad: func(t *testing.T) map[string]string {
			return map[string]string{"kv.user": "other", "kv.password-file": secret(t, "o")}
		},
	})
}

func TestLeaser(t *testing.T) {
	t.Parallel()
	s := start(t)
	const ttl = 2 * time.Second
	electiontest.Run(t, electiontest.Server{
		New: func(t *testing.T, place, addr string) election.Leaser {
			l, err := NewLeaser("zk://"+free(t)+","+s.addr+"/"+place, discovery.Options{}, addr, ttl)
			if err != nil {
				t.Fatal(err)
			}
			return l
		},
		TTL: ttl, Slack: 2 * time.Second, Stop: s.stop, Start: s.start,
		Steal: func(t *testing.T, place string) {
			n := s.admin(t, "")
			defer n.close()
			if err := n.conn.Delete("/"+place+"/docker/swarm/leader", -1); err != nil {
				t.Fatal(err)
			}
		},
	})
}

func TestShelf(t *testing.T) {
	t.Parallel()
	s := start(t)
	intentstest.Run(t, intentstest.Server{
		New: func(t *testing.T, place string) intents.Shelf {
			shelf, err := NewShelf("zk://"+free(t)+","+s.addr+"/"+place, discovery.Options{})
			if err != nil {
				t.Fatal(err)
			}
			return shelf
		},
		Wipe: func(t *testing.T, place string) {
			n := s.admin(t, "")
			defer n.close()
			if err := n.conn.Delete("/"+place+"/docker/swarm/berth/intents", -1); err != nil {
				t.Fatal(err)
			}
		},
		Stop: s.stop, Start: s.start,
	})
}

// An agent that dies is a member for --ttl more, as far as the server grants it, and the next agent takes its place without a gap.
func TestDeadAgents(t *testing.T) {
	t.Parallel()
	s := start(t)
	var said []string
	dead, err := New("zk://"+s.addr+"/dead", discovery.Options{Warn: func(err error) { said = append(said, err.Error()) }})
	if err != nil {
		t.Fatal(err)
	}
	defer dead.Close()
	if err := dead.Register(t.Context(), "10.0.0.1:2376", 150*time.Second); err != nil {
		t.Fatal(err)
	}
	if all := strings.Join(said, "\n"); !strings.Contains(all, "grants sessions of 2m0s and not of 2m30s") {
		t.Errorf("warnings:\n%s", all)
	}
	next, err := New("zk://"+s.addr+"/dead", discovery.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer next.Close()
	watch, stop := context.WithCancel(t.Context())
	var sets []string
	first, done := make(chan struct{}, 100), make(chan error, 1)
	go func() {
		done <- next.Follow(watch, func(addrs []string) {
			sets = append(sets, strings.Join(addrs, " "))
			first <- struct{}{}
		})
	}()
	<-first
	if err := next.Register(t.Context(), "10.0.0.1:2376", 30*time.Second); err != nil {
		t.Fatal(err)
	}
	if err := dead.Close(); err != nil { // its session takes nothing along
		t.Fatal(err)
	}
	time.Sleep(300 * time.Millisecond)
	stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
	for _, set := range sets {
		if set != "10.0.0.1:2376" {
			t.Errorf("members %q", sets)
		}
	}
}
