//go:build e2e

package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// sshHost is a Debian with systemd and an sshd, as somebody might rent one: a container of systemd-nspawn on the suite's network, on
// an overlay over a tree that all of them share. It gets nowhere but to the suite; Debian's packages of Docker lie inside.
type sshHost struct {
	t          *testing.T
	name, ip   string
	dir        string
	key, known string          // of the user, and the host's own
	power      context.Context // ends when the host is switched off
	off        context.CancelFunc
	wg         sync.WaitGroup
}

// treeEnv names a tree of an earlier run, or where to leave this one's, for those who work on these tests.
const treeEnv = "BERTH_E2E_TREE"

// treeScript makes the tree: mmdebstrap runs it at the end, with the new root.
const treeScript = `set -eu
root=$1
mkdir -p "$root/repo/partial"
APT_CONFIG=$MMDEBSTRAP_APT_CONFIG apt-get --yes --no-install-recommends install --download-only -o Dir::Cache::archives="$root/repo" docker.io iptables
chroot "$root" sh -c 'cd /repo && apt-ftparchive packages . >Packages'
rm -rf "$root"/etc/apt/sources.list.d/* "$root"/etc/apt/apt.conf.d/99mmdebstrap "$root"/etc/ssh/ssh_host_* "$root"/var/lib/apt/lists/*
echo 'deb [trusted=yes] file:/repo ./' >"$root/etc/apt/sources.list"
rm -f "$root/etc/resolv.conf"; : >"$root/etc/resolv.conf"
chroot "$root" useradd -m -s /bin/bash deb
printf 'PermitRootLogin prohibit-password\nPasswordAuthentication no\nUseDNS no\nMaxStartups 100\n' >"$root/etc/ssh/sshd_config.d/test.conf"
# The address, and cgroups that an engine can write: systemd-nspawn mounts them read-only.
cat >"$root/etc/systemd/system/test-host.service" <<'UNIT'
[Unit]
DefaultDependencies=no
Before=sysinit.target ssh.service
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/sh -c 'ip link set lo up; ip addr add $(cat /etc/test-address)/24 dev host0; ip link set host0 up; for c in /sys/fs/cgroup /sys/fs/cgroup/*/; do mount -o remount,bind,rw "$c" || true; done'
[Install]
WantedBy=sysinit.target
UNIT
chroot "$root" systemctl -q enable test-host.service
chroot "$root" systemctl -q mask apt-daily.timer apt-daily-upgrade.timer e2scrub_all.timer fstrim.timer systemd-firstboot.service systemd-networkd.service getty.target console-getty.service
`

var treeOnce struct {
	sync.Once
	dir string
	err error
}

// hostTree is the tree of all hosts, made at its first use, by way of the network that the suite itself has none of.
func hostTree(t *testing.T) string {
	t.Helper()
	treeOnce.Do(func() { treeOnce.dir, treeOnce.err = makeTree() })
	if treeOnce.err != nil {
		t.Fatalf("make the hosts' tree: %v", treeOnce.err)
	}
	return treeOnce.dir
}

func makeTree() (string, error) {
	for _, n := range []string{"mmdebstrap", "systemd-nspawn", "ssh", "ssh-keygen"} {
		if _, err := exec.LookPath(n); err != nil {
			return "", fmt.Errorf("%w: run `make test-deps`", err)
		}
	}
	dir := os.Getenv(treeEnv)
	if dir == "" {
		dir = filepath.Join(scratch, "tree")
	}
	if _, err := os.Stat(filepath.Join(dir, "repo/Packages")); err == nil {
		return dir, nil
	}
	hook := filepath.Join(scratch, "tree-hook")
	if err := os.WriteFile(hook, []byte("#!/bin/sh\n"+treeScript), 0o700); err != nil {
		return "", err
	}
	cmd := exec.CommandContext(context.Background(), "nsenter", "--net=/proc/self/fd/3", "mmdebstrap", "--quiet", "--mode=root", "--variant=minbase",
		"--include=systemd-sysv,dbus,openssh-server,sudo,curl,ca-certificates,iproute2,apt-utils,procps",
		"--dpkgopt=force-unsafe-io", "--dpkgopt=path-exclude=/usr/share/doc/*", "--dpkgopt=path-exclude=/usr/share/man/*",
		"--dpkgopt=path-exclude=/usr/share/locale/*", `--aptopt=Acquire::Languages "none"`, "--customize-hook="+hook+` "$1"`,
		"bookworm", dir)
	cmd.ExtraFiles = []*os.File{outsideNet}
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("mmdebstrap: %w\n%s", err, out[max(0, len(out)-3000):])
	}
	return dir, nil
}

