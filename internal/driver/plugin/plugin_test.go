package plugin

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"berth/internal/driver/drivertest"
	"berth/internal/machine"
)

func TestMain(m *testing.M) {
	if runAsServed() {
		return
	}
	goleak.VerifyTestMain(m, goleak.Cleanup(func(status int) {
		if peersDir != "" {
			os.RemoveAll(peersDir) //nolint:errcheck // it is in the folder for temporary files
		}
		os.Exit(status)
	}))
}

// peersDir holds the programs at the other end of the wire, once one was asked for.
var peersDir string

var buildPeers = sync.OnceValue(func() error {
	dir, err := os.MkdirTemp("", "berth-plugin-test-*")
	if err != nil {
		return err
	}
	peersDir = dir
	build := exec.Command("go", "build", "-o", dir+string(filepath.Separator), "./server", "./client")
	build.Dir = "../../../test/plugin"
	build.Stderr = os.Stderr
	return build.Run()
})

// peer is the program for one end of the wire.
func peer(t *testing.T, name string) string {
	t.Helper()
	if err := buildPeers(); err != nil {
		t.Fatal(err)
	}
	return filepath.Join(peersDir, name)
}

// world is a plugin, its hosts, and what it wrote down about itself.
type world struct {
	t      *testing.T
	driver *Driver
	hosts  string
	diary  string

	mu   sync.Mutex
	said []string // progress and information
}

// newWorld is a plugin that misbehaves in some way; "" for one that does not.
func newWorld(t *testing.T, fault string) *world {
	t.Helper()
	w := &world{t: t, hosts: t.TempDir(), diary: filepath.Join(t.TempDir(), "diary")}
	t.Setenv("PEER_FAULT", fault)
	t.Setenv("PEER_DIARY", w.diary)
	w.driver = New("peer", peer(t, "server"), Log{
		Info:  func(_, line string) { w.note(line) },
		Debug: func(machine, line string) { t.Logf("(%s) DBG | %s", machine, line) },
	})
	t.Cleanup(w.allEnded)
	return w
}

func (w *world) note(line string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.said = append(w.said, line)
}

func (w *world) spec(name string) machine.Spec {
	return machine.Spec{
		Name: name, Dir: filepath.Join(w.t.TempDir(), "machines", name), Progress: w.note,
		Values: map[string]any{"peer-dir": w.hosts, "peer-size": 4, "peer-fast": false, "peer-tag": []string{"a", "b"}, "odd": 1.5},
	}
}

// create makes a host that is there.
func (w *world) create(name string) machine.Instance {
	w.t.Helper()
	spec := w.spec(name)
	i, err := w.driver.Create(w.t.Context(), spec)
	if err != nil {
		w.t.Fatal(err)
	}
	i.Name, i.Dir = spec.Name, spec.Dir
	return i
}

// entries are the diary's lines.
func (w *world) entries() []string {
	data, err := os.ReadFile(w.diary)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		w.t.Fatal(err)
	}
	return strings.Split(strings.TrimSpace(string(data)), "\n")
}

