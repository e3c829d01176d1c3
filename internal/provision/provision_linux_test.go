package provision_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"berth/internal/provision"
)

const daemonJSON = `{
  "hosts": [
    "fd://",
    "tcp://0.0.0.0:2376"
  ],
  "labels": [
    "provider=generic"
  ],
  "tlsverify": true,
  "tlscacert": "/etc/docker/ca.pem",
  "tlscert": "/etc/docker/server.pem",
  "tlskey": "/etc/docker/server-key.pem"
}
`

const dropIn = `# Written by berth; provisioning the machine again rewrites it.
[Service]
ExecStart=
ExecStart=/usr/sbin/dockerd --containerd=/run/c.sock $DOCKER_OPTS
`

func TestABareHostGetsAnEngine(t *testing.T) {
	r := newRoom(t)
	result := r.provision(r.config())
	want := provision.Result{OS: "Debian GNU/Linux 12 (bookworm)", Engine: "20.10.24+dfsg1", Restarted: true}
	if result != want {
		t.Errorf("result = %+v, want %+v", result, want)
	}
	for path, content := range map[string]string{
		"etc/docker/daemon.json":                            daemonJSON,
		"etc/systemd/system/docker.service.d/zz-berth.conf": dropIn,
		"etc/docker/ca.pem":                                 "authority\n",
		"etc/docker/server.pem":                             "certificate\n",
		"etc/docker/server-key.pem":                         "very secret\n",
		"etc/hostname":                                      "web1\n",
		"proc/sys/kernel/hostname":                          "web1\n",
		"etc/hosts":                                         "127.0.0.1 localhost\n127.0.1.1\tweb1\n",
	} {
		if diff := cmp.Diff(content, r.read(path)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", path, diff)
		}
	}
	info, err := os.Stat(filepath.Join(r.dir, "etc/docker/server-key.pem"))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("key: %v, %v, want mode 0600", info.Mode(), err)
	}
	wantCalls := []string{
		"apt-get -qq -o APT::Update::Error-Mode=any -o Acquire::Retries=2 update",
		"apt-get -qq -y --no-install-recommends install docker.io iptables",
		"systemctl enable docker.service", "systemctl daemon-reload", "systemctl restart docker.service",
	}
	if diff := cmp.Diff(wantCalls, r.calls("apt-get", "systemctl enable", "systemctl daemon", "systemctl restart", "systemctl start")); diff != "" {
		t.Errorf("calls (-want +got):\n%s", diff)
	}
	for _, script := range r.ran {
		if strings.Contains(script, "very secret") {
			t.Errorf("the key stands on a command line: %s", script)
		}
	}
}

func TestProvisioningAgainChangesNothing(t *testing.T) {
	for name, prepare := range map[string]func(*room){
		"systemd": func(*room) {},
		"openrc":  (*room).openRC,
		"as a user": func(r *room) {
			r.fake("id", `case "$1" in -u) echo 1000 ;; *) echo deb ;; esac`)
			r.fake("sudo", `[ "$1" = -n ] && shift; exec "$@"`)
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRoom(t)
			prepare(r)
			c := r.config()
			c.Engine.Env = []string{"HTTP_PROXY=http://proxy:3128/?a=b c&d"}
			c.Engine.Flags = []string{"log-driver=local", "icc"}
			if first := r.provision(c); !first.Restarted {
				t.Error("the first time started nothing")
			}
			before := r.sum()
			r.forget()
			if again := r.provision(c); again.Restarted || again.Engine == "" {
				t.Errorf("the second time = %+v, want no restart and the engine's version", again)
			}
			if r.sum() != before {
				t.Error("the second time changed files")
			}
			if calls := r.calls("systemctl start", "systemctl restart", "systemctl enable", "systemctl daemon-reload", "apt", "apk", "rc-update add", "rc-service docker restart"); len(calls) > 0 {
				t.Errorf("the second time called %q", calls)
			}
		})
	}
}

// A connection that breaks between the settings and the restart leaves an engine that does not know of them.
func TestARestartThatWasCutOffIsMadeUpFor(t *testing.T) {
	r := newRoom(t)
	r.provision(r.config())
	// Busybox's find counts whole seconds.
	r.sh("touch -d @1000000000 /etc/docker/* /etc/systemd/system/docker.service.d/*; touch -d @1000000010 /var/run/docker.pid")
	if result := r.provision(r.config()); result.Restarted {
		t.Fatal("older settings restart the engine")
	}
	c := r.config()
	c.Engine.Labels = append(c.Engine.Labels, "size=xxl")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	c.Progress = func(line string) {
		if strings.HasPrefix(line, "Restarting") {
			cancel()
		}
	}
	if _, err := provision.Provision(ctx, r, c); !errors.Is(err, context.Canceled) {
		t.Fatalf("provision = %v, want context.Canceled", err)
	}
	if !strings.Contains(r.read("etc/docker/daemon.json"), "size=xxl") {
		t.Fatal("it was cut off too early for this test")
	}
	c.Progress = nil
	if result := r.provision(c); !result.Restarted {
		t.Error("the engine goes on without the label")
	}
}

