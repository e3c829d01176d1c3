//go:build e2e

package e2e

import (
	"crypto/rand"
	"encoding/base64"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// kvServer is a real store of the kind that users have, as a process.
type kvServer struct {
	t       *testing.T
	addr    string
	data    string
	command func(s *kvServer) *exec.Cmd
	running *exec.Cmd
}

func startKV(t *testing.T, command func(*kvServer) *exec.Cmd) *kvServer {
	t.Helper()
	s := &kvServer{t: t, addr: net.JoinHostPort("127.0.0.1", freePort(t)), data: filepath.Join(t.TempDir(), "data"), command: command}
	s.start()
	t.Cleanup(s.stop)
	return s
}

func (s *kvServer) start() {
	s.t.Helper()
	s.running = s.command(s)
	out := outputTo(s.t, s.running)
	if err := s.running.Start(); err != nil {
		s.t.Fatal(err)
	}
	eventually(s.t, 20*time.Second, "the store listens: "+out.String(), func() bool {
		c, err := net.Dial("tcp", s.addr)
		if err == nil {
			c.Close()
		}
		return err == nil
	})
}

func (s *kvServer) stop() {
	if s.running != nil {
		_ = s.running.Process.Kill() // as power cuts do
		_ = s.running.Wait()
		s.running = nil
	}
}

// lose ends the store, with all it knew.
func (s *kvServer) lose() {
	s.t.Helper()
	s.stop()
	if err := os.RemoveAll(s.data); err != nil {
		s.t.Fatal(err)
	}
}

// etcd as Debian has it.
func startEtcd(t *testing.T) *kvServer {
	peer := "http://" + net.JoinHostPort("127.0.0.1", freePort(t))
	return startKV(t, func(s *kvServer) *exec.Cmd {
		url := "http://" + s.addr
		return exec.Command("etcd", "--name", "e", "--data-dir", s.data, "--listen-client-urls", url, "--advertise-client-urls", url,
			"--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--initial-cluster", "e="+peer)
	})
}

func TestSwarmByEtcd(t *testing.T) {
	s := startEtcd(t)
	fleetByStore(t, s, "etcd://"+s.addr+",127.0.0.1:1/fleet", 5*time.Second)
}

// ZooKeeper as Debian has it.
func TestSwarmByZookeeper(t *testing.T) {
	config := filepath.Join(t.TempDir(), "zoo.cfg")
	s := startKV(t, func(s *kvServer) *exec.Cmd {
		host, port, err := net.SplitHostPort(s.addr)
		if err != nil {
			t.Fatal(err)
		}
		text := "tickTime=500\nadmin.enableServer=false\nclientPortAddress=" + host + "\nclientPort=" + port + "\ndataDir=" + s.data + "\n"
		if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return exec.Command("java", "-Xmx96m", "-cp", "/usr/share/java/zookeeper.jar", "org.apache.zookeeper.server.quorum.QuorumPeerMain", config)
	})
	fleetByStore(t, s, "zk://127.0.0.1:1,"+s.addr+"/fleet", 5*time.Second)
}

// No server: the manager is the seed.
func TestSwarmByGossip(t *testing.T) {
	w := fleet(t)
	key := make([]byte, 32)
	if _, err := rand.Read(key); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(write(t, "key", base64.StdEncoding.EncodeToString(key)), "key")
	opt := []string{"--discovery-opt", "gossip.key-file=" + file}
	const url = "gossip://" + bridge + "/fleet"
	second := w.secondServe(t, append(append(w.tlsArgs(), opt...), "--heartbeat", "2s", "--discovery-opt", "gossip.bind="+bridge+":7946", url)...)
	join := func(name string) *exec.Cmd {
		cmd := w.command("berth", append(opt, "--advertise", must(t, w.command("berth", "ip", name))+":2376", "--heartbeat", "1s", "--ttl", "5s", url)...)
		cmd.Args = slices.Insert(cmd.Args, 1, "join")
		return background(t, cmd)
	}
	join("host1")
	agent := join("host2")
	second.awaitNodes(t, "host1", "host2")
	must(t, second.docker("run", "--rm", "busybox", "true"))
	same(t, "swarm list", len(lines(must(t, w.command("berth", append([]string{"swarm", "list", url}, opt...)...)))), 2)
	stopProcess(t, agent)
	second.awaitNodes(t, "host1")
	agent = join("host2")
	second.awaitNodes(t, "host1", "host2")
	if err := agent.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	eventually(t, 60*time.Second, "the dead agent's engine is dropped", func() bool { return len(second.nodeList(t)) == 1 })
	contains(t, "without a key", fails(t, w.command("berth", "swarm", "list", url)), "gossip.key-file")
}

// fleetByStore is a manager and two agents that find each other in a store, through the store's troubles.
func fleetByStore(t *testing.T, s *kvServer, url string, ttl time.Duration) {
	w := fleet(t)
	join := func(name string) *exec.Cmd {
		t.Helper()
		cmd := w.command("berth", "join", "--advertise", must(t, w.command("berth", "ip", name))+":2376", "--heartbeat", "1s", "--ttl", ttl.String(), url)
		out := outputTo(t, cmd)
		background(t, cmd)
		eventually(t, 20*time.Second, name+" is advertised", func() bool { return strings.Contains(out.String(), "advertised") })
		return cmd
	}
	second := w.secondServe(t, append(w.tlsArgs(), "--heartbeat", "2s", url)...)
	second.awaitNodes(t)
	join("host1")
	agent := join("host2")
	second.awaitNodes(t, "host1", "host2")
	must(t, second.docker("run", "--rm", "busybox", "true"))
	same(t, "swarm list", len(lines(must(t, w.command("berth", "swarm", "list", url)))), 2)

	// One leaves, and dies.
	stopProcess(t, agent)
	second.awaitNodes(t, "host1")
	agent = join("host2")
	second.awaitNodes(t, "host1", "host2")
	if err := agent.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	second.awaitNodes(t, "host1") // when its time is over
	join("host2")
	second.awaitNodes(t, "host1", "host2")

	// The store is away, and back with nothing in it.
	s.lose()
	info := func() string { return must(t, second.docker("info")) }
	eventually(t, 30*time.Second, "docker info tells that the store is away", func() bool {
		return strings.Contains(do(t, second.docker("info")).err, "WARNING: discovery: ")
	})
	contains(t, "info", info(), "Nodes: 2")
	must(t, second.docker("run", "--rm", "busybox", "true"))
	s.start()
	for end := time.Now().Add(ttl); time.Now().Before(end); time.Sleep(200 * time.Millisecond) {
		contains(t, "info", info(), "Nodes: 2")
	}
	eventually(t, 30*time.Second, "docker info is content again", func() bool {
		return !strings.Contains(do(t, second.docker("info")).err, "WARNING: discovery: ")
	})
	second.awaitNodes(t, "host1", "host2")
	same(t, "swarm list", len(lines(must(t, w.command("berth", "swarm", "list", url)))), 2)
}
