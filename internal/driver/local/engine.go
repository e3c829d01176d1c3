package local

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/google/renameio/v2"

	"berth/internal/machine"
)

// Certificates of a box, in its /etc/docker.
const (
	caFile   = "ca.pem"
	certFile = "server.pem"
	keyFile  = "server-key.pem"
)

// engineRecord is what an engine is started with, kept for the next start.
type engineRecord struct {
	Options machine.EngineOptions
	Labels  []string // further ones

	Services []machine.Service `json:",omitempty"`
}

// RunEngine implements machine.EngineRunner. An engine that runs already is stopped first.
func (Driver) RunEngine(ctx context.Context, i machine.Instance, e machine.EngineConfig) error {
	b, err := loadBox(i)
	if err != nil {
		return fmt.Errorf("run engine of %s: %w", i.Name, err)
	}
	rec := engineRecord{Options: e.Options, Labels: e.ExtraLabels, Services: e.Services}
	if _, err := b.engineArgs(rec); err != nil {
		return err
	}
	say := e.Progress
	if say == nil {
		say = func(string) {}
	}
	if err := b.keepEngine(rec, e); err != nil {
		return err
	}
	if err := b.halt(ctx); err != nil {
		return err
	}
	say(fmt.Sprintf("Starting %s in its own namespaces...", b.Engine))
	for _, s := range e.Services {
		say(fmt.Sprintf("Starting the Swarm's %s beside it...", s.Name))
	}
	marks := b.logMarks(e.Services)
	if err := b.start(ctx); err != nil {
		return err
	}
	if err := b.checkServices(marks); err != nil {
		return err
	}
	say(fmt.Sprintf("The engine answers on tcp://%s:%d", b.Address, enginePort))
	return nil
}

// RunsServices implements machine.ServiceRunner.
func (Driver) RunsServices() {}

// keepEngine writes down all that a later Start needs.
func (b *box) keepEngine(rec engineRecord, e machine.EngineConfig) error {
	if err := os.MkdirAll(b.file(etcDir), 0o710); err != nil {
		return fmt.Errorf("keep the engine's configuration: %w", err)
	}
	for _, f := range []struct {
		from, to string
		mode     os.FileMode
	}{{e.CACert, caFile, 0o644}, {e.ServerCert, certFile, 0o644}, {e.ServerKey, keyFile, 0o600}} {
		text, err := os.ReadFile(f.from)
		if err == nil {
			err = renameio.WriteFile(b.file(etcDir+"/"+f.to), text, f.mode)
		}
		if err != nil {
			return fmt.Errorf("keep the engine's certificates: %w", err)
		}
	}
	text, err := json.MarshalIndent(rec, "", "    ")
	if err == nil {
		err = renameio.WriteFile(b.file(engineFile), text, 0o600)
	}
	if err != nil {
		return fmt.Errorf("keep the engine's configuration: %w", err)
	}
	return nil
}

func (b *box) keptEngine() (engineRecord, error) {
	var rec engineRecord
	text, err := os.ReadFile(b.file(engineFile))
	if errors.Is(err, os.ErrNotExist) {
		return rec, fmt.Errorf("%s has no engine yet, since its create did not come to its end: remove it and create it again", b.name)
	}
	if err == nil {
		err = json.Unmarshal(text, &rec)
	}
	if err != nil {
		return rec, fmt.Errorf("read the engine's configuration: %w", err)
	}
	return rec, nil
}

// boxOptions are what the driver itself sets: another value would let the engine out of its box, or anyone into it.
var boxOptions = []string{
	"cgroup-parent", "config-file", "data-root", "exec-root", "graph", "pidfile", "tls", "tlsverify", "tlscacert", "tlscert", "tlskey",
}

// engineArgs are dockerd's arguments. All is said by flags, since dockerd refuses an option that is also in a file.
func (b *box) engineArgs(rec engineRecord) ([]string, error) {
	o := rec.Options
	args := []string{
		"--host=unix:///var/run/docker.sock", fmt.Sprintf("--host=tcp://0.0.0.0:%d", enginePort),
		"--tlsverify", "--tlscacert=/etc/docker/" + caFile, "--tlscert=/etc/docker/" + certFile, "--tlskey=/etc/docker/" + keyFile,
		"--exec-opt=native.cgroupdriver=cgroupfs", "--cgroup-parent=" + b.Cgroup,
	}
	for _, list := range []struct {
		flag   string
		values []string
	}{
		{"label", slices.Concat(o.Labels, rec.Labels)}, {"insecure-registry", o.InsecureRegistry}, {"registry-mirror", o.RegistryMirror}, {"dns", o.Dns},
	} {
		for _, v := range list.values {
			args = append(args, "--"+list.flag+"="+v)
		}
	}
	if o.StorageDriver != "" {
		args = append(args, "--storage-driver="+o.StorageDriver)
	}
	if o.LogLevel != "" {
		args = append(args, "--log-level="+o.LogLevel)
	}
	if o.Ipv6 {
		args = append(args, "--ipv6")
	}
	if o.SelinuxEnabled {
		args = append(args, "--selinux-enabled")
	}
	for _, opt := range o.ArbitraryFlags {
		name, _, _ := strings.Cut(opt, "=")
		if name == "" || strings.HasPrefix(name, "-") || strings.ContainsAny(name, " \t\n") {
			return nil, fmt.Errorf("engine option %q is not NAME or NAME=VALUE", opt)
		}
		if slices.Contains(boxOptions, name) {
			return nil, fmt.Errorf("engine option %q: a local machine's %s is the driver's to set", opt, name)
		}
		args = append(args, "--"+opt)
	}
	for _, e := range o.Env {
		if name, _, ok := strings.Cut(e, "="); !ok || name == "" {
			return nil, fmt.Errorf("engine environment %q is not NAME=VALUE", e)
		}
	}
	return args, nil
}