func TestWhatOthersConfiguredStays(t *testing.T) {
	r := newRoom(t)
	r.sh("cp /docker.service /docker.installed; cp /dockerd /fake/dockerd; echo 1 >/var/run/docker.pid")
	r.write("etc/docker/daemon.json", `{"zebra": 1.50, "labels": ["mine=1", "size=s"], "log-opts": {"max-size": "10m"}, "hosts": ["unix:///var/run/docker.sock"]}`, 0o600)
	r.write("etc/systemd/system/docker.service.d/override.conf", "[Service]\nExecStart=\nExecStart=/opt/dockerd -H unix:///run/extra.sock \\\n  # a comment\n  --label old=2 --tlsverify --max-concurrent-downloads=5\nLimitNOFILE=9\n", 0o644)
	r.write("etc/systemd/system/docker.service.d/10-machine.conf", "[Service]\nExecStart=\nExecStart=/usr/bin/dockerd -H tcp://0.0.0.0:2376 --tlsverify\n", 0o644)
	c := r.config()
	c.Engine.Labels = []string{"size=xxl"}
	c.Engine.Flags = []string{"log-opt=max-file=3", "label=more=1", "log-driver=local"}
	r.provision(c)
	want := `{
  "zebra": 1.50,
  "labels": [
    "mine=1",
    "size=xxl",
    "old=2",
    "more=1"
  ],
  "log-opts": {
    "max-file": "3",
    "max-size": "10m"
  },
  "hosts": [
    "unix:///var/run/docker.sock",
    "unix:///run/extra.sock",
    "tcp://0.0.0.0:2376"
  ],
  "tlsverify": true,
  "tlscacert": "/etc/docker/ca.pem",
  "tlscert": "/etc/docker/server.pem",
  "tlskey": "/etc/docker/server-key.pem"
}
`
	if diff := cmp.Diff(want, r.read("etc/docker/daemon.json")); diff != "" {
		t.Errorf("daemon.json (-want +got):\n%s", diff)
	}
	wantUnit := "# Written by berth; provisioning the machine again rewrites it.\n[Service]\nExecStart=\nExecStart=/opt/dockerd --max-concurrent-downloads=5 --log-driver=local\n"
	if diff := cmp.Diff(wantUnit, r.read("etc/systemd/system/docker.service.d/zz-berth.conf")); diff != "" {
		t.Errorf("drop-in (-want +got):\n%s", diff)
	}
	if r.read("etc/systemd/system/docker.service.d/10-machine.conf") != "" {
		t.Error("docker-machine's drop-in is still there")
	}
	if calls := r.calls("apt-get"); len(calls) > 0 {
		t.Errorf("an engine that is there was installed again: %q", calls)
	}
}

// An engine that ran before must not stay down for the sake of an option.
func TestAnEngineThatDoesNotStartGoesOnAsItWas(t *testing.T) {
	r := newRoom(t)
	r.provision(r.config())
	good := r.read("etc/docker/daemon.json") + r.read("etc/systemd/system/docker.service.d/zz-berth.conf")
	c := r.config()
	c.Engine.Labels, c.Engine.Flags = []string{"bad=1"}, []string{"icc"}
	_, err := provision.Provision(t.Context(), r, c)
	wantStep(t, err, "start the engine", "settings that it had before", "Job for docker.service failed", "unable to configure the Docker daemon")
	if now := r.read("etc/docker/daemon.json") + r.read("etc/systemd/system/docker.service.d/zz-berth.conf"); now != good {
		t.Errorf("the settings are now:\n%s", now)
	}
	if r.read("var/run/docker.pid") == "" {
		t.Error("the engine does not run")
	}
	r.forget()
	if again := r.provision(r.config()); again.Restarted && r.calls("systemctl restart") == nil {
		t.Errorf("with good settings = %+v", again)
	}
}

