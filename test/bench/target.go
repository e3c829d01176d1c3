package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// child is a process that is measured, or that simulates.
type child struct {
	cmd *exec.Cmd
}

func (c *child) stop() error {
	if err := c.cmd.Process.Signal(os.Interrupt); err != nil {
		return err
	}
	err := c.cmd.Wait()
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() < 0 {
		return nil // by the signal itself
	}
	return err
}

// cpu is the time that the process has used.
func (c *child) cpu() (time.Duration, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", c.cmd.Process.Pid))
	if err != nil {
		return 0, err
	}
	fields := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
	if len(fields) < 13 {
		return 0, fmt.Errorf("/proc/%d/stat is too short", c.cmd.Process.Pid)
	}
	user, err1 := strconv.ParseInt(fields[11], 10, 64)
	system, err2 := strconv.ParseInt(fields[12], 10, 64)
	const tick = 10 * time.Millisecond // USER_HZ is 100 on Linux
	return time.Duration(user+system) * tick, errors.Join(err1, err2)
}

// status reads a number of /proc/PID/status: VmRSS in KiB, Threads.
func (c *child) status(key string) (int, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", c.cmd.Process.Pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(line, key+":"); ok {
			return strconv.Atoi(strings.Fields(v)[0])
		}
	}
	return 0, fmt.Errorf("/proc/%d/status has no %s", c.cmd.Process.Pid, key)
}

func (c *child) descriptors() (int, error) {
	d, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", c.cmd.Process.Pid))
	return len(d), err
}

// simulator is the process with the engines.
type simulator struct {
	child
	control string
	addrs   []string
}

func startSimulator(ctx context.Context, nodes, containers int) (*simulator, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, self, "-simulate", "-nodes", strconv.Itoa(nodes), "-containers", strconv.Itoa(containers))
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	line, err := bufio.NewReaderSize(out, 1<<20).ReadString('\n')
	if err != nil {
		return nil, errors.Join(fmt.Errorf("the simulator said nothing: %w", err), cmd.Process.Kill(), cmd.Wait())
	}
	words := strings.Fields(line)
	return &simulator{child{cmd}, "http://" + words[0], words[1:]}, nil
}

func (s *simulator) do(ctx context.Context, method, path string) (string, error) {
	r, err := http.NewRequestWithContext(ctx, method, s.control+path, nil)
	if err != nil {
		return "", err
	}
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		return "", err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err == nil && res.StatusCode != http.StatusOK {
		err = fmt.Errorf("simulator: %s %s: %s", method, path, b)
	}
	return strings.TrimSpace(string(b)), err
}

func (s *simulator) calls(ctx context.Context) (float64, error) {
	v, err := s.do(ctx, http.MethodGet, "/calls")
	if err != nil {
		return 0, err
	}
	return strconv.ParseFloat(v, 64)
}

// manager is berth serve.
type manager struct {
	child
	addr  string
	debug *client
	began time.Time
}

// inUse is the memory that the manager needs, in bytes: heap and stacks after a garbage collection.
func (m *manager) inUse(ctx context.Context) (float64, error) {
	if _, err := m.debug.body(ctx, "/debug/pprof/heap?gc=1"); err != nil {
		return 0, err
	}
	page, err := m.debug.body(ctx, "/metrics")
	if err != nil {
		return 0, err
	}
	var sum float64
	for line := range strings.Lines(string(page)) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		if name == "go_memstats_heap_inuse_bytes" || name == "go_memstats_stack_inuse_bytes" {
			v, err := strconv.ParseFloat(value, 64)
			if err != nil {
				return 0, err
			}
			sum += v
		}
	}
	return sum, nil
}

// startManager serves the engines and returns at once.
func startManager(ctx context.Context, binary, dir string, addrs []string) (*manager, error) {
	list := filepath.Join(dir, "nodes")
	if err := os.WriteFile(list, []byte(strings.Join(addrs, "\n")+"\n"), 0o600); err != nil {
		return nil, err
	}
	l, err := listenLoopback()
	if err != nil {
		return nil, err
	}
	addr := l.Addr().String()
	if err := l.Close(); err != nil { // berth takes the port that was free
		return nil, err
	}
	cmd := exec.CommandContext(ctx, binary, "-s", filepath.Join(dir, "store"), "serve", "--no-context", "-l", "warn", "-H", "tcp://"+addr, "--debug-socket", filepath.Join(dir, "debug.sock"), "file://"+list)
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return &manager{child{cmd}, addr, newClient("unix", filepath.Join(dir, "debug.sock")), time.Now()}, cmd.Start()
}

func listenLoopback() (net.Listener, error) {
	var lc net.ListenConfig
	return lc.Listen(context.Background(), "tcp", "127.0.0.1:0")
}