const hostsBridge = "hosts0"

// startHost boots a host and waits until it lets root in. It is gone after the test.
func startHost(t *testing.T, number int) *sshHost {
	t.Helper()
	tree := hostTree(t)
	name := fmt.Sprintf("rented%d", number)
	h := &sshHost{
		t: t, name: name, ip: fmt.Sprintf("10.98.0.%d", 10+number), dir: filepath.Join(t.TempDir(), name),
	}
	h.power, h.off = context.WithCancel(context.Background())
	h.key, h.known = filepath.Join(h.dir, "key"), filepath.Join(h.dir, "known")
	ready := false
	t.Cleanup(func() {
		if t.Failed() || !ready {
			log, _ := os.ReadFile(filepath.Join(h.dir, "log")) //nolint:errcheck // then there is none to show
			t.Logf("%s said:\n%s", name, log[max(0, len(log)-2000):])
		}
		h.stop()
	})
	hostsNetwork(t)
	h.prepare(tree)
	h.wg.Go(h.run)
	eventually(t, time.Minute, name+" lets root in", func() bool { return h.try("true") == nil })
	ready = true
	return h
}

// hostsNetwork is the bridge that hosts hang on, until the test's end.
func hostsNetwork(t *testing.T) {
	t.Helper()
	if exec.CommandContext(t.Context(), "ip", "link", "show", hostsBridge).Run() == nil {
		return
	}
	run(t, "ip", "link", "add", hostsBridge, "type", "bridge")
	run(t, "ip", "addr", "add", "10.98.0.1/24", "dev", hostsBridge)
	run(t, "ip", "link", "set", hostsBridge, "up")
	t.Cleanup(func() {
		if out, err := exec.CommandContext(context.Background(), "ip", "link", "del", hostsBridge).CombinedOutput(); err != nil {
			t.Errorf("delete the bridge: %v %s", err, out)
		}
	})
}

func run(t *testing.T, name string, args ...string) {
	t.Helper()
	if out, err := exec.CommandContext(t.Context(), name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
}

func (h *sshHost) root() string { return filepath.Join(h.dir, "root") }

func (h *sshHost) prepare(tree string) {
	h.t.Helper()
	for _, d := range []string{"root", "upper", "work", "docker", "containerd"} {
		if err := os.MkdirAll(filepath.Join(h.dir, d), 0o755); err != nil {
			h.t.Fatal(err)
		}
	}
	if err := unix.Mount("overlay", h.root(), "overlay", 0, fmt.Sprintf("lowerdir=%s,upperdir=%s/upper,workdir=%s/work", tree, h.dir, h.dir)); err != nil {
		h.t.Fatalf("overlay (TMPDIR must not be on one): %v", err)
	}
	run(h.t, "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", h.key)
	run(h.t, "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", filepath.Join(h.root(), "etc/ssh/ssh_host_ed25519_key"))
	public, err := os.ReadFile(h.key + ".pub")
	if err != nil {
		h.t.Fatal(err)
	}
	h.put("etc/hostname", h.name+"\n")
	h.put("etc/hosts", "127.0.0.1 localhost\n127.0.1.1 "+h.name+"\n")
	h.put("etc/test-address", h.ip+"\n")
	h.put("root/.ssh/authorized_keys", string(public))
	h.put("home/deb/.ssh/authorized_keys", string(public))
	run(h.t, "chroot", h.root(), "chown", "-R", "deb:deb", "/home/deb")
}

// put writes a file of the host's, while it is off.
func (h *sshHost) put(path, content string) {
	h.t.Helper()
	path = filepath.Join(h.root(), path)
	err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(content), 0o644))
	if err != nil {
		h.t.Fatal(err)
	}
}