func TestOpenRC(t *testing.T) {
	r := newRoom(t)
	r.openRC()
	c := r.config()
	c.Engine.Env = []string{"FOO=it's $5"}
	c.Engine.Flags = []string{"log-opt=tag=a b"}
	r.provision(c)
	r.sh(`. /etc/conf.d/docker; [ "$FOO" = "it's \$5" ] || exit 1; eval "set -- $DOCKER_OPTS"; [ "$#" = 1 ] && [ "$1" = "--log-opt=tag=a b" ]`)
	if !strings.Contains(r.read("etc/docker/daemon.json"), `"unix:///var/run/docker.sock"`) {
		t.Errorf("daemon.json leaves the host's own clients out: %s", r.read("etc/docker/daemon.json"))
	}
	c.Engine.Env, c.Engine.Flags = nil, nil
	r.provision(c)
	if got, want := r.read("etc/conf.d/docker"), "DOCKER_OPTS=\"\"\n"; got != want {
		t.Errorf("settings without ours = %q, want %q", got, want)
	}
}

func TestFailures(t *testing.T) {
	user := func(r *room, sudo string) {
		r.fake("id", `case "$1" in -u) echo 1000 ;; *) echo deb ;; esac`)
		if sudo != "" {
			r.fake("sudo", sudo)
		}
	}
	aptSays := func(says string) func(*room, *provision.Config) {
		return func(r *room, _ *provision.Config) {
			r.fake("apt-get", `echo "`+says+`"; exit 100`)
		}
	}
	for name, tt := range map[string]struct {
		prepare func(*room, *provision.Config)
		step    string
		parts   []string
	}{
		"sudo wants a password": {func(r *room, _ *provision.Config) { user(r, `echo "sudo: a password is required" >&2; exit 1`) },
			"look at the host", []string{"user deb cannot become root", "sudo: a password is required", "NOPASSWD"}},
		"no sudo":        {func(r *room, _ *provision.Config) { user(r, "") }, "look at the host", []string{"user deb is not root", "install sudo"}},
		"another kernel": {func(r *room, _ *provision.Config) { r.fake("uname", "echo FreeBSD") }, "look at the host", []string{`"FreeBSD"`, "run on Linux"}},
		"no init system": {func(r *room, _ *provision.Config) {
			r.must(os.Remove(filepath.Join(r.dir, "run/systemd/system")))
			r.write("proc/1/comm", "runit\n", 0o644)
		}, "look at the host", []string{`"runit"`, "--no-install"}},
		"unknown system": {func(r *room, _ *provision.Config) {
			r.write("etc/os-release", "ID=haiku\nPRETTY_NAME='Haiku R1'\n", 0o644)
		},
			"install Docker", []string{"Haiku R1 is not a system", "provision again"}},
		"nothing is to be installed": {func(_ *room, c *provision.Config) { c.Engine.InstallURL = provision.None }, "install Docker", []string{"no Docker Engine on the host"}},
		"an engine outside the service": {func(r *room, _ *provision.Config) { r.sh("cp /dockerd /fake/dockerd") },
			"install Docker", []string{"an engine at /fake/dockerd that is not a service", "a snap"}},
		"little room":      {func(r *room, _ *provision.Config) { r.write("free", "204800\n", 0o644) }, "install Docker", []string{"200 MiB left", "df -h"}},
		"disk full":        {aptSays("E: Write error - write (28: No space left on device)"), "install Docker", []string{"apt-get -qq", "exit status 100", "28: No space", "disk of the host is full"}},
		"no name":          {aptSays("E: Temporary failure resolving 'deb.debian.org'"), "install Docker", []string{"resolv.conf"}},
		"no way":           {aptSays("E: Failed to fetch http://x/ Connection timed out"), "install Docker", []string{"mirrors"}},
		"no such package":  {aptSays("E: Unable to locate package docker.io"), "install Docker", []string{"--engine-install-url"}},
		"dpkg in disorder": {aptSays("E: dpkg was interrupted, you must manually run"), "install Docker", []string{"dpkg --configure -a"}},
		"no such version":  {func(_ *room, c *provision.Config) { c.Engine.Version = "99.1" }, "install Docker", []string{"there is no version 99.1", "20.10.24"}},
		"broken daemon.json": {func(r *room, _ *provision.Config) { r.write("etc/docker/daemon.json", `{"a": [`, 0o644) },
			"configure the engine", []string{"/etc/docker/daemon.json: it is not JSON", "unexpected EOF", "Mend it there"}},
		"strange daemon.json": {func(r *room, _ *provision.Config) { r.write("etc/docker/daemon.json", `{"labels": {"a": 1}}`, 0o644) },
			"configure the engine", []string{`"labels" is {"a": 1}, not a list of texts`}},
		"TLS by option": {func(_ *room, c *provision.Config) { c.Engine.Flags = []string{"tlsverify=false"} }, "configure the engine", []string{"TLS by itself"}},
		"the script is empty": {func(r *room, c *provision.Config) {
			c.Engine.InstallURL = "http://x/i.sh"
			r.write("install.sh", "", 0o644)
		}, "install Docker", []string{"http://x/i.sh is empty"}},
		"the script fails": {func(r *room, c *provision.Config) {
			c.Engine.InstallURL = "http://x/i.sh"
			r.write("install.sh", "echo oh no; exit 7", 0o644)
		}, "install Docker", []string{"sh http://x/i.sh: exit status 7", "oh no"}},
		"the script does none": {func(r *room, c *provision.Config) {
			c.Engine.InstallURL = "http://x/i.sh"
			r.write("install.sh", "true", 0o644)
		}, "install Docker", []string{"no service called docker"}},
		"docker.com is out of reach": {func(r *room, c *provision.Config) {
			c.Engine.InstallURL = provision.DefaultURL
			r.fake("curl", `echo "curl: (6) Could not resolve host: get.docker.com"; exit 6`)
		}, "install Docker", []string{"curl -fsSL", "exit status 6", "--engine-install-url distro"}},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRoom(t)
			c := r.config()
			tt.prepare(r, &c)
			_, err := provision.Provision(t.Context(), r, c)
			wantStep(t, err, tt.step, tt.parts...)
		})
	}
}

