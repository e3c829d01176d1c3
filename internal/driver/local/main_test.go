package local

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/vishvananda/netlink"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"berth/internal/cert"
	"berth/internal/driver/drivertest"
	"berth/internal/machine"
)

// insideVar marks the copy of the test program that runs in a network namespace of its own.
const insideVar = "BERTH_TEST_NETNS"

// TestMain runs the tests in a private network namespace, so that nothing they do is seen on this computer's network.
func TestMain(m *testing.M) {
	if InitMain(os.Args) {
		return
	}
	switch {
	case len(os.Args) > 1 && os.Args[1] == standInArg:
		standIn(os.Args[2:])
	case os.Getenv(insideVar) == "" && os.Geteuid() == 0:
		os.Exit(again())
	case os.Getenv(createVar) != "":
		createAndExit()
	}
	if lo, err := netlink.LinkByName("lo"); os.Geteuid() == 0 && (err != nil || netlink.LinkSetUp(lo) != nil) {
		fmt.Fprintln(os.Stderr, "no loopback interface:", err)
		os.Exit(1)
	}
	goleak.VerifyTestMain(m)
}

// again runs the tests in a new network namespace. A box outlives the program that made it, so what tests left that were
// broken off is removed here.
func again() int {
	interrupts := make(chan os.Signal, 1)
	signal.Notify(interrupts, unix.SIGINT, unix.SIGTERM) // the tests get them as well
	dir, err := os.MkdirTemp("", "berth-local-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), insideVar+"=1", "TMPDIR="+dir)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET, Pdeathsig: unix.SIGKILL}
	err = cmd.Run()
	if err := errors.Join(sweep(dir), deleteNetNS(worldName(os.Getpid())), os.RemoveAll(dir)); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	if cmd.ProcessState != nil {
		return cmd.ProcessState.ExitCode()
	}
	fmt.Fprintln(os.Stderr, err)
	return 1
}

func sweep(dir string) error {
	var machines []string
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err == nil && d.Name() == recordFile {
			machines = append(machines, filepath.Dir(filepath.Dir(path)))
		}
		return err
	})
	for _, m := range machines {
		err = errors.Join(err, Driver{}.Remove(context.Background(), machine.Instance{Name: filepath.Base(m), Dir: m}))
	}
	return err
}

// needEngine skips what only root can do with a dockerd; `make test` has both.
func needEngine(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	if _, err := findEngine(""); err != nil {
		t.Skip(err)
	}
}

// store is a directory of machines with its authority.
type store struct {
	dir string
	ca  cert.Pair
}

func newStore(t *testing.T) *store {
	t.Helper()
	ca, err := cert.NewAuthority("test")
	if err != nil {
		t.Fatal(err)
	}
	s := &store{t.TempDir(), ca}
	s.write(t, "ca.pem", ca.Cert)
	client, err := cert.NewClient(ca, "test")
	if err != nil {
		t.Fatal(err)
	}
	s.write(t, "cert.pem", client.Cert)
	s.write(t, "key.pem", client.Key)
	return s
}

func (s *store) write(t *testing.T, name string, data []byte) string {
	t.Helper()
	path := filepath.Join(s.dir, name)
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// spec is one for a machine of that name, whose traces are looked for at the end of the test.
func (s *store) spec(t *testing.T, name string) machine.Spec {
	t.Helper()
	spec := machine.Spec{
		Name: name, Dir: filepath.Join(s.dir, "machines", name), StoreID: s.dir,
		Values: map[string]any{flagSubnet: defaultSubnet}, Progress: func(line string) { t.Log(name + ": " + line) },
	}
	if err := os.MkdirAll(spec.Dir, 0o700); err != nil {
		t.Fatal(err)
	}
	b := newBox(spec, settings{})
	t.Cleanup(func() {
		for _, trace := range traces(t, b.ID) {
			t.Errorf("%s left behind: %s", name, trace)
		}
	})
	return spec
}

// engine is the configuration that machine would make.
func (s *store) engine(t *testing.T, i machine.Instance) machine.EngineConfig {
	t.Helper()
	server, err := cert.NewServer(s.ca, "test", []string{i.IPAddress, "localhost", "127.0.0.1"})
	if err != nil {
		t.Fatal(err)
	}
	return machine.EngineConfig{
		CACert:      filepath.Join(s.dir, "ca.pem"),
		ServerCert:  s.write(t, i.Name+"-server.pem", server.Cert),
		ServerKey:   s.write(t, i.Name+"-server-key.pem", server.Key),
		ExtraLabels: []string{"provider=local"},
		Progress:    func(line string) { t.Log(i.Name + ": " + line) },
	}
}

// traces are what a box with that ID has left on this computer, and what all boxes have left on the network of the tests if
// none is there any more.
func traces(t *testing.T, id string) []string {
	t.Helper()
	var found []string
	look := func(what, text string, marks ...string) {
		for line := range strings.Lines(text) {
			for _, mark := range marks {
				if strings.Contains(line, mark) {
					found = append(found, what+": "+strings.TrimSpace(line))
					break
				}
			}
		}
	}
	read := func(path string) string {
		text, err := os.ReadFile(path)
		if err != nil && !os.IsNotExist(err) && !strings.Contains(err.Error(), "no such process") {
			t.Fatal(err)
		}
		return string(text)
	}
	run := func(args ...string) string {
		out, err := exec.Command(args[0], args[1:]...).CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %v\n%s", args, err, out)
		}
		return string(out)
	}
	look("mount", read("/proc/mounts"), id)
	look("namespace", run("ip", "netns"), id)
	look("interface", run("ip", "-o", "link"), id)
	if !strings.Contains(run("ip", "-o", "link"), vethPrefix) {
		look("bridge", run("ip", "-o", "link"), "berth")
		look("rule", run("iptables-save"), "berth")
	}
	for _, pattern := range []string{"/sys/fs/cgroup/berth-" + id, "/sys/fs/cgroup/*/berth-" + id} {
		paths, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		look("file", strings.Join(paths, "\n"), id)
	}
	processes, err := filepath.Glob("/proc/[0-9]*/cgroup")
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range processes {
		// One that has ended may wait a while for this computer's init to take note.
		if _, alive := namespacePIDs(strings.Split(p, "/")[2]); alive {
			look(p, read(p), id)
		}
	}
	return found
}

func TestDriver(t *testing.T) {
	needEngine(t)
	s := newStore(t)
	n := 0
	drivertest.Run(t, func(t *testing.T) drivertest.Subject {
		n++
		return drivertest.Subject{
			Driver: Driver{},
			Spec:   s.spec(t, fmt.Sprintf("m%d", n)),
			Engine: func(i machine.Instance) machine.EngineConfig { return s.engine(t, i) },
		}
	})
}
