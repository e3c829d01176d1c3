package provision_test

import (
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"berth/internal/provision"
)

// withServices is the room's configuration with an agent and a manager. The room's init systems run them: as folders in /proc.
func (r *room) withServices(openRC bool) provision.Config {
	r.t.Helper()
	program := filepath.Join(r.t.TempDir(), "berth")
	r.must(os.WriteFile(program, []byte("#!/bin/sh\n[ \"$1\" = version ] && echo berth version 1\n"), 0o700))
	r.fake("sleep", "")
	run := `  pid=$(printf %d "'${name#berth-}"); rm -rf /proc/$pid
  if [ ! -e /broken ]; then
    mkdir /proc/$pid; ln -s /usr/local/bin/berth /proc/$pid/exe
    (set -a; . $env; env) | tr '\n' '\000' >/proc/$pid/environ
  fi`
	if openRC {
		r.openRC()
		r.fake("rc-service", `case "$1" in berth-*)
  [ "$2" = restart ] || exit 2
  name=$1 env=/etc/conf.d/$1
`+run+`
  exit 0 ;; esac
`+strings.SplitN(r.read("fake/rc-service"), "\n", 3)[2])
		r.fake("rc-update", `case "$1" in show) cat /runlevel ;; add) echo "    $2 | default" >>/runlevel ;; esac`)
	} else {
		r.fake("systemctl", `for last; do :; done
case "$last" in berth-*)
  name=${last%.service} env=/etc/berth/$name.env
  case "$*" in
  show*) echo no ;;
  enable*) touch /enabled.$name ;;
  is-enabled*) [ -e /enabled.$name ] ;;
  restart*)
`+run+` ;;
  *) exit 2 ;;
  esac
  exit ;;
esac
`+strings.SplitN(r.read("fake/systemctl"), "\n", 3)[2])
	}
	c := r.config()
	c.Program = provision.Program{Path: program, OS: runtime.GOOS, Arch: runtime.GOARCH}
	c.Services = []provision.Service{
		{Name: "berth-agent", Description: "the agent", Args: []string{"join", "--advertise", "10.0.0.1:2376"}, Env: []string{"SWARM_DISCOVERY=token://10.0.0.9/T"}},
		{
			Name: "berth-manager", Description: "the manager", Args: []string{"serve", "--cluster-opt", "a b%$c", "it's"},
			Env: []string{`SWARM_DISCOVERY=consul://jo:a$b"c` + "`d" + `@x/p`}, Port: 3376,
		},
	}
	return c
}

const agentUnit = `# Written by berth; provisioning the machine again rewrites it.
[Unit]
Description=the agent
Wants=network-online.target
After=network-online.target docker.service
StartLimitIntervalSec=0

[Service]
ExecStart=/usr/local/bin/berth join --advertise 10.0.0.1:2376
EnvironmentFile=/etc/berth/berth-agent.env
Restart=always
RestartSec=2
StateDirectory=berth
StateDirectoryMode=0700
LimitNOFILE=1048576
NoNewPrivileges=yes
PrivateTmp=yes
ProtectSystem=full

[Install]
WantedBy=multi-user.target
`

var serviceCalls = []string{
	"systemctl enable berth", "systemctl restart berth", "systemctl daemon-reload", "systemctl restart docker", "rc-update add", "rc-service berth-agent", "rc-service berth-manager",
}

func TestServicesAreUnitsOfSystemd(t *testing.T) {
	r := newRoom(t)
	c := r.withServices(false)
	r.provision(c)
	if diff := cmp.Diff(agentUnit, r.read("etc/systemd/system/berth-agent.service")); diff != "" {
		t.Errorf("the agent's unit (-want +got):\n%s", diff)
	}
	if unit, want := r.read("etc/systemd/system/berth-manager.service"), "\n"+`ExecStart=/usr/local/bin/berth serve --cluster-opt "a b%%$$c" "it's"`+"\n"; !strings.Contains(unit, want) {
		t.Errorf("the manager's unit lacks %q:\n%s", want, unit)
	}
	r.wantMode("etc/berth/berth-manager.env", 0o600)
	r.wantMode("usr/local/bin/berth", 0o755)
	if got := r.environ("m"); !slices.Contains(got, `SWARM_DISCOVERY=consul://jo:a$b"c`+"`d"+`@x/p`) || !slices.Contains(got, "MACHINE_STORAGE_PATH=/var/lib/berth") {
		t.Errorf("the manager's environment = %q", got)
	}
	for _, script := range r.ran {
		if strings.Contains(script, "token://") || strings.Contains(script, "consul://") {
			t.Errorf("a secret stands on a command line: %s", script)
		}
	}
	want := []string{
		"systemctl daemon-reload", "systemctl restart docker.service",
		"systemctl daemon-reload", "systemctl enable berth-agent.service", "systemctl restart berth-agent.service",
		"systemctl daemon-reload", "systemctl enable berth-manager.service", "systemctl restart berth-manager.service",
	}
	if diff := cmp.Diff(want, r.calls(serviceCalls...)); diff != "" {
		t.Errorf("calls (-want +got):\n%s", diff)
	}
}