func wantStep(t *testing.T, err error, step string, parts ...string) {
	t.Helper()
	if err == nil {
		t.Fatalf("no error, want one at the step %q", step)
	}
	if !strings.HasPrefix(err.Error(), step+": ") {
		t.Errorf("error %q does not begin with the step %q", err, step)
	}
	for _, part := range parts {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("error %q lacks %q", err, part)
		}
	}
}

// lockIt makes the kernel's list say that process 77 holds dpkg's lock.
func (r *room) lockIt() {
	r.t.Helper()
	info, err := os.Stat(filepath.Join(r.dir, "var/lib/dpkg/lock-frontend"))
	r.must(err)
	r.write("proc/locks", fmt.Sprintf("1: OFDLCK ADVISORY  READ -1 00:06:3 0 EOF\n2: POSIX  ADVISORY  WRITE 77 fe:00:%d 0 EOF\n", inode(info)), 0o644)
	r.write("proc/77/cmdline", "/usr/bin/unattended-upgrade\x00-d\x00", 0o644)
}

func TestAHeldPackageLockIsWaitedForAndNamed(t *testing.T) {
	r := newRoom(t)
	r.lockIt()
	c := r.config()
	progress := c.Progress
	c.Progress = func(line string) {
		progress(line)
		if strings.Contains(line, "Waiting for another program") {
			r.write("proc/locks", "", 0o644)
		}
	}
	r.provision(c)
	if !slices.ContainsFunc(r.said, func(line string) bool { return strings.Contains(line, "unattended-upgrade -d (process 77") }) {
		t.Errorf("nobody was told who holds the lock: %q", r.said)
	}
}

func TestTheWaitForALockIsBounded(t *testing.T) {
	r := newRoom(t)
	r.lockIt()
	c := r.config()
	c.LockWait = time.Millisecond
	_, err := provision.Provision(t.Context(), r, c)
	wantStep(t, err, "install Docker", "locked by another program, still after 1ms", "unattended-upgrade -d (process 77", "provision again")
	if calls := r.calls("apt-get"); len(calls) > 0 {
		t.Errorf("apt-get was run all the same: %q", calls)
	}
}

// A lock may be taken between our look and apt-get.
func TestAnOvertakenInstallIsTriedAgain(t *testing.T) {
	r := newRoom(t)
	r.fake("apt-get", `if [ ! -e /tried ]; then touch /tried; echo "E: Could not get lock /var/lib/dpkg/lock-frontend"; exit 100; fi; cp /docker.service /docker.installed; cp /dockerd /fake/dockerd`)
	r.provision(r.config())
	if n := len(r.calls("apt-get")); n != 3 {
		t.Errorf("apt-get was run %d times, want 3: once in vain, then for the lists and the packages", n)
	}
}

