package local

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/google/renameio/v2"
	"golang.org/x/sys/unix"
)

// launch starts the box's first process and returns once that has started the engine, which then runs by itself.
func (b *box) launch(ctx context.Context, rec engineRecord) error {
	p, err := b.plan(rec)
	if err != nil {
		return err
	}
	log, err := os.OpenFile(b.file(logFile), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("open log: %w", err)
	}
	defer log.Close()
	planFile, err := memoryFile(p)
	if err != nil {
		return err
	}
	defer planFile.Close()
	report, reporter, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("start box: %w", err)
	}
	defer report.Close()
	cmd := exec.CommandContext(ctx, "/proc/self/exe")
	cmd.Args = []string{"berth", launchArg, b.name}
	cmd.Dir = "/"
	cmd.Env = []string{"PATH=" + enginePath(b.Engine)}
	cmd.Stdout, cmd.Stderr = log, log
	cmd.ExtraFiles = []*os.File{planFile, reporter} // planFD, reportFD
	err = cmd.Run()
	if closeErr := reporter.Close(); err == nil {
		err = closeErr
	}
	reason, readErr := io.ReadAll(report)
	switch {
	case len(reason) > 0:
		return fmt.Errorf("start box: %s", reason)
	case err != nil:
		return fmt.Errorf("start box: %w", err)
	case readErr != nil:
		return fmt.Errorf("start box: %w", readErr)
	}
	return nil
}

func memoryFile(p plan) (*os.File, error) {
	text, err := json.Marshal(p)
	if err != nil {
		return nil, fmt.Errorf("write the box's plan: %w", err)
	}
	fd, err := unix.MemfdCreate("berth-plan", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("write the box's plan: %w", err)
	}
	f := os.NewFile(uintptr(fd), "plan")
	if _, err := f.Write(text); err != nil {
		return nil, errors.Join(fmt.Errorf("write the box's plan: %w", err), f.Close())
	}
	return f, nil
}

func (b *box) plan(rec engineRecord) (plan, error) {
	enter, err := b.prepareCgroups()
	if err != nil {
		return plan{}, err
	}
	binds, err := b.prepareFiles()
	if err != nil {
		return plan{}, err
	}
	args, err := b.engineArgs(rec)
	if err != nil {
		return plan{}, err
	}
	return plan{
		Name: b.name, Cgroup: b.Cgroup, NetNS: netnsPath(b.NetNS), Enter: enter, Mounts: mountPlan{binds},
		Engine: b.Engine, Args: args, Env: engineEnv(b.Engine, rec.Options.Env),
		Services: b.servicePlans(rec.Services),
	}, nil
}

// prepareFiles makes what the box sees in place of this computer's own files.
func (b *box) prepareFiles() ([]bind, error) {
	binds := []bind{{b.file(etcDir), "/etc/docker"}, {b.file(dataDir), "/var/lib/docker"}}
	for _, x := range binds {
		if err := os.MkdirAll(x.From, 0o710); err != nil {
			return nil, fmt.Errorf("make the box's files: %w", err)
		}
	}
	// Registries' certificates are this computer's.
	const trusted = "/etc/docker/certs.d"
	if info, err := os.Stat(trusted); err == nil && info.IsDir() {
		if err := os.MkdirAll(b.file(etcDir+"/certs.d"), 0o755); err != nil {
			return nil, fmt.Errorf("make the box's files: %w", err)
		}
		binds = append(binds, bind{trusted, trusted})
	}
	for _, f := range []struct {
		path, copy string
		edit       func([]byte) []byte
	}{
		{"/etc/hosts", hostsFile, func(text []byte) []byte { return addHost(text, b.Address, b.name) }},
		{"/etc/resolv.conf", resolvFile, reachableResolvers},
	} {
		// A symbolic link is followed now: it may lead into /run, which the box has its own of.
		target, err := filepath.EvalSymlinks(f.path)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		var text []byte
		if err == nil {
			text, err = os.ReadFile(target)
		}
		if err == nil {
			err = renameio.WriteFile(b.file(f.copy), f.edit(text), 0o644)
		}
		if err != nil {
			return nil, fmt.Errorf("make the box's files: %w", err)
		}
		binds = append(binds, bind{b.file(f.copy), target})
	}
	return binds, nil
}

// addHost lets the box find itself by its own name.
func addHost(hosts []byte, a netip.Addr, name string) []byte {
	if len(hosts) > 0 && hosts[len(hosts)-1] != '\n' {
		hosts = append(hosts, '\n')
	}
	return fmt.Appendf(hosts, "%s\t%s\n", a, name)
}

// resolvedUpstream is where systemd-resolved writes the servers that stand behind its own.
const resolvedUpstream = "/run/systemd/resolve/resolv.conf"

// reachableResolvers leaves out name servers on this computer's loopback, which is not the box's.
func reachableResolvers(text []byte) []byte {
	kept, servers := withoutLoopback(text)
	if servers > 0 {
		return kept
	}
	if upstream, err := os.ReadFile(resolvedUpstream); err == nil {
		if other, servers := withoutLoopback(upstream); servers > 0 {
			return other
		}
	}
	return kept
}

func withoutLoopback(text []byte) (kept []byte, servers int) {
	for lines := bufio.NewScanner(bytes.NewReader(text)); lines.Scan(); {
		f := strings.Fields(lines.Text())
		if len(f) > 1 && f[0] == "nameserver" {
			if ip := net.ParseIP(strings.SplitN(f[1], "%", 2)[0]); ip != nil && ip.IsLoopback() {
				continue
			}
			servers++
		}
		kept = append(append(kept, lines.Bytes()...), '\n')
	}
	return kept, servers
}

// awaitExit returns when the process has ended, or with ctx.
func awaitExit(ctx context.Context, pid int) error {
	fd, err := unix.PidfdOpen(pid, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("watch process %d: %w", pid, err)
	}
	defer func() { _ = unix.Close(fd) }()
	for ctx.Err() == nil {
		const look = 50 // milliseconds, after which ctx is looked at
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, look)
		if n > 0 {
			return nil
		}
		if err != nil && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("watch process %d: %w", pid, err)
		}
	}
	return ctx.Err()
}