func (r *room) wantMode(path string, want os.FileMode) {
	r.t.Helper()
	info, err := os.Stat(filepath.Join(r.dir, path))
	r.must(err)
	if info.Mode().Perm() != want {
		r.t.Errorf("%s has mode %v, want %v", path, info.Mode(), want)
	}
}

// environ is what the process has that the fakes run for the service whose name begins so.
func (r *room) environ(initial string) []string {
	pid := map[string]string{"a": "97", "m": "109"}[initial] // as the fakes number them
	return strings.Split(r.read("proc/"+pid+"/environ"), "\x00")
}

func TestServicesAreStartedAgainOnlyForAReason(t *testing.T) {
	for name, openRC := range map[string]bool{"systemd": false, "openrc": true} {
		t.Run(name, func(t *testing.T) {
			r := newRoom(t)
			c := r.withServices(openRC)
			r.provision(c)
			before := r.sum()
			r.forget()
			r.provision(c)
			if calls := r.calls(serviceCalls...); len(calls) > 0 || r.sum() != before {
				t.Errorf("the second time called %q, or changed files", calls)
			}
			again := func(service string) string { return "systemctl restart " + service + ".service" }
			if openRC {
				again = func(service string) string { return "rc-service " + service + " restart" }
			}
			for what, change := range map[string]struct {
				change func()
				wants  []string
			}{
				"other arguments":   {func() { c.Services[0].Args = append(c.Services[0].Args, "--ttl=9s") }, []string{again("berth-agent")}},
				"other secrets":     {func() { c.Services[1].Env = []string{"SWARM_DISCOVERY=token://U"} }, []string{again("berth-manager")}},
				"another program":   {func() { r.must(os.WriteFile(c.Program.Path, []byte("#!/bin/sh\n"), 0o700)) }, []string{again("berth-agent"), again("berth-manager")}},
				"another authority": {func() { c.CA = []byte("new authority\n") }, []string{again("berth-agent"), again("berth-manager")}},
				"one that ended":    {func() { r.must(os.RemoveAll(filepath.Join(r.dir, "proc/97"))) }, []string{again("berth-agent")}},
				"a start that was cut off": {func() {
					c.Services[0].Args = append(c.Services[0].Args, "--delay=1s")
					r.fake("chmod", `[ "$1" != 644 ] && [ "$1" != 755 ] || exit 9; busybox chmod "$@"`)
					if _, err := provision.Provision(t.Context(), r, c); err == nil {
						t.Error("it was not cut off")
					}
					r.must(os.Remove(filepath.Join(r.dir, "fake/chmod")))
				}, []string{again("berth-agent")}},
			} {
				r.forget()
				change.change()
				r.provision(c)
				if diff := cmp.Diff(change.wants, r.calls("systemctl restart berth", "rc-service berth-agent", "rc-service berth-manager")); diff != "" {
					t.Errorf("%s: calls (-want +got):\n%s", what, diff)
				}
			}
		})
	}
}

func TestServicesOfOpenRC(t *testing.T) {
	r := newRoom(t)
	c := r.withServices(true)
	r.provision(c)
	r.sh(`command= command_args=; . /etc/init.d/berth-manager
[ "$supervisor" = supervise-daemon ] && [ "$command" = /usr/local/bin/berth ] || exit 1
eval "set -- $command_args"; [ "$#" = 4 ] && [ "$3" = 'a b%$c' ] && [ "$4" = "it's" ]`)
	r.wantMode("etc/conf.d/berth-manager", 0o600)
	r.wantMode("etc/init.d/berth-manager", 0o755)
	if got := r.environ("m"); !slices.Contains(got, `SWARM_DISCOVERY=consul://jo:a$b"c`+"`d"+`@x/p`) {
		t.Errorf("the manager's environment = %q", got)
	}
	if got, want := r.read("runlevel"), "    docker | default\n    berth-agent | default\n    berth-manager | default\n"; got != want {
		t.Errorf("started at boot: %q, want %q", got, want)
	}
}

