package provision_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"berth/internal/provision"
)

// room is a small system in a folder, whose real shell runs the scripts. Its programs that would change more than files are
// scripts themselves, which note that they were called.
type room struct {
	t    *testing.T
	dir  string
	said []string // progress
	ran  []string // scripts
}

const debianRelease = "PRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\nNAME=\"Debian GNU/Linux\"\nVERSION_ID=\"12\"\nID=debian\n"

// newRoom is a Debian without Docker, booted by systemd.
func newRoom(t *testing.T) *room {
	t.Helper()
	busybox, err := exec.LookPath("busybox")
	if os.Geteuid() != 0 || err != nil {
		t.Skip("needs root and busybox-static")
	}
	r := &room{t: t, dir: t.TempDir()}
	for _, d := range []string{"bin", "fake", "tmp", "dev", "etc", "proc/sys/kernel", "proc/1", "run/systemd/system", "var/run", "var/cache", "var/lib/dpkg", "root"} {
		if err := os.MkdirAll(filepath.Join(r.dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	program, err := os.ReadFile(busybox)
	if err != nil {
		t.Fatal(err)
	}
	r.write("bin/busybox", string(program), 0o755)
	if err := syscall.Mknod(filepath.Join(r.dir, "dev/null"), syscall.S_IFCHR|0o666, 1<<8|3); err != nil {
		t.Skipf("needs a /dev/null: %v", err)
	}
	applets, err := exec.Command(busybox, "--list").Output()
	r.must(err)
	for applet := range strings.FieldsSeq(string(applets)) {
		if applet == "busybox" {
			continue
		}
		r.must(os.Symlink("busybox", filepath.Join(r.dir, "bin", applet)))
	}
	r.takeShell()
	r.write("etc/os-release", debianRelease, 0o644)
	r.write("etc/hosts", "127.0.0.1 localhost\n", 0o644)
	r.write("etc/hostname", "bare\n", 0o644)
	r.write("proc/sys/kernel/hostname", "bare\n", 0o644)
	r.write("proc/1/comm", "systemd\n", 0o644)
	r.write("proc/locks", "", 0o644)
	r.write("var/lib/dpkg/lock-frontend", "", 0o644)
	r.fake("hostname", `echo "$1" >/proc/sys/kernel/hostname`)
	r.fake("df", `echo "Filesystem 1024-blocks Used Available Capacity Mounted on"; echo "disk 9 9 $(cat /free 2>/dev/null || echo 9999999) 9% /"`)
	r.fake("apt-get", `for last; do :; done; [ "$last" = update ] || cp /docker.service /docker.installed; cp /dockerd /fake/dockerd`)
	r.fake("apt-cache", `[ "$2" != docker.io ] || printf 'docker.io | 20.10.24+dfsg1-1 | http://deb.debian.org bookworm/main\n'`)
	r.fake("curl", `for a; do [ "$before" != -o ] || out=$a; before=$a; done; cp /install.sh "$out"`)
	r.write("install.sh", "echo installing $VERSION\ncp /docker.service /docker.installed; cp /dockerd /fake/dockerd\n", 0o755)
	r.write("docker.service", "# /lib/systemd/system/docker.service\n[Unit]\nDescription=x\n[Service]\nExecStart=/usr/sbin/dockerd -H fd:// --containerd=/run/c.sock $DOCKER_OPTS\n", 0o644)
	r.write("dockerd", "#!/bin/sh\necho \"Docker version 20.10.24+dfsg1, build 297e128\"\n", 0o755)
	r.fakeSystemd()
	return r
}

// takeShell gives the room a shell that looks for programs in PATH only. Busybox's has many built in, and would pass our fakes by.
func (r *room) takeShell() {
	r.t.Helper()
	r.must(os.Remove(filepath.Join(r.dir, "bin/sh")))
	libraries, err := exec.Command("ldd", "/bin/dash").Output()
	if err != nil {
		r.t.Skipf("needs dash: %v", err)
	}
	for _, word := range append(strings.Fields(string(libraries)), "/bin/dash") {
		if !strings.HasPrefix(word, "/") {
			continue
		}
		content, err := os.ReadFile(word)
		r.must(err)
		r.write(word, string(content), 0o755)
	}
	r.must(os.Symlink("dash", filepath.Join(r.dir, "bin/sh")))
}

// fakeSystemd knows a unit once it is installed. It starts the engine unless daemon.json or the command has the word "bad".
func (r *room) fakeSystemd() {
	r.fake("systemctl", `unit=/docker.installed d=/etc/systemd/system/docker.service.d
case "$*" in
"cat docker.service")
  [ -e $unit ] || exit 1
  cat $unit
  for f in $d/*.conf; do [ ! -e "$f" ] || { echo "# $f"; cat "$f"; }; done ;;
"show "*) echo no ;;
*is-active*) [ -e /var/run/docker.pid ] ;;
*is-enabled*) [ -e /enabled ] ;;
"enable "*) touch /enabled ;;
restart*|start*)
  rm -f /var/run/docker.pid
  if grep -q bad /etc/docker/daemon.json $d/*.conf 2>/dev/null; then echo "Job for docker.service failed" >&2; exit 1; fi
  sleep 0.02; echo 42 >/var/run/docker.pid ;;
esac`)
	r.fake("journalctl", `echo "unable to configure the Docker daemon with file /etc/docker/daemon.json"`)
	r.fake("docker", `[ -e /var/run/docker.pid ] && echo 20.10.24+dfsg1`)
}

// openRC makes it an Alpine.
func (r *room) openRC() {
	r.must(os.Remove(filepath.Join(r.dir, "run/systemd/system")))
	r.write("proc/1/comm", "init\n", 0o644)
	r.write("etc/os-release", "NAME=\"Alpine Linux\"\nID=alpine\nVERSION_ID=3.22.1\nPRETTY_NAME=\"Alpine Linux v3.22\"\n", 0o644)
	r.must(os.MkdirAll(filepath.Join(r.dir, "sbin"), 0o755))
	r.write("sbin/openrc-run", "#!/bin/sh\n", 0o755)
	r.fake("apk", `case "$*" in *" add docker"*) mkdir -p /etc/init.d /etc/conf.d; touch /etc/init.d/docker; chmod +x /etc/init.d/docker; echo 'DOCKER_OPTS=""' >/etc/conf.d/docker ;;
"search -q -e docker") echo docker ;; esac`)
	r.fake("rc-update", `case "$1" in show) [ ! -e /enabled ] || echo "     docker | default" ;; add) touch /enabled ;; esac`)
	r.fake("rc-service", `case "$2" in status) [ -e /var/run/docker.pid ] ;; restart) sleep 0.02; echo 42 >/var/run/docker.pid ;; esac`)
}

// fake makes a program that notes its calls in /calls and then does what body says.
func (r *room) fake(name, body string) {
	r.write("fake/"+name, "#!/bin/sh\necho \""+name+" $*\" >>/calls\n"+body+"\n", 0o755)
}

func (r *room) must(err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatal(err)
	}
}

func (r *room) write(path, content string, mode fs.FileMode) {
	r.t.Helper()
	path = filepath.Join(r.dir, path)
	r.must(os.MkdirAll(filepath.Dir(path), 0o755))
	r.must(os.WriteFile(path, []byte(content), mode))
	r.must(os.Chmod(path, mode))
}

func (r *room) read(path string) string {
	r.t.Helper()
	b, err := os.ReadFile(filepath.Join(r.dir, path))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		r.t.Fatal(err)
	}
	return string(b)
}

func (r *room) sh(script string) {
	r.t.Helper()
	var out bytes.Buffer
	if err := r.command(r.t.Context(), script, nil, &out).Run(); err != nil {
		r.t.Fatalf("%s: %v\n%s", script, err, &out)
	}
}

func (r *room) command(ctx context.Context, script string, in io.Reader, out io.Writer) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "/bin/sh", "-c", script)
	// The host name is no file: a namespace of its own keeps a mistake in here from renaming the computer.
	cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: r.dir, Cloneflags: syscall.CLONE_NEWUTS}
	cmd.Dir = "/"
	cmd.Env = []string{"PATH=/fake:/bin", "HOME=/root"}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = in, out, out
	return cmd
}