// engineEnv does not hand the command's own environment on: it is a person's, and may hold their secrets.
func engineEnv(engine string, wanted []string) []string {
	env := []string{"PATH=" + enginePath(engine), "HOME=/root", "LANG=C.UTF-8"}
	for _, e := range wanted {
		name, _, _ := strings.Cut(e, "=")
		env = slices.DeleteFunc(env, func(old string) bool { return strings.HasPrefix(old, name+"=") })
		env = append(env, e)
	}
	return env
}

// start brings the box up as it was configured, from whatever is left of it, and waits for its engine.
func (b *box) start(ctx context.Context) error {
	rec, err := b.keptEngine()
	if err != nil {
		return err
	}
	if err := executable(b.Engine); err != nil {
		return fmt.Errorf("the machine's engine: %w", err)
	}
	if err := b.end(ctx); err != nil {
		return err
	}
	if err := b.connect(ctx, b.Address); err != nil {
		return err
	}
	if err := b.rotateLog(logFile); err != nil {
		return err
	}
	for _, s := range rec.Services {
		if err := b.rotateLog(serviceLog(s.Name)); err != nil {
			return err
		}
	}
	from := b.logSize(logFile)
	if err := b.launch(ctx, rec); err != nil {
		return err
	}
	pid, err := b.initPID()
	if err != nil {
		return err
	}
	if pid == 0 {
		return b.engineError(errEnded, from)
	}
	if err := awaitEngine(ctx, pid); err != nil {
		return b.engineError(err, from)
	}
	return nil
}

var errEnded = errors.New("the engine ended")

// pingEvery is how often a starting engine is asked whether it is there.
const pingEvery = 50 * time.Millisecond

// awaitEngine returns when the engine of the box with that first process answers; or when it has ended, or ctx has.
func awaitEngine(ctx context.Context, pid int) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		if awaitExit(ctx, pid) == nil {
			cancel(errEnded)
		}
	}()
	defer func() { cancel(nil); <-watched }()
	tick := time.NewTicker(pingEvery)
	defer tick.Stop()
	for !answers(ctx, pid) {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
	}
	return nil
}

// answers asks the engine through its socket, which is reached in the box's own view of the file system.
func answers(ctx context.Context, pid int) bool {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	client := http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", fmt.Sprintf("/proc/%d/root/run/docker.sock", pid))
		},
	}}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://docker/_ping", nil)
	if err != nil {
		return false
	}
	response, err := client.Do(request)
	if err != nil {
		return false
	}
	_, err = io.Copy(io.Discard, response.Body)
	return errors.Join(err, response.Body.Close()) == nil && response.StatusCode == http.StatusOK
}

// maxLog is what an engine's log may have grown to when the machine starts; one older log is kept.
const maxLog = 16 << 20

func (b *box) rotateLog(name string) error {
	if b.logSize(name) < maxLog {
		return nil
	}
	if err := os.Rename(b.file(name), b.file(name+".1")); err != nil {
		return fmt.Errorf("rotate log: %w", err)
	}
	return nil
}

func (b *box) logSize(name string) int64 {
	info, err := os.Stat(b.file(name))
	if err != nil {
		return 0
	}
	return info.Size()
}

// lastLines is how much of the log an error shows.
const lastLines = 12

// engineError adds what the engine wrote since its log was that long.
func (b *box) engineError(cause error, from int64) error {
	said := "nothing"
	if text, err := os.ReadFile(b.file(logFile)); err == nil && int64(len(text)) > from {
		said = "\n  " + strings.Join(tail(string(text[from:])), "\n  ")
	}
	return fmt.Errorf("start engine of %s: %w; its log (%s) says: %s", b.name, cause, b.file(logFile), said)
}

// tail is the end of a log, without the chatter if anything else was said.
func tail(text string) []string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	grave := slices.DeleteFunc(slices.Clone(lines), func(line string) bool {
		return strings.Contains(line, "level=info") || strings.Contains(line, "level=debug")
	})
	if len(grave) > 0 {
		lines = grave
	}
	return lines[max(0, len(lines)-lastLines):]
}