func TestServicesThatCannotBe(t *testing.T) {
	for name, tt := range map[string]struct {
		prepare func(*room, *provision.Config)
		step    string
		parts   []string
	}{
		"another architecture": {func(_ *room, c *provision.Config) { c.Program.Arch = "s390x" }, "install berth",
			[]string{"this berth is for linux/s390x and the host is linux/" + runtime.GOARCH, "as /usr/local/bin/berth, and provision again"}},
		"another system": {func(_ *room, c *provision.Config) { c.Program.OS = "darwin" }, "install berth", []string{"this berth is for darwin/"}},
		"a program that does not run there": {func(_ *room, c *provision.Config) {
			if err := os.WriteFile(c.Program.Path, []byte("#!/nowhere/ld-linux.so\n"), 0o700); err != nil {
				panic(err)
			}
		}, "install berth", []string{"/usr/local/bin/berth.", " version: exit status 127", "not found"}},
		"one that ends at once": {func(r *room, _ *provision.Config) {
			r.write("broken", "", 0o644)
			r.fake("journalctl", `echo "level=error address already in use"`)
		}, "start the Swarm's services", []string{"systemctl restart berth-agent.service", "address already in use", "does not go on running"}},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRoom(t)
			c := r.withServices(false)
			tt.prepare(r, &c)
			_, err := provision.Provision(t.Context(), r, c)
			wantStep(t, err, tt.step, tt.parts...)
			if name != "one that ends at once" && r.read("usr/local/bin/berth") != "" {
				t.Error("a program that does not run stands there")
			}
		})
	}
}

// People of other systems, or with other programs, may put theirs there.
func TestAProgramThatIsThereWillDoWhereOursWouldNot(t *testing.T) {
	r := newRoom(t)
	c := r.withServices(false)
	c.Program.OS = "windows"
	const theirs = "#!/bin/sh\necho theirs\n"
	r.write("usr/local/bin/berth", theirs, 0o755)
	r.provision(c)
	if got := r.read("usr/local/bin/berth"); got != theirs {
		t.Errorf("it was replaced by %q", got)
	}
	if calls := r.calls("systemctl restart berth"); len(calls) != 2 {
		t.Errorf("calls = %q, want two starts", calls)
	}
}

func TestTheManagersPortIsOpened(t *testing.T) {
	r := newRoom(t)
	r.fake("ufw", `case "$1" in status) echo "Status: active" ;; show) cat /rules 2>/dev/null ;; allow) echo "ufw $*" >>/rules ;; esac`)
	c := r.withServices(false)
	r.provision(c)
	if got, want := r.read("rules"), "ufw allow 2376/tcp\nufw allow 3376/tcp\n"; got != want {
		t.Errorf("rules = %q, want %q", got, want)
	}
}

func TestBadServicesAreRefusedBeforeAnythingRuns(t *testing.T) {
	for name, change := range map[string]func(*provision.Service){
		"name":        func(s *provision.Service) { s.Name = "../x" },
		"argument":    func(s *provision.Service) { s.Args = []string{"a\nExecStart=b"} },
		"environment": func(s *provision.Service) { s.Env = []string{"SECRET"} },
		"secret":      func(s *provision.Service) { s.Env = []string{"S=very secret\nA=b"} },
	} {
		t.Run(name, func(t *testing.T) {
			r := &room{t: t}
			c := r.config()
			s := provision.Service{Name: "berth-agent"}
			change(&s)
			c.Services = []provision.Service{s}
			_, err := provision.Provision(t.Context(), r, c)
			if err == nil || len(r.ran) > 0 {
				t.Errorf("error %v, ran %q", err, r.ran)
			}
			if err != nil && strings.Contains(err.Error(), "very secret") {
				t.Errorf("the error tells a secret: %v", err)
			}
		})
	}
}
