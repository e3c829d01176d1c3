//go:build e2e

package e2e

import (
	"crypto/tls"
	"encoding/json"
	"io"
	"io/fs"
	"log"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/registry"
)

// M1: the version.
func TestVersion(t *testing.T) {
	w := fleet(t)
	for _, args := range [][]string{{"version"}, {"--version"}} {
		if got := must(t, w.command("berth", args...)); !regexp.MustCompile(`^berth version \S+, build \S+$`).MatchString(got) {
			t.Errorf("berth %s = %q", args[0], got)
		}
	}
	engine, _, _ := strings.Cut(must(t, w.command("berth", "version", "host1")), "+")
	if all := must(t, w.docker("version", "--format", "{{.Server.Version}}")); !strings.HasPrefix(all, engine+"+berth.") {
		t.Errorf("the engine of host1 is %s, the fleet's version is %s, want the former with berth's behind it", engine, all)
	}
}

// M3: everything of a machine is in the store, and its secrets are nobody else's.
func TestStoreModes(t *testing.T) {
	w := fleet(t)
	store := filepath.Join(w.dir, ".docker", "machine")
	for _, name := range []string{"certs/ca.pem", "certs/ca-key.pem", "certs/key.pem", "machines/host1/config.json", "machines/host1/key.pem", "machines/host1/server-key.pem"} {
		if _, err := os.Stat(filepath.Join(store, name)); err != nil {
			t.Error(err)
		}
	}
	err := filepath.WalkDir(store, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() && strings.Count(strings.TrimPrefix(path, store), "/") > 2 {
			return fs.SkipDir // engines' data is behind the machine's own door
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		secret := d.IsDir() && path != store || strings.HasSuffix(path, "key.pem") || d.Name() == "config.json"
		if secret && info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s has mode %v", path, info.Mode())
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	socket, err := os.Stat(w.socket)
	if err != nil {
		t.Fatal(err)
	}
	same(t, "mode of the endpoint's socket", socket.Mode().Perm(), fs.FileMode(0o600))
}

// M4, M5, M12: the list, one machine's facts, the active one.
func TestListAndInspect(t *testing.T) {
	w := fleet(t)
	ip := must(t, w.command("berth", "inspect", "--format", "{{.Driver.IPAddress}}", "host1"))
	same(t, "berth ip", must(t, w.command("berth", "ip", "host1")), ip)
	same(t, "berth url", must(t, w.command("berth", "url", "host1")), "tcp://"+ip+":2376")
	same(t, "berth status", must(t, w.command("berth", "status", "host1")), "Running")
	var all map[string]any
	if err := json.Unmarshal([]byte(must(t, w.command("berth", "inspect", "host1"))), &all); err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"ConfigVersion", "Driver", "DriverName", "HostOptions", "Name"} {
		if _, ok := all[key]; !ok {
			t.Errorf("berth inspect lacks %s", key)
		}
	}
	url := "tcp://" + ip + ":2376"
	list := strings.Split(must(t, with(w.command("berth", "ls"), "DOCKER_HOST="+url)), "\n")
	same(t, "header", strings.Fields(list[0]), "[NAME ACTIVE DRIVER STATE URL SWARM DOCKER ERRORS]")
	if len(list) != 4 {
		t.Fatalf("berth ls shows %d lines", len(list))
	}
	for i, name := range []string{"host1", "host2", "host3"} {
		active := "-"
		if name == "host1" {
			active = "*"
		}
		f := strings.Fields(list[i+1])
		same(t, "row", f[:4], []string{name, active, "local", "Running"})
		if len(f) != 6 || !regexp.MustCompile(`^v\d+\.\d+`).MatchString(f[5]) {
			t.Errorf("row %q", list[i+1])
		}
	}
	same(t, "berth ls -q", strings.Fields(must(t, w.command("berth", "ls", "-q"))), "[host1 host2 host3]")
	same(t, "berth ls --filter", must(t, w.command("berth", "ls", "-q", "--filter", "label=size=xxl")), "host3")
	same(t, "berth active", must(t, with(w.command("berth", "active"), "DOCKER_HOST="+url)), "host1")
	contains(t, "berth active without one", fails(t, w.command("berth", "active")), "No active host found")
}

// M10: what each shell evaluates, to the letter.
func TestEnvOfEachShell(t *testing.T) {
	w := fleet(t)
	url := must(t, w.command("berth", "url", "host2"))
	dir := filepath.Join(w.dir, ".docker", "machine", "machines", "host2")
	values := [][2]string{{"DOCKER_TLS_VERIFY", "1"}, {"DOCKER_HOST", url}, {"DOCKER_CERT_PATH", dir}, {"DOCKER_MACHINE_NAME", "host2"}}
	for shell, form := range map[string]struct{ set, unset, comment, hint string }{
		"bash":       {`export K="V"`, `unset K`, "#", "eval $(CMD)"},
		"zsh":        {`export K="V"`, `unset K`, "#", "eval $(CMD)"},
		"fish":       {`set -gx K "V";`, `set -e K;`, "#", "eval (CMD)"},
		"powershell": {`$Env:K = "V"`, `Remove-Item Env:\\K`, "#", "& CMD | Invoke-Expression"},
		"cmd":        {`SET K=V`, `SET K=`, "REM", "\t@FOR /f \"tokens=*\" %i IN ('CMD') DO @%i"},
		"tcsh":       {`setenv K "V";`, `unsetenv K;`, ":", "eval `CMD`"},
		"emacs":      {`(setenv "K" "V")`, `(setenv "K" nil)`, ";;", `(with-temp-buffer (shell-command "CMD" (current-buffer)) (eval-buffer))`},
	} {
		t.Run(shell, func(t *testing.T) {
			var set, unset []string
			for _, kv := range values {
				set = append(set, strings.NewReplacer("K", kv[0], "V", kv[1]).Replace(form.set))
				unset = append(unset, strings.ReplaceAll(form.unset, "K", kv[0]))
			}
			hint := func(cmd string) []string {
				return []string{form.comment + " Run this command to configure your shell: ", form.comment + " " + strings.ReplaceAll(form.hint, "CMD", cmd)}
			}
			cmd := binary + " env --shell " + shell + " host2"
			if want, got := strings.Join(append(set, hint(cmd)...), "\n"), must(t, w.command("berth", "env", "--shell", shell, "host2")); got != want {
				t.Errorf("got\n%s\nwant\n%s", got, want)
			}
			cmd = binary + " env --shell " + shell + " -u"
			if want, got := strings.Join(append(unset, hint(cmd)...), "\n"), must(t, w.command("berth", "env", "--shell", shell, "-u")); got != want {
				t.Errorf("got\n%s\nwant\n%s", got, want)
			}
		})
	}
	ip := must(t, w.command("berth", "ip", "host2"))
	contains(t, "--no-proxy", must(t, w.command("berth", "env", "--no-proxy", "host2")), `export NO_PROXY="`+ip+`"`)
	contains(t, "--swarm", fails(t, w.command("berth", "env", "--swarm", "host2")), `"host2" is not a swarm master`)
}

// M9, M11, M13 and the rest of M4, on machines that no endpoint stands before.
func TestMachinesByThemselves(t *testing.T) {
	w := ownFleet(t, "machines", "", nil)
	names := []string{"m1", "m2", "m3"}
	create := []string{"create", "-d", "local", "--local-subnet", "10.213.79.0/24", "--engine-insecure-registry", "10.213.79.0/24"}
	steps := must(t, w.command("berth", append(create, names...)...))
	w.machine = names
	contains(t, "berth create", steps, "m1", "m2", "m3", "Docker is up and running", "berth env NAME")

	t.Run("M11: eval, then docker and docker-compose over mutual TLS", func(t *testing.T) { evalOne(t, w) })
	t.Run("M13: each machine by itself", func(t *testing.T) { pullOne(t, w) })
	t.Run("M4: a hung machine delays nobody", func(t *testing.T) { hungOne(t, w) })
	t.Run("M9: several names in parallel", func(t *testing.T) { powerAll(t, w) })
}

func evalOne(t *testing.T, w *world) {
	w.importOn(t, "m1", "busybox")
	got := must(t, w.sh(`eval "$(berth env m1)"; docker info --format '{{.Name}}'; echo $DOCKER_HOST; berth active`))
	same(t, "docker info on m1", strings.Fields(got), []string{"m1", must(t, w.command("berth", "url", "m1")), "m1"})
	file := write(t, "docker-compose.yml", "version: '3'\nservices:\n  one:\n    image: busybox\n    command: sleep 1000\n")
	must(t, w.sh(`eval "$(berth env m1)"; cd `+file+`; docker-compose -p solo up -d; docker-compose -p solo ps`))
	ps := must(t, w.sh(`eval "$(berth env m1)"; docker ps --format '{{.Names}}'; eval "$(berth env m2)"; docker ps -a --format '{{.Names}}'`))
	same(t, "containers on m1 and m2", ps, "solo_one_1")
	must(t, w.sh(`eval "$(berth env m1)"; cd `+file+`; docker-compose -p solo down -t 0`))
	// Mutual: without a certificate of the store the engine says nothing.
	stranger := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}} //nolint:gosec // who asks does not matter here
	if res, err := stranger.Get("https://" + strings.TrimPrefix(must(t, w.command("berth", "url", "m1")), "tcp://") + "/version"); err == nil {
		t.Errorf("the engine answers one without a certificate: %s", res.Status)
		res.Body.Close()
	}
	// Unset, and the client is back where it was.
	same(t, "after unset", must(t, w.sh(`eval "$(berth env m1)"; eval "$(berth env -u)"; echo "${DOCKER_HOST-none}${DOCKER_TLS_VERIFY-}"`)), "none")
}