// Run implements provision.Runner.
func (r *room) Run(ctx context.Context, script string, in io.Reader, out io.Writer) error {
	r.ran = append(r.ran, script)
	return r.command(ctx, script, in, out).Run()
}

// config is what most tests want of the room.
func (r *room) config() provision.Config {
	return provision.Config{
		Hostname: "web1", Port: 2376, CA: []byte("authority\n"), Cert: []byte("certificate\n"), Key: []byte("very secret\n"),
		Engine:   provision.Engine{InstallURL: provision.Distro, Labels: []string{"provider=generic"}},
		Progress: func(line string) { r.said = append(r.said, line) },
	}
}

func (r *room) provision(c provision.Config) provision.Result {
	r.t.Helper()
	result, err := provision.Provision(r.t.Context(), r, c)
	if err != nil {
		r.t.Fatalf("provision: %v\nsaid: %q", err, r.said)
	}
	return result
}

// sum is a checksum of all files, with their modes, but for what was noted.
func (r *room) sum() string {
	r.t.Helper()
	h := sha256.New()
	r.must(filepath.WalkDir(r.dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() || d.Name() == "calls" {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		data, err := os.ReadFile(path)
		fmt.Fprintf(h, "%s %v %s %x\n", path, info.Mode(), info.ModTime(), sha256.Sum256(data))
		return err
	}))
	return hex.EncodeToString(h.Sum(nil))
}

// calls are what the fakes noted that begins with one of the given words.
func (r *room) calls(begin ...string) []string {
	var found []string
	for line := range strings.Lines(r.read("calls")) {
		for _, b := range begin {
			if strings.HasPrefix(line, b) {
				found = append(found, strings.TrimSpace(line))
			}
		}
	}
	return found
}

func (r *room) forget() {
	if err := os.Remove(filepath.Join(r.dir, "calls")); err != nil && !errors.Is(err, fs.ErrNotExist) {
		r.t.Fatal(err)
	}
	r.said, r.ran = nil, nil
}

func inode(info fs.FileInfo) uint64 { return info.Sys().(*syscall.Stat_t).Ino }
