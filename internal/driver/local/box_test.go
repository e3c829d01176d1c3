package local

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"berth/internal/machine"
)

// createVar holds the instance and configuration for a copy of the test program that only runs an engine and exits.
const createVar = "BERTH_TEST_CREATE"

// host is a machine of a test.
type host struct {
	*testing.T
	store    *store
	instance machine.Instance
}

// newHost makes a machine and runs its engine; change may alter its configuration.
func newHost(t *testing.T, s *store, spec machine.Spec, change ...func(*machine.EngineConfig)) *host {
	t.Helper()
	if err := (Driver{}).PreCreateCheck(t.Context(), spec); err != nil {
		t.Fatal(err)
	}
	i, err := Driver{}.Create(t.Context(), spec)
	t.Cleanup(func() {
		if err := (Driver{}).Remove(context.Background(), i); err != nil {
			t.Error(err)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	config := s.engine(t, i)
	for _, c := range change {
		c(&config)
	}
	if err := (Driver{}).RunEngine(t.Context(), i, config); err != nil {
		t.Fatal(err)
	}
	return &host{t, s, i}
}

// docker runs the stock client against the machine and returns what it prints.
func (h *host) docker(args ...string) string {
	h.Helper()
	out, err := h.tryDocker(nil, args...)
	if err != nil {
		h.Fatalf("docker %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(out)
}

func (h *host) tryDocker(stdin io.Reader, args ...string) (string, error) {
	h.Helper()
	if _, err := exec.LookPath("docker"); err != nil {
		h.Skip("needs the docker client")
	}
	file := func(name string) string { return filepath.Join(h.store.dir, name) }
	cmd := exec.CommandContext(h.Context(), "docker", append([]string{
		"--tlsverify", "--tlscacert", file("ca.pem"), "--tlscert", file("cert.pem"), "--tlskey", file("key.pem"),
		"-H", "tcp://" + h.instance.IPAddress + ":2376",
	}, args...)...)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + h.store.dir}
	cmd.Stdin = stdin
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// load makes the image "box" of busybox alone.
func (h *host) load() {
	h.Helper()
	busybox, err := os.ReadFile("/bin/busybox")
	if err != nil {
		h.Skip("needs busybox-static: ", err)
	}
	var image bytes.Buffer
	w := tar.NewWriter(&image)
	if err := w.WriteHeader(&tar.Header{Name: "bin/busybox", Mode: 0o755, Size: int64(len(busybox))}); err != nil {
		h.Fatal(err)
	}
	if _, err := w.Write(busybox); err != nil {
		h.Fatal(err)
	}
	for _, name := range []string{"sh", "echo", "cat", "sleep", "httpd", "ip"} {
		if err := w.WriteHeader(&tar.Header{Name: "bin/" + name, Typeflag: tar.TypeSymlink, Linkname: "busybox", Mode: 0o777}); err != nil {
			h.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		h.Fatal(err)
	}
	if out, err := h.tryDocker(&image, "import", "-", "box"); err != nil {
		h.Fatalf("docker import: %v\n%s", err, out)
	}
}

func (h *host) box() *box {
	h.Helper()
	b, err := loadBox(h.instance)
	if err != nil {
		h.Fatal(err)
	}
	return b
}

// engine is dockerd's process.
func (h *host) engine() int {
	h.Helper()
	pids, err := h.box().pids()
	if err != nil {
		h.Fatal(err)
	}
	for pid := range pids {
		if comm, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid)); err == nil && strings.TrimSpace(string(comm)) == "dockerd" {
			return pid
		}
	}
	h.Fatal("no dockerd runs in the box")
	return 0
}

func (h *host) state() machine.State {
	h.Helper()
	s, err := Driver{}.State(h.Context(), h.instance)
	if err != nil {
		h.Fatal(err)
	}
	return s
}

func (h *host) start() {
	h.Helper()
	i, err := Driver{}.Start(h.Context(), h.instance)
	if err != nil {
		h.Fatal(err)
	}
	if i.IPAddress != h.instance.IPAddress {
		h.Errorf("its address was %s and is %s", h.instance.IPAddress, i.IPAddress)
	}
	h.instance = i
}

// eventually waits for what the kernel does in its own time.
func (h *host) eventually(what string, is func() bool) {
	h.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	late := time.After(20 * time.Second)
	for !is() {
		select {
		case <-tick.C:
		case <-late:
			h.Fatalf("%s: not after 20 s", what)
		}
	}
}

func TestStockClient(t *testing.T) {
	needEngine(t)
	s := newStore(t)
	h := newHost(t, s, s.spec(t, "web1"), func(e *machine.EngineConfig) {
		e.Options.Labels = []string{"size=xxl"}
		e.Options.ArbitraryFlags = []string{"log-opt=max-size=1m", "debug"}
		e.Options.Env = []string{"MARK=of the box"}
		e.Options.StorageDriver = "overlay2"
		e.Options.InsecureRegistry = []string{"10.9.9.9:5000"}
		e.Options.RegistryMirror = []string{"http://10.9.9.9:5001"}
	})
	h.load()
	for name, tt := range map[string]struct {
		args []string
		want string
	}{
		"a container runs":            {[]string{"run", "--rm", "box", "echo", "hello"}, "hello"},
		"host name":                   {[]string{"info", "-f", "{{.Name}}"}, "web1"},
		"labels":                      {[]string{"info", "-f", "{{join .Labels \" \"}}"}, "provider=local size=xxl"},
		"bare option":                 {[]string{"info", "-f", "{{.Debug}}"}, "true"},
		"storage driver":              {[]string{"info", "-f", "{{.Driver}}"}, "overlay2"},
		"cgroups":                     {[]string{"info", "-f", "{{.CgroupDriver}}"}, "cgroupfs"},
		"registry":                    {[]string{"info", "-f", `{{(index .RegistryConfig.IndexConfigs "10.9.9.9:5000").Secure}}`}, "false"},
		"mirror":                      {[]string{"info", "-f", "{{.RegistryConfig.Mirrors}}"}, "[http://10.9.9.9:5001/]"},
		"this computer's directories": {[]string{"run", "--rm", "-v", s.dir + ":/there", "box", "cat", "/there/mark"}, "found"},
		"propagated mounts":           {[]string{"run", "--rm", "-v", s.dir + ":/there:rshared", "box", "cat", "/there/mark"}, "found"},
		"limits":                      {[]string{"run", "--rm", "-m", "64m", "--cpus", "0.5", "--pids-limit", "9", "box", "echo", "in"}, "in"},
		// The client and its libraries come from this computer.
		"the socket is this engine's": {[]string{
			"run", "--rm", "-v", "/var/run/docker.sock:/var/run/docker.sock", "-v", "/usr:/usr:ro", "-v", "/lib:/lib:ro", "-v", "/lib64:/lib64:ro",
			"box", dockerPath(t), "info", "-f", "{{.Name}}",
		}, "web1"},
	} {
		t.Run(name, func(t *testing.T) {
			s.write(t, "mark", []byte("found"))
			got := strings.Fields(h.docker(tt.args...))
			slices.Sort(got) // labels come in any order
			if got := strings.Join(got, " "); got != tt.want {
				t.Errorf("docker %s = %q, want %q", strings.Join(tt.args, " "), got, tt.want)
			}
		})
	}

	h.docker("run", "-d", "--name", "site", "-p", "8080:80", "box", "httpd", "-f", "-h", "/bin")
	h.eventually("the published port answers", func() bool {
		response, err := http.Get("http://" + h.instance.IPAddress + ":8080/busybox")
		return err == nil && response.Body.Close() == nil && response.StatusCode == http.StatusOK
	})
	http.DefaultClient.CloseIdleConnections()

	env, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", h.engine()))
	if err != nil || !strings.Contains(string(env), "MARK=of the box\x00") || strings.Contains(string(env), insideVar) {
		t.Errorf("the engine's environment is %q, %v: want MARK and nothing of the command's", env, err)
	}
	own, err := h.box().pids()
	if err != nil || len(own) < 5 { // init, dockerd, containerd, shim, httpd
		t.Errorf("processes in the box's cgroups: %v, %v", own, err)
	}
	for _, name := range []string{keyFile, "key.json"} {
		if info, err := os.Stat(h.box().file(etcDir + "/" + name)); err == nil && info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %v", name, info.Mode())
		}
	}
	if _, err := tlsGet(h, nil); err == nil {
		t.Error("the engine answers a client without certificate")
	}
	if mounts, err := os.ReadFile("/proc/mounts"); err != nil || strings.Contains(string(mounts), h.box().dir) {
		t.Errorf("the box's mounts are seen outside: %v\n%s", err, mounts)
	}
}

func dockerPath(t *testing.T) string {
	t.Helper()
	path, err := exec.LookPath("docker")
	if err != nil {
		t.Skip("needs the docker client")
	}
	return path
}

func tlsGet(h *host, pair *tls.Certificate) (string, error) {
	config := &tls.Config{InsecureSkipVerify: true} //nolint:gosec // it is the server that must refuse
	if pair != nil {
		config.Certificates = []tls.Certificate{*pair}
	}
	client := http.Client{Transport: &http.Transport{TLSClientConfig: config, DisableKeepAlives: true}}
	response, err := client.Get("https://" + h.instance.IPAddress + ":2376/_ping")
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	return string(text), err
}

func TestStopIsGracefulAndKillIsNot(t *testing.T) {
	needEngine(t)
	s := newStore(t)
	h := newHost(t, s, s.spec(t, "m"))
	h.load()
	run := func(name string) {
		h.docker("run", "-d", "--name", name, "-v", s.dir+":/out", "box", "sh", "-c",
			"trap 'echo bye >/out/"+name+"; exit' TERM; echo here >/out/"+name+".up; while :; do sleep 0.1; done")
		h.eventually(name+" runs", func() bool { _, err := os.Stat(filepath.Join(s.dir, name+".up")); return err == nil })
	}
	said := func(name string) bool { _, err := os.Stat(filepath.Join(s.dir, name)); return err == nil }

	h.docker("volume", "create", "kept")
	run("stopped")
	if err := (Driver{}).Stop(t.Context(), h.instance); err != nil {
		t.Fatal(err)
	}
	if !said("stopped") {
		t.Error("stop gave the container no time to end")
	}
	if got := h.state(); got != machine.StateStopped {
		t.Errorf("state after stop = %s", got)
	}
	h.start()
	if got := h.docker("volume", "ls", "-q"); got != "kept" {
		t.Errorf("volumes after a stop and a start: %q, want kept", got)
	}
	run("killed")
	h.docker("run", "-d", "--name", "frozen", "box", "sleep", "1000")
	h.docker("pause", "frozen") // what is frozen cannot die
	if err := (Driver{}).Kill(t.Context(), h.instance); err != nil {
		t.Fatal(err)
	}
	if said("killed") {
		t.Error("kill gave the container time to end")
	}
	if left, err := h.box().pids(); err != nil || len(left) > 0 {
		t.Errorf("after kill: processes %v, %v", left, err)
	}
}

// TestStopEndsWithItsContext: a container that does not want to end gets the time it asked for, the caller need not wait.
func TestStopEndsWithItsContext(t *testing.T) {
	needEngine(t)
	s := newStore(t)
	h := newHost(t, s, s.spec(t, "m"))
	h.load()
	h.docker("run", "-d", "--stop-timeout", "600", "box", "sh", "-c", "trap '' TERM; while :; do sleep 1; done")
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if err := (Driver{}).Stop(ctx, h.instance); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("stop = %v, want its context's end", err)
	}
	if got := h.state(); got != machine.StateRunning {
		t.Errorf("state of one that is stopping = %s", got)
	}
}

func TestKilledEngineStartsAgain(t *testing.T) {
	needEngine(t)
	s := newStore(t)
	h := newHost(t, s, s.spec(t, "m"))
	h.load()
	h.docker("run", "-d", "--name", "paused", "box", "sleep", "1000")
	h.docker("pause", "paused")
	for _, who := range []string{"engine", "first process"} {
		pid := h.engine()
		if who != "engine" {
			var err error
			if pid, err = h.box().initPID(); err != nil {
				t.Fatal(err)
			}
		}
		if err := unix.Kill(pid, unix.SIGKILL); err != nil {
			t.Fatal(err)
		}
		h.eventually("state says stopped", func() bool { return h.state() == machine.StateStopped })
		h.start()
		if got := h.docker("ps", "-a", "--format", "{{.Names}}"); got != "paused" {
			t.Errorf("containers after the %s was killed: %q", who, got)
		}
		h.docker("start", "paused")
		h.docker("pause", "paused")
	}
	// An engine that was killed this very moment is not taken for one that runs.
	if err := unix.Kill(h.engine(), unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	h.start()
	h.docker("info")
}

func TestStoppedProcessesCanBeStopped(t *testing.T) {
	needEngine(t)
	s := newStore(t)
	h := newHost(t, s, s.spec(t, "m"))
	if err := unix.Kill(h.engine(), unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	if got := h.state(); got != machine.StateRunning {
		t.Errorf("state of one whose engine hangs = %s", got)
	}
	if err := (Driver{}).Stop(t.Context(), h.instance); err != nil {
		t.Fatal(err)
	}
}

// TestStartAfterReboot takes away all that lives in the kernel and in /run.
func TestStartAfterReboot(t *testing.T) {
	needEngine(t)
	s := newStore(t)
	h := newHost(t, s, s.spec(t, "m"))
	h.docker("volume", "create", "kept")
	id := h.docker("info", "-f", "{{.ID}}")
	b := h.box()
	if err := b.end(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(deleteLink(b.HostVeth), deleteNetNS(b.NetNS), removeRules(b.Bridge, b.Subnet), deleteLink(b.Bridge)); err != nil {
		t.Fatal(err)
	}
	if got := h.state(); got != machine.StateStopped {
		t.Errorf("state after a reboot = %s", got)
	}
	// Nobody else in the store takes its address meanwhile.
	other := newHost(t, s, s.spec(t, "other"))
	if other.instance.IPAddress == h.instance.IPAddress {
		t.Errorf("another machine took %s", h.instance.IPAddress)
	}
	h.start()
	if got := h.docker("volume", "ls", "-q"); got != "kept" {
		t.Errorf("volumes after a reboot: %q", got)
	}
	if got := h.docker("info", "-f", "{{.ID}}"); got != id {
		t.Errorf("the engine's ID was %s and is %s", id, got)
	}
	if got := other.docker("info", "-f", "{{.ID}}"); got == id {
		t.Errorf("two engines have the ID %s", id)
	}
}

func TestCutOffMachineIsPluggedInAgain(t *testing.T) {
	needEngine(t)
	s := newStore(t)
	h := newHost(t, s, s.spec(t, "m"))
	link, err := netlink.LinkByName(h.box().HostVeth)
	if err != nil {
		t.Fatal(err)
	}
	if err := netlink.LinkSetDown(link); err != nil {
		t.Fatal(err)
	}
	i, err := Driver{}.Restart(t.Context(), h.instance)
	if err != nil {
		t.Fatal(err)
	}
	h.instance = i
	h.docker("info")
}

// createAndExit is the copy of the test program that runs an engine.
func createAndExit() {
	var i machine.Instance
	var config machine.EngineConfig
	err := json.Unmarshal([]byte(os.Getenv(createVar)), &struct {
		I *machine.Instance
		C *machine.EngineConfig
	}{&i, &config})
	if err == nil {
		err = Driver{}.RunEngine(context.Background(), i, config)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

func TestBoxOutlivesItsCommand(t *testing.T) {
	needEngine(t)
	s := newStore(t)
	i, err := Driver{}.Create(t.Context(), s.spec(t, "m"))
	t.Cleanup(func() {
		if err := (Driver{}).Remove(context.Background(), i); err != nil {
			t.Error(err)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	config := s.engine(t, i)
	config.Progress = nil
	task, err := json.Marshal(map[string]any{"I": i, "C": struct {
		Options                       machine.EngineOptions
		CACert, ServerCert, ServerKey string
	}{config.Options, config.CACert, config.ServerCert, config.ServerKey}})
	if err != nil {
		t.Fatal(err)
	}
	lock, err := os.Create(filepath.Join(s.dir, "lock"))
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	command := exec.Command("/proc/self/exe", "-test.run", "^$")
	command.Env = append(os.Environ(), createVar+"="+string(task))
	command.ExtraFiles = []*os.File{lock} // as a shell's that holds one
	if out, err := command.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	h := &host{t, s, i}
	if got := h.state(); got != machine.StateRunning {
		t.Fatalf("state after the command's end = %s", got)
	}
	pids, err := h.box().pids()
	if err != nil {
		t.Fatal(err)
	}
	for pid := range pids {
		files, err := filepath.Glob("/proc/" + strconv.Itoa(pid) + "/fd/*")
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range files {
			if to, err := os.Readlink(f); err == nil && (to == lock.Name() || strings.HasPrefix(to, "/memfd:") || strings.HasPrefix(to, "/dev/pts")) {
				t.Errorf("process %d of the box holds %s", pid, to)
			}
		}
	}
	h.docker("info")
}

func TestEngineThatDoesNotStartSaysWhy(t *testing.T) {
	needEngine(t)
	for name, tt := range map[string]struct{ option, want string }{
		"unknown option":        {"no-such-option=1", "unknown flag: --no-such-option"},
		"unknown value":         {"storage-driver=nonsense", "driver not supported"},
		"two of what is one":    {"label=a=1", "conflict labels"},
		"the driver's to set":   {"data-root=/", "is the driver's to set"},
		"no option":             {"--debug", "is not NAME or NAME=VALUE"},
		"an option and another": {"debug --x", "is not NAME or NAME=VALUE"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStore(t)
			i, err := Driver{}.Create(t.Context(), s.spec(t, "m"))
			t.Cleanup(func() {
				if err := (Driver{}).Remove(context.Background(), i); err != nil {
					t.Error(err)
				}
			})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := (Driver{}).Start(t.Context(), i); err == nil || !strings.Contains(err.Error(), "has no engine yet") {
				t.Errorf("start before there is an engine = %v", err)
			}
			config := s.engine(t, i)
			config.Options.Labels = []string{"a=2"}
			config.Options.ArbitraryFlags = []string{tt.option}
			err = Driver{}.RunEngine(t.Context(), i, config)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("run engine = %v, want an error with %q", err, tt.want)
			}
			h := &host{t, s, i}
			if got := h.state(); got != machine.StateStopped {
				t.Errorf("state = %s, want Stopped", got)
			}
		})
	}
}

// TestOtherEngine: what came with a dockerd is found beside it.
func TestOtherEngine(t *testing.T) {
	needEngine(t)
	s := newStore(t)
	bin := t.TempDir()
	real, err := findEngine("")
	if err != nil {
		t.Fatal(err)
	}
	script := "#!/bin/sh\nexec " + real + ` "$@"` + "\n"
	if err := os.WriteFile(filepath.Join(bin, "dockerd"), []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	spec := s.spec(t, "m")
	spec.Values[flagEngine] = filepath.Join(bin, "dockerd")
	h := newHost(t, s, spec)
	env, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", h.engine()))
	if want := "PATH=" + bin + ":"; err != nil || !strings.Contains(string(env), want) {
		t.Errorf("the engine's environment is %q, %v: want %s", env, err, want)
	}
	if err := (Driver{}).Stop(t.Context(), h.instance); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(bin, "dockerd")); err != nil {
		t.Fatal(err)
	}
	if _, err := (Driver{}).Start(t.Context(), h.instance); err == nil || !strings.Contains(err.Error(), bin) {
		t.Errorf("start without its engine = %v, want an error that names it", err)
	}
}

// TestSubnetThatDockerWouldTake: docker0 gives way to the machines' own network.
func TestSubnetThatDockerWouldTake(t *testing.T) {
	needEngine(t)
	s := newStore(t)
	spec := s.spec(t, "m")
	spec.Values[flagSubnet] = "172.17.0.0/24"
	spec.Values[flagAddress] = "172.17.0.9"
	h := newHost(t, s, spec)
	if h.instance.IPAddress != "172.17.0.9" {
		t.Errorf("address %s, want the one asked for", h.instance.IPAddress)
	}
	got := h.docker("network", "inspect", "bridge", "-f", "{{(index .IPAM.Config 0).Subnet}}")
	if strings.HasPrefix(got, "172.17.") {
		t.Errorf("docker0 has %s, which is the machines'", got)
	}
}

// TestStoreInRun: a box has its own /run, also where the store lies in this computer's.
func TestStoreInRun(t *testing.T) {
	needEngine(t)
	dir, err := os.MkdirTemp("/run", "berth-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	s := newStore(t)
	spec := s.spec(t, "m")
	spec.Dir = filepath.Join(dir, "m")
	h := newHost(t, s, spec)
	h.docker("volume", "create", "kept")
	if _, err := os.Stat(filepath.Join(spec.Dir, boxDir, dataDir, "volumes", "kept")); err != nil {
		t.Error(err)
	}
}

func TestAddresses(t *testing.T) {
	needEngine(t)
	s, other := newStore(t), newStore(t)
	spec := func(from *store, name, address string) machine.Spec {
		spec := from.spec(t, name)
		spec.Values[flagAddress] = address
		return spec
	}
	create := func(spec machine.Spec) machine.Instance {
		i, err := Driver{}.Create(t.Context(), spec)
		t.Cleanup(func() {
			if err := (Driver{}).Remove(context.Background(), i); err != nil {
				t.Error(err)
			}
		})
		if err != nil {
			t.Fatal(err)
		}
		return i
	}
	a := create(spec(s, "a", ""))
	if b := create(spec(other, "a", "")); a.IPAddress != "10.213.77.2" || b.IPAddress != "10.213.77.3" {
		t.Errorf("addresses %s and %s, want .2 and .3", a.IPAddress, b.IPAddress)
	}
	taken := spec(s, "c", "10.213.77.3")
	if err := (Driver{}).PreCreateCheck(t.Context(), taken); err == nil || !strings.Contains(err.Error(), "is the address of a ("+other.dir) {
		t.Errorf("check of a taken address = %v", err)
	}
	if _, err := (Driver{}).Create(t.Context(), taken); err == nil || !strings.Contains(err.Error(), "--local-address") {
		t.Errorf("create at a taken address = %v", err)
	}
	if err := (Driver{}).Remove(t.Context(), machine.Instance{Name: "c", Dir: taken.Dir}); err != nil {
		t.Error(err)
	}
	// A machine whose directory somebody deleted holds no address for ever.
	if err := os.RemoveAll(a.Dir); err != nil {
		t.Fatal(err)
	}
	if d := create(spec(s, "d", "")); d.IPAddress != a.IPAddress {
		t.Errorf("address %s, want the forgotten %s", d.IPAddress, a.IPAddress)
	}
}
