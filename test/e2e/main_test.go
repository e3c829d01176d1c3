//go:build e2e

// Package e2e walks through what users do, with the stock clients against real Docker Engines.
//
// The tests run in shards, several processes at once, each inside namespaces of its own: network, mounts and processes. Their engines,
// bridges and iptables rules are nowhere else, and when the suite ends, however it ends, the kernel ends all of them with it.
package e2e

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// stageEnv says how far inside a process is: "" is outside, init is the first process of a shard's namespaces, test runs its tests, and
// list tells their names.
const stageEnv = "BERTH_E2E_STAGE"

func TestMain(m *testing.M) {
	var code int
	var err error
	switch os.Getenv(stageEnv) {
	case "":
		flag.Parse()
		if asked("test.list") != "" {
			code = m.Run()
			break
		}
		code, err = outside()
	case "init":
		code, err = initProcess()
	case "list":
		code = m.Run()
	default:
		code = suite(m)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "e2e:", err)
		code = 1
	}
	os.Exit(code)
}

// outsideNet is the network namespace that the suite was started in, for what must be fetched.
var outsideNet *os.File

// needs are what the suite cannot do without; make test installs them.
var needs = []string{"etcd", "java", "dockerd", "containerd", "runc", "docker", "docker-compose", "iptables", "busybox", "sshd", "ip", "nsenter", "pgrep", "curl"}

// outside builds berth, runs the shards and takes away what they leave: cgroups.
func outside() (int, error) {
	if os.Geteuid() != 0 {
		return 1, errors.New("the suite starts real engines and needs root")
	}
	if err := os.Setenv("PATH", os.Getenv("PATH")+":/usr/sbin:/sbin"); err != nil { // where Debian has the servers
		return 1, err
	}
	for _, n := range needs {
		if _, err := exec.LookPath(n); err != nil {
			return 1, fmt.Errorf("%w: run `make test-deps`", err)
		}
	}
	// All files of the suite are in one place, which is easily taken away.
	dir, err := os.MkdirTemp("", "berth-e2e-")
	if err != nil {
		return 1, err
	}
	defer os.RemoveAll(dir) //nolint:errcheck // with the namespaces its mounts are gone
	// Whoever ends the suite in its midst, or reads no more of what it prints, ends the namespaces only; what the kernel keeps is then
	// taken away as always.
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT, syscall.SIGPIPE)
	defer stop()
	if outsideNet, err = os.Open("/proc/self/ns/net"); err != nil {
		return 1, err
	}
	if err := build(ctx, dir); err != nil {
		return 1, err
	}
	before := cgroups()
	code, err := sharded(ctx, dir)
	for dir := range cgroups() {
		if before[dir] || inUse(dir) { // another suite's
			continue
		}
		if code == 0 { // a suite that was ended in its midst leaves them
			code, err = 1, errors.Join(err, fmt.Errorf("a cgroup was left behind: %s", dir))
		}
		removeCgroup(dir)
	}
	return code, err
}

// initProcess prepares the namespaces, runs the tests and reaps what is left without a parent.
func initProcess() (int, error) {
	if err := prepare(); err != nil {
		return 1, err
	}
	outsideNet = os.NewFile(3, "the network outside")
	signal.Ignore(syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT) // the outside ends the namespace whole
	cmd := again(context.Background(), "test", os.Args[1:])
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	if err := cmd.Start(); err != nil {
		return 1, err
	}
	for {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, 0, nil)
		switch {
		case errors.Is(err, syscall.EINTR):
		case err != nil:
			return 1, fmt.Errorf("wait for the tests: %w", err)
		case pid == cmd.Process.Pid:
			if status.Signaled() {
				return 1, fmt.Errorf("the tests were ended by %v", status.Signal())
			}
			return status.ExitStatus(), nil
		}
	}
}

func prepare() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("private mounts: %w", err)
	}
	if err := unix.Mount("proc", "/proc", "proc", 0, ""); err != nil {
		return fmt.Errorf("mount /proc: %w", err)
	}
	if err := unix.Mount("tmpfs", "/run", "tmpfs", 0, "mode=755"); err != nil {
		return fmt.Errorf("mount /run: %w", err)
	}
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		return fmt.Errorf("loopback: %w", err)
	}
	return unix.Sethostname([]byte("e2e"))
}

// again is this program at another stage.
func again(ctx context.Context, stage string, args []string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "/proc/self/exe", args...)
	cmd.Env = append(os.Environ(), stageEnv+"="+stage)
	cmd.Stdin = os.Stdin
	cmd.ExtraFiles = []*os.File{outsideNet}
	return cmd
}