func TestTheScriptGetsTheVersion(t *testing.T) {
	r := newRoom(t)
	c := r.config()
	c.Engine.InstallURL, c.Engine.Version = "https://example.com/it's here.sh", "28.5"
	r.write("install.sh", "echo \"$VERSION\" >/version\ncp /docker.service /docker.installed; cp /dockerd /fake/dockerd\n", 0o755)
	r.provision(c)
	if got := r.read("version"); got != "28.5\n" {
		t.Errorf("VERSION = %q, want 28.5", got)
	}
	if calls := r.calls("curl"); len(calls) != 1 || !strings.HasSuffix(calls[0], "https://example.com/it's here.sh") {
		t.Errorf("calls = %q", calls)
	}
}

func TestFirewallsAreOpenedOnce(t *testing.T) {
	r := newRoom(t)
	r.fake("ufw", `case "$1" in status) echo "Status: active" ;; show) cat /rules 2>/dev/null ;; allow) echo "ufw $*" >>/rules ;; esac`)
	r.fake("firewall-cmd", `case "$*" in *--state) ;; *query*) grep -qxe "$(echo "$*" | sed s/query/add/)" /rules ;; *) echo "$*" >>/rules ;; esac`)
	c := r.config()
	c.Port = 2399
	r.provision(c)
	want := "ufw allow 2399/tcp\n--quiet --add-port=2399/tcp\n--quiet --permanent --add-port=2399/tcp\n"
	r.provision(c)
	if got := r.read("rules"); got != want {
		t.Errorf("rules = %q, want %q", got, want)
	}
	if !slices.Contains(r.said, "Opened port 2399 in the host's firewall") {
		t.Errorf("nobody was told: %q", r.said)
	}
}

func TestUpgrade(t *testing.T) {
	r := newRoom(t)
	r.provision(r.config())
	r.write("usr/sbin/dockerd", "", 0o755)
	r.fake("dpkg-query", `case "$1" in -S) echo "docker.io: /fake/dockerd" ;; *) [ "$4" = containerd ] && echo "install ok installed" ;; esac`)
	r.fake("apt-get", `case "$*" in *install*) echo 'echo "Docker version 28.5.1, build x"' >/fake/dockerd; chmod +x /fake/dockerd ;; esac`)
	r.fake("docker", `[ -e /var/run/docker.pid ] || exit 1; if [ -e /restarted ]; then echo 28.5.1; else echo 20.10.24+dfsg1; fi`)
	r.fake("systemctl", strings.Replace(strings.SplitN(r.read("fake/systemctl"), "\n", 3)[2], "sleep 0.02;", "touch /restarted; sleep 0.02;", 1))
	r.forget()
	before, after, err := provision.Upgrade(t.Context(), r, r.config())
	if err != nil || before != "20.10.24+dfsg1" || after != "28.5.1" {
		t.Errorf("upgrade = %s, %s, %v, want 20.10.24+dfsg1, 28.5.1", before, after, err)
	}
	if calls := r.calls("apt-get -qq -y"); len(calls) != 1 || !strings.HasSuffix(calls[0], "install docker.io containerd") {
		t.Errorf("calls = %q, want one for docker.io and containerd", calls)
	}
	r.forget()
	if _, _, err := provision.Upgrade(t.Context(), r, r.config()); err != nil {
		t.Error(err)
	}
	if calls := r.calls("systemctl restart"); len(calls) > 0 {
		t.Errorf("the newest engine was restarted: %q", calls)
	}
}

func TestBadInputIsRefusedBeforeAnythingRuns(t *testing.T) {
	for name, change := range map[string]func(*provision.Config){
		"label with a newline":  func(c *provision.Config) { c.Engine.Labels = []string{"a=b\nc"} },
		"environment":           func(c *provision.Config) { c.Engine.Env = []string{"A B=c"} },
		"option":                func(c *provision.Config) { c.Engine.Flags = []string{"--icc"} },
		"option as a word more": func(c *provision.Config) { c.Engine.Flags = []string{"icc -H tcp://"} },
		"version":               func(c *provision.Config) { c.Engine.Version = "1;reboot" },
		"url":                   func(c *provision.Config) { c.Engine.InstallURL = "file:///etc/passwd" },
		"host name":             func(c *provision.Config) { c.Hostname = "$(reboot)" },
		"no key":                func(c *provision.Config) { c.Key = nil },
	} {
		t.Run(name, func(t *testing.T) {
			r := &room{t: t}
			c := r.config()
			change(&c)
			if _, err := provision.Provision(t.Context(), r, c); err == nil {
				t.Error("no error")
			}
			if len(r.ran) > 0 {
				t.Errorf("it ran %q", r.ran)
			}
		})
	}
}