// importOn puts an image on one machine.
func (w *world) importOn(t *testing.T, name, ref string) {
	t.Helper()
	must(t, w.sh(`mkdir -p img/bin; cp "$(command -v busybox)" img/bin/busybox; for c in sh sleep cat echo; do ln -sf busybox img/bin/$c; done
eval "$(berth env `+name+`)"; tar -C img -c . | docker import -c 'CMD ["sh"]' - `+ref))
}

func pullOne(t *testing.T, w *world) {
	addr := serveHTTP(t, "10.213.79.1", registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	ref := addr + "/only:1"
	w.importOn(t, "m1", ref)
	must(t, w.sh(`eval "$(berth env m1)"; docker push `+ref))
	must(t, w.sh(`eval "$(berth env m2)"; docker pull `+ref))
	for name, want := range map[string]string{"m1": ref, "m2": ref, "m3": ""} {
		same(t, "image on "+name, must(t, w.sh(`eval "$(berth env `+name+`)"; docker images --format '{{.Repository}}:{{.Tag}}' `+ref)), want)
	}
}

func hungOne(t *testing.T, w *world) {
	pid := w.dockerd(t, "m3")
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := syscall.Kill(pid, syscall.SIGCONT); err != nil {
			t.Error(err)
		}
	}()
	r := do(t, w.command("berth", "ls", "-t", "1"))
	rows := strings.Split(strings.TrimSpace(r.out), "\n")
	if r.code != 0 || len(rows) != 4 || r.took > 3*time.Second {
		t.Fatalf("berth ls -t 1: exit %d after %s\n%s%s", r.code, r.took, r.out, r.err)
	}
	contains(t, "m1's row", rows[1], "m1", "Running", "v")
	contains(t, "m3's row", rows[3], "m3", "Timeout")
}