func exitCode(err error) (int, error) {
	var failed *exec.ExitError
	if errors.As(err, &failed) {
		return failed.ExitCode(), nil
	}
	if err != nil {
		return 1, err
	}
	return 0, nil
}

// build makes berth, once for all shards, in a folder that they find beside their own.
func build(ctx context.Context, dir string) error {
	cmd := exec.CommandContext(ctx, "go", "build", "-o", filepath.Join(dir, "bin", "berth"), "berth/cmd/berth")
	if os.Getenv("BERTH_E2E_RACE") != "" {
		cmd.Args = append(cmd.Args[:2], append([]string{"-race"}, cmd.Args[2:]...)...)
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build: %w\n%s", err, out)
	}
	return nil
}

// suite runs the tests of a shard and ends its shared fleet.
func suite(m *testing.M) int {
	syscall.CloseOnExec(3)
	outsideNet = os.NewFile(3, "the network outside")
	scratch = os.TempDir() // which outside has made
	binary = filepath.Join(filepath.Dir(scratch), "bin", "berth")
	before := look() // mounts of others show through
	code := m.Run()
	if shared != nil {
		if err := shared.down(); err != nil {
			fmt.Fprintln(os.Stderr, "e2e: the fleet could not be taken down:", err)
			code = 1
		}
	}
	if left := leftovers(before); len(left) > 0 {
		fmt.Fprintf(os.Stderr, "e2e: left behind:\n%s\n", strings.Join(left, "\n"))
		code = 1
	}
	return code
}

// leftovers are what the machines and managers of the tests should have taken with them. The kernel would end it all in a
// moment, so this is the last time that it can be seen. What is ending gets time to end: where much ends at once, the kernel takes a host's
// link away seconds after its last process.
func leftovers(before []string) (left []string) {
	for range 300 {
		left = slices.DeleteFunc(look(), func(l string) bool { return slices.Contains(before, l) })
		if len(left) == 0 {
			return nil
		}
		time.Sleep(100 * time.Millisecond)
	}
	return left
}

func look() []string {
	var left []string
	for what, script := range map[string]string{
		"process":           "pgrep -a 'dockerd|containerd|docker-proxy|runc|berth|sshd|etcd|java'",
		"mount":             "grep berth /proc/self/mounts",
		"iptables rule":     "iptables-save | grep '^-A'",
		"link":              "ip -o link show | grep -v ': lo:'",
		"network namespace": "ls /run/netns | grep .",
		"file":              "find /run/berth ! -type d",
	} {
		cmd := exec.CommandContext(context.Background(), "sh", "-c", script+" 2>/dev/null")
		out, err := cmd.Output()
		var failed *exec.ExitError
		if err != nil && !errors.As(err, &failed) { // to find nothing is a failure, too
			left = append(left, err.Error())
		}
		for line := range strings.Lines(string(out)) {
			left = append(left, what+": "+strings.TrimSpace(line))
		}
	}
	return left
}

// cgroups lists the cgroups that berth made for machines.
func cgroups() map[string]bool {
	found := map[string]bool{}
	for _, pattern := range []string{"/sys/fs/cgroup/berth-*", "/sys/fs/cgroup/*/berth-*"} {
		dirs, err := filepath.Glob(pattern)
		if err != nil {
			panic(err) // the patterns are constant
		}
		for _, d := range dirs {
			found[d] = true
		}
	}
	return found
}

// inUse tells whether a process is in a tree of cgroups. None of ours is left by then.
func inUse(dir string) (used bool) {
	_ = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error { // gone is not in use
		if err == nil && d.Name() == "cgroup.procs" {
			b, _ := os.ReadFile(path) // as above
			used = used || len(b) > 0
		}
		return nil
	})
	return used
}

// removeCgroup removes a tree of cgroups, deepest first. Nothing of ours runs any more, so one that is in use is not ours.
func removeCgroup(dir string) {
	var dirs []string
	_ = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error { // gone is as good as removed
		if err == nil && d.IsDir() {
			dirs = append(dirs, path)
		}
		return nil
	})
	for i := len(dirs) - 1; i >= 0; i-- {
		if err := os.Remove(dirs[i]); err != nil && !os.IsNotExist(err) && !errors.Is(err, syscall.EBUSY) {
			fmt.Fprintln(os.Stderr, "e2e: left behind:", strings.TrimSpace(err.Error()))
		}
	}
}