// run keeps the host up until it is switched off: systemd-nspawn of Debian 12 may end where its host only reboots.
func (h *sshHost) run() {
	for h.power.Err() == nil {
		log, err := os.OpenFile(filepath.Join(h.dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
		if err != nil {
			h.t.Error(err)
			return
		}
		began := time.Now()
		cmd := h.nspawn()
		cmd.Stdout, cmd.Stderr = log, log
		if err := h.enterCgroup(cmd); err != nil {
			h.t.Error(err)
			h.off()
		} else if err := cmd.Run(); err != nil {
			fmt.Fprintln(log, "systemd-nspawn:", err) //nolint:errcheck // for people
		}
		log.Close() //nolint:errcheck // for people
		if time.Since(began) < time.Second {
			h.off() // it does not even boot
		}
	}
}

func (h *sshHost) nspawn() *exec.Cmd {
	cmd := exec.CommandContext(h.power, "systemd-nspawn", "--quiet", "--boot", "--register=no", "--keep-unit",
		"--directory="+h.root(), "--machine="+h.name, "--hostname="+h.name, "--network-bridge="+hostsBridge,
		"--capability=all", "--resolv-conf=off", "--timezone=off", "--link-journal=no", "--console=pipe",
		"--bind="+h.dir+"/docker:/var/lib/docker", "--bind="+h.dir+"/containerd:/var/lib/containerd")
	// An engine needs keyctl and bpf, and to write to /proc/sys and to cgroups.
	unified := "0"
	if _, err := os.Stat("/sys/fs/cgroup/cgroup.controllers"); err == nil {
		unified = "1"
	}
	cmd.Env = append(os.Environ(), "SYSTEMD_SECCOMP=0", "SYSTEMD_NSPAWN_API_VFS_WRITABLE=1", "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY="+unified)
	cmd.WaitDelay = 5 * time.Second
	return cmd
}

// cgroupDirs are the host's cgroups, with a name of berth's so that the suite takes away what is left of them.
func (h *sshHost) cgroupDirs() []string {
	controllers, err := filepath.Glob("/sys/fs/cgroup/*/cgroup.procs")
	if err != nil {
		panic(err) // the pattern is constant
	}
	var dirs []string
	for _, procs := range controllers {
		dirs = append(dirs, filepath.Join(filepath.Dir(procs), "berth-e2e-"+h.name))
	}
	if _, err := os.Stat("/sys/fs/cgroup/cgroup.procs"); err == nil { // version 2 alone
		dirs = []string{"/sys/fs/cgroup/berth-e2e-" + h.name}
	}
	return dirs
}

// enterCgroup has the command begin in the host's cgroups.
func (h *sshHost) enterCgroup(cmd *exec.Cmd) error {
	script := ""
	for _, dir := range h.cgroupDirs() {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
		for _, name := range []string{"cpuset.cpus", "cpuset.mems"} { // empty ones take no process
			if all, err := os.ReadFile(filepath.Join(filepath.Dir(dir), name)); err == nil && filepath.Base(filepath.Dir(dir)) == "cpuset" {
				if err := os.WriteFile(filepath.Join(dir, name), all, 0o644); err != nil {
					return err
				}
				if err := os.WriteFile(filepath.Join(dir, "cgroup.clone_children"), []byte("1"), 0o644); err != nil {
					return err
				}
			}
		}
		script += "echo $$ >" + dir + "/cgroup.procs || exit 1\n"
	}
	cmd.Args = append([]string{"sh", "-c", script + `exec "$@"`, "sh"}, cmd.Args...)
	cmd.Path = "/bin/sh"
	return nil
}

// stop switches the host off and takes it away.
func (h *sshHost) stop() {
	h.off()
	h.wg.Wait()
	for _, dir := range h.cgroupDirs() {
		for range 100 {
			procs, err := exec.CommandContext(context.Background(), "find", dir, "-name", "cgroup.procs", "-exec", "cat", "{}", "+").Output()
			if err != nil || len(bytes.TrimSpace(procs)) == 0 {
				break
			}
			for _, pid := range strings.Fields(string(procs)) {
				exec.CommandContext(context.Background(), "kill", "-KILL", pid).Run() //nolint:errcheck // gone is as good
			}
			time.Sleep(50 * time.Millisecond)
		}
		removeCgroup(dir)
	}
	if err := unix.Unmount(h.root(), unix.MNT_DETACH); err != nil && !errors.Is(err, unix.EINVAL) {
		h.t.Errorf("unmount %s: %v", h.root(), err)
	}
}

// ssh is the stock client's command on the host as root.
func (h *sshHost) ssh(ctx context.Context, script string) *exec.Cmd {
	return exec.CommandContext(ctx, "ssh", "-F", "/dev/null", "-i", h.key, "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null",
		"-o", "LogLevel=ERROR", "-o", "ConnectTimeout=3", "-o", "IdentitiesOnly=yes", "root@"+h.ip, script)
}

func (h *sshHost) try(script string) error {
	return h.ssh(h.t.Context(), script).Run()
}

// do runs a script on the host as root, which has to succeed.
func (h *sshHost) do(t *testing.T, script string) string {
	t.Helper()
	return must(t, h.ssh(t.Context(), script))
}

// flags are how a machine is made of the host.
func (h *sshHost) flags(more ...string) []string {
	return append([]string{"create", "-d", "generic", "--generic-ip-address", h.ip, "--generic-ssh-key", h.key}, more...)
}