func powerAll(t *testing.T, w *world) {
	states := func() []string {
		return strings.Fields(must(t, w.command("berth", "ls", "--format", "{{.Name}}={{.State}}")))
	}
	must(t, w.command("berth", "stop", "m1", "m2"))
	same(t, "after stop", states(), "[m1=Stopped m2=Stopped m3=Running]")
	must(t, w.command("berth", "kill", "m3"))
	same(t, "after kill", states(), "[m1=Stopped m2=Stopped m3=Stopped]")
	contains(t, "env of a stopped machine", fails(t, w.command("berth", "env", "m1")), "not running")
	must(t, w.command("berth", "start", "m1", "m2", "m3"))
	same(t, "after start", states(), "[m1=Running m2=Running m3=Running]")
	must(t, w.command("berth", "restart", "m2", "m3"))
	same(t, "after restart", states(), "[m1=Running m2=Running m3=Running]")
	same(t, "m1's image is still there", must(t, w.sh(`eval "$(berth env m1)"; docker images -q busybox | wc -l`)), "1")
	contains(t, "rm that is not confirmed", must(t, feed(w.command("berth", "rm", "m1", "m2"), strings.NewReader("n\n"))), "m1, m2", "Are you sure?")
	same(t, "after no", states(), "[m1=Running m2=Running m3=Running]")
	must(t, feed(w.command("berth", "rm", "m1"), strings.NewReader("y\n")))
	must(t, w.command("berth", "rm", "-y", "m2", "m3"))
	w.machine = nil
	same(t, "after rm", must(t, w.command("berth", "ls", "-q")), "")
	contains(t, "one that is gone", fails(t, w.command("berth", "ip", "m1")), `"m1" does not exist`)
}