// await waits until the plugin has written the line down.
func (w *world) await(ctx context.Context, line string) {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		for _, l := range w.entries() {
			if l == line {
				return
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// allEnded: no process that was started is there any more, not even as a zombie.
func (w *world) allEnded() {
	for _, l := range w.entries() {
		pid, is := strings.CutPrefix(l, "pid ")
		if !is {
			continue
		}
		n, err := strconv.Atoi(pid)
		if err != nil {
			w.t.Fatal(err)
		}
		if _, err := os.Stat(fmt.Sprintf("/proc/%d", n)); err == nil {
			w.t.Errorf("plugin process %d is still there", n)
		}
	}
}

func wantError(t *testing.T, err error, parts ...string) {
	t.Helper()
	if err == nil {
		t.Fatalf("no error, want one with %q", parts)
	}
	for _, part := range parts {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("error %q lacks %q", err, part)
		}
	}
}

func TestDriver(t *testing.T) {
	w := newWorld(t, "")
	made := 0
	drivertest.Run(t, func(t *testing.T) drivertest.Subject {
		t.Helper()
		made++
		spec := w.spec("m" + strconv.Itoa(made))
		spec.Progress = nil
		return drivertest.Subject{Driver: w.driver, Spec: spec}
	})
}

func TestCreateHandsOnAllThatThePluginKnows(t *testing.T) {
	w := newWorld(t, "")
	i := w.create("web1")
	at := filepath.Dir(filepath.Dir(i.Dir))
	want := machine.Instance{
		Name: "web1", Dir: i.Dir, IPAddress: i.IPAddress, EnginePort: 2377, URL: "tcp://" + i.IPAddress + ":2377",
		SSHHost: "ssh.example.com", SSHUser: "jo", SSHPort: 2222, SSHKeyPath: at + "/machines/web1/id_rsa", Whole: true, Raw: i.Raw,
	}
	if got := fmt.Sprint(i); got != fmt.Sprint(want) || !strings.HasPrefix(i.IPAddress, "127.") {
		t.Errorf("instance = %v, want %v", got, want)
	}
	for _, part := range []string{`"Serial":9007199254740993`, `"Tags":["a","b"]`, `"Checked":"quota is fine"`, `"StorePath":"` + at + `"`} {
		if !strings.Contains(string(i.Raw), part) {
			t.Errorf("the plugin's JSON lacks %s: %s", part, i.Raw)
		}
	}
	if got, want := strings.Join(w.said, "|"), "checking the quota|buying a host|Waiting for machine to be running, this may take a few minutes..."; got != want {
		t.Errorf("progress = %s, want %s", got, want)
	}
}

// The JSON is stored as it came, and comes back as it was stored.
func TestThePluginGetsItsOwnJSONBack(t *testing.T) {
	w := newWorld(t, "")
	i := w.create("web1")
	if state, err := w.driver.State(t.Context(), i); err != nil || state != machine.StateRunning {
		t.Errorf("state = %s %v, want Running", state, err)
	}
	entries := strings.Join(w.entries(), "\n")
	if !strings.Contains(entries, "\nconfig "+string(i.Raw)+"\n") {
		t.Errorf("the plugin was not given %s:\n%s", i.Raw, entries)
	}
}

// A machine that docker-machine made has its JSON in Stored.
func TestAnAdoptedMachine(t *testing.T) {
	w := newWorld(t, "")
	i := w.create("web1")
	adopted := machine.Instance{Name: i.Name, Dir: i.Dir, Stored: i.Raw}
	now, state, err := w.driver.Locate(t.Context(), adopted)
	if err != nil || state != machine.StateRunning {
		t.Fatalf("state = %s %v, want Running", state, err)
	}
	if now.URL != i.URL || now.SSHHost != i.SSHHost || now.SSHPort != i.SSHPort {
		t.Errorf("found at %s, SSH %s:%d, want %s, %s:%d", now.URL, now.SSHHost, now.SSHPort, i.URL, i.SSHHost, i.SSHPort)
	}
	if err := w.driver.Stop(t.Context(), adopted); err != nil {
		t.Fatal(err)
	}
	if now, err = w.driver.Start(t.Context(), adopted); err != nil || !now.Whole {
		t.Fatalf("started = %v %v, want one with the plugin's JSON", now, err)
	}
	if err := w.driver.Remove(t.Context(), adopted); err != nil {
		t.Fatal(err)
	}
	if state, err := w.driver.State(t.Context(), adopted); err != nil || state != machine.StateNotFound {
		t.Errorf("state after remove = %s %v, want Not Found", state, err)
	}
}

func TestFlags(t *testing.T) {
	w := newWorld(t, "")
	d, err := w.driver.WithFlags(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	want := []machine.Flag{
		{Name: "peer-dir", Usage: "Folder of the hosts", EnvVar: "PEER_DIR", Default: ""},
		{Name: "peer-fault", Usage: "How to misbehave", Default: ""},
		{Name: "peer-size", Usage: "Size of the host", EnvVar: "PEER_SIZE", Default: 4},
		{Name: "peer-fast", Usage: "No hurry", EnvVar: "PEER_FAST", Default: false},
		{Name: "peer-tag", Usage: "Tag of the host", EnvVar: "PEER_TAGS", Default: []string{"preset"}},
	}
	if got := fmt.Sprintf("%#v", d.Flags()); got != fmt.Sprintf("%#v", want) {
		t.Errorf("flags = %s, want %#v", got, want)
	}
	if entries := strings.Join(w.entries(), "\n"); !strings.Contains(entries, `"MachineName":"flag-lookup"`) {
		t.Errorf("the plugin was not asked as docker-machine asks:\n%s", entries)
	}
}

func TestAPluginOfDockerMachine050(t *testing.T) {
	w := newWorld(t, "only v0")
	i := w.create("web1")
	if err := w.driver.Remove(t.Context(), i); err != nil {
		t.Error(err)
	}
}

func TestPreCreateCheck(t *testing.T) {
	w := newWorld(t, "refusal")
	err := w.driver.PreCreateCheck(t.Context(), w.spec("web1"))
	wantError(t, err, "region nowhere-1 is not known")
	spec := w.spec("web1")
	spec.Values["peer-dir"] = ""
	wantError(t, w.driver.PreCreateCheck(t.Context(), spec), "peer driver requires the --peer-dir option")
}

// A plugin that does not speak the protocol is told from one that does within moments, and is ended.
func TestPluginsThatAreNone(t *testing.T) {
	for fault, want := range map[string]string{
		"garbage":         `it says "Usage: peer [OPTIONS]" where its address`,
		"elsewhere":       `it says "192.0.2.1:80" where its address`,
		"nothing":         "no answer within 200ms: still thinking",
		"no end of line":  "no answer within 200ms",
		"early death":     "it ended: exit status 7: cannot find my licence",
		"a web server":    `does not speak docker-machine's protocol: "404 Not Found"`,
		"a deaf listener": "no answer within 200ms",
		"version 2":       "Driver binary uses an incompatible API version (2)",
		"a bad flag":      `a flag with the unusable name "a b"`,
		"a nil flag":      "a flag of the unknown kind <nil>",
	} {
		t.Run(fault, func(t *testing.T) {
			w := newWorld(t, fault)
			w.driver.pace.start = 2 * time.Second
			if strings.Contains(want, "200ms") {
				w.driver.pace.start = 200 * time.Millisecond
			}
			_, err := w.driver.WithFlags(t.Context())
			wantError(t, err, "driver peer", want)
			if strings.Contains(want, "200ms") && !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("error %v is not context.DeadlineExceeded", err)
			}
		})
	}
}

func TestAPluginThatIsNoProgram(t *testing.T) {
	path := filepath.Join(t.TempDir(), "docker-machine-driver-peer")
	if err := os.WriteFile(path, []byte("\x7fELF no"), 0o700); err != nil {
		t.Fatal(err)
	}
	_, err := New("peer", path, Log{}).WithFlags(t.Context())
	wantError(t, err, "driver peer: start the plugin "+path, "exec format error")
}

// Whatever becomes of a create: what the plugin knew is handed on, and removes the host.
func TestCreatesThatFail(t *testing.T) {
	for fault, want := range map[string]struct{ err, knows string }{
		"failure":          {"the host has no disk", `"Serial":9007199254740993`},
		"panic":            {"Panic in the driver: index out of range", `"Serial":9007199254740993`},
		"death":            {"driver peer: the plugin broke off at Create: it ended: exit status 2: panic: runtime error: invalid memory address", `"Checked":""`},
		"freeze":           {"driver peer: the plugin broke off at Create: it gives no sign of life any more", `"Checked":""`},
		"odd state":        {"the unknown state 42", `"Serial":9007199254740993`},
		"a bad address":    {`answers GetIP with "-oProxyCommand=id"`, `"Serial":9007199254740993`},
		"no configuration": {`the plugin's configuration is no JSON object: "null"`, ""},
	} {
		t.Run(fault, func(t *testing.T) {
			w := newWorld(t, "")
			w.driver.pace.beat, w.driver.pace.answer = 50*time.Millisecond, time.Second
			spec := w.spec("web1")
			spec.Values["peer-fault"] = fault
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			if fault == "odd state" { // it is waited for to become another
				spec.Progress = func(line string) {
					if strings.HasPrefix(line, "Waiting") {
						time.AfterFunc(50*time.Millisecond, cancel)
					}
				}
			}
			i, err := w.driver.Create(ctx, spec)
			wantError(t, err, want.err)
			if !strings.Contains(string(i.Raw), want.knows) {
				t.Errorf("what it knew = %s, want %s in it", i.Raw, want.knows)
			}
			if strings.Contains(err.Error(), "goroutine") {
				t.Errorf("a stack is no error: %v", err)
			}
			if err := w.driver.Remove(t.Context(), i); err != nil {
				t.Error(err)
			}
			if left, err := os.ReadDir(w.hosts); err != nil || len(left) > 0 {
				t.Errorf("left after the removal: %v %v", left, err)
			}
		})
	}
}

var errStopped = errors.New("stopped by the test")

// An interrupted create gives the plugin time to note what it has made, and not for ever.
func TestAnInterruptedCreate(t *testing.T) {
	for fault, calm := range map[string]time.Duration{"slow": time.Minute, "hang": 100 * time.Millisecond} {
		t.Run(fault, func(t *testing.T) {
			w := newWorld(t, "")
			w.driver.pace.calm = calm
			spec := w.spec("web1")
			spec.Values["peer-fault"] = fault
			ctx, cancel := context.WithCancelCause(t.Context())
			spec.Progress = func(line string) {
				if strings.HasPrefix(line, "Interrupted") && fault == "slow" {
					if err := os.WriteFile(filepath.Join(w.hosts, "web1.go"), nil, 0o600); err != nil {
						t.Error(err)
					}
				}
			}
			go func() {
				w.await(t.Context(), map[string]string{"slow": "slow", "hang": "hanging"}[fault])
				cancel(errStopped)
			}()
			i, err := w.driver.Create(ctx, spec)
			if !errors.Is(err, errStopped) || !errors.Is(err, context.Canceled) {
				t.Errorf("create = %v, want %v", err, errStopped)
			}
			if !strings.Contains(string(i.Raw), `"Serial":9007199254740993`) {
				t.Errorf("what it knew = %s", i.Raw)
			}
			if err := w.driver.Remove(t.Context(), i); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestAStartThatKillsThePlugin(t *testing.T) {
	w := newWorld(t, "")
	i := w.create("web1")
	if err := w.driver.Stop(t.Context(), i); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PEER_FAULT", "death at start")
	_, err := w.driver.Start(t.Context(), i)
	wantError(t, err, "the plugin broke off at Start: it ended: exit status 2: panic: no map")
}

func TestAPluginThatDoesNotEndIsEnded(t *testing.T) {
	w := newWorld(t, "")
	i := w.create("web1")
	t.Setenv("PEER_FAULT", "no end")
	w.driver.pace.close, w.driver.pace.end = 100*time.Millisecond, 100*time.Millisecond
	if state, err := w.driver.State(t.Context(), i); err != nil || state != machine.StateRunning {
		t.Errorf("state = %s %v, want Running", state, err)
	}
}

// A create may take longer than the 10 seconds after which a plugin that hears nothing ends.
func TestAPluginIsToldThatSomebodyIsThere(t *testing.T) {
	w := newWorld(t, "")
	w.driver.pace.beat = 10 * time.Millisecond
	spec := w.spec("web1")
	spec.Values["peer-fault"] = "slow"
	go func() {
		w.await(t.Context(), "beat")
		if err := os.WriteFile(filepath.Join(w.hosts, "web1.go"), nil, 0o600); err != nil {
			t.Error(err)
		}
	}()
	i, err := w.driver.Create(t.Context(), spec)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.driver.Remove(t.Context(), i); err != nil {
		t.Error(err)
	}
	if entries := strings.Join(w.entries(), "\n"); !strings.HasSuffix(entries, "closed") {
		t.Errorf("the plugin was not closed:\n%s", entries)
	}
}

func TestFind(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("PATH", dir)
	for _, name := range []string{"docker-machine-driver-peer", "docker-machine"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\n"), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for name, want := range map[string]string{
		"peer":      filepath.Join(dir, "docker-machine-driver-peer"),
		"openstack": filepath.Join(dir, "docker-machine"), // which has it inside
	} {
		if got, err := Find(name); err != nil || got != want {
			t.Errorf("plugin of %s = %s %v, want %s", name, got, err, want)
		}
	}
	for _, name := range []string{"nix", "", "../peer", "a/b", "-x", "peer;id", ".."} {
		var missing *NotFoundError
		if path, err := Find(name); !errors.As(err, &missing) {
			t.Errorf("plugin of %q = %s %v, want none", name, path, err)
		}
	}
}

// A docker-machine on PATH that is this very program has nothing inside that this program does not know of.
func TestFindDoesNotFindItself(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("PATH", dir)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(self, filepath.Join(dir, "docker-machine")); err != nil {
		t.Fatal(err)
	}
	if path, err := Find("openstack"); err == nil {
		t.Errorf("plugin of openstack = %s, want none", path)
	}
}
