//go:build e2e

package e2e

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// composer is one version of Compose.
type composer struct {
	name  string
	sep   string // between the parts of a container's name
	files []string
	run   func(dir string, args ...string) *exec.Cmd
}

// composers are Debian's, and at night the newest, too.
func (w *world) composers(t *testing.T) []*composer {
	t.Helper()
	list := []*composer{{name: "1.29", sep: "_", files: []string{"compose.yaml"}, run: w.compose}}
	if v5 := program("BERTH_COMPOSE5"); v5 != "" {
		w.plugins(t)
		list = append(list, &composer{name: "5", sep: "-", files: []string{"compose.yaml", "config.yaml"}, run: func(dir string, args ...string) *exec.Cmd {
			cmd := with(w.command(v5, args...), "DOCKER_HOST=unix://"+w.socket)
			if program("BERTH_BUILDX") == "" {
				cmd = with(cmd, "DOCKER_BUILDKIT=0")
			}
			cmd.Dir = dir
			return cmd
		}})
	}
	return list
}

// in is a command for a project's folder, with the files that this version reads.
func (c *composer) in(dir string, words ...any) *exec.Cmd {
	var flags []string
	for _, f := range c.files {
		flags = append(flags, "-f", f)
	}
	return c.run(dir, append(flags, args(words...)...)...)
}

// plugins gives the docker command buildx for the time of a test.
func (w *world) plugins(t *testing.T) {
	t.Helper()
	buildx := program("BERTH_BUILDX")
	if buildx == "" {
		return
	}
	dir := filepath.Join(w.dir, ".docker", "cli-plugins")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(buildx, filepath.Join(dir, "docker-buildx")); err != nil && !os.IsExist(err) {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
}

// stack has what Compose can ask for on one host.
const stack = `services:
  db:
    image: busybox
    command: sh -c "touch /ready; exec sleep 1000"
    healthcheck: {test: ["CMD", "test", "-e", "/ready"], interval: 1s, retries: 9}
    networks: [back]
    volumes: ["data:/data"]
    stop_grace_period: 0s
  app:
    build: ./app
    image: stack-app:1
    depends_on: {db: {condition: service_healthy}}
    networks: [front, back]
    ports: ["8099"]
    init: true
    stop_grace_period: 0s
networks: {front: {}, back: {}}
volumes: {data: {}}
`

const (
	stackConfig = "services: {db: {configs: [{source: conf, target: /etc/conf}]}}\nconfigs: {conf: {file: ./conf}}\n"
	stackApp    = "FROM busybox\nRUN echo built >/built\nCMD [\"sh\", \"-c\", \"while :; do echo tick; sleep 1; done\"]\n"
)

// stackDir is a folder with the project; its name is that of the project.
func (w *world) stackDir(t *testing.T, name string) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), name)
	if err := os.MkdirAll(filepath.Join(dir, "app"), 0o755); err != nil {
		t.Fatal(err)
	}
	for file, text := range map[string]string{"compose.yaml": stack, "config.yaml": stackConfig, "conf": "configured\n", "app/Dockerfile": stackApp} {
		if err := os.WriteFile(filepath.Join(dir, file), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	w.forget(t, "stack-app:1")
	return dir
}

// ids are the containers of all, as they are now.
func (w *world) ids(t *testing.T) string {
	t.Helper()
	return strings.Join(lines(must(t, w.docker("ps", "-aq", "--no-trunc"))), " ")
}

func composeUp(t *testing.T, w *world) {
	for _, c := range w.composers(t) {
		dir := w.stackDir(t, "up")
		must(t, c.in(dir, "up -d"))
		nodes := w.nodes(t, "label=com.docker.compose.project=up")
		if len(nodes) != 1 || nodes[slices.Collect(maps.Keys(nodes))[0]] != 2 {
			t.Errorf("Compose %s: the project is on %v", c.name, nodes)
		}
		same(t, "healthy", must(t, w.docker("ps", "--filter", "health=healthy", "--format", "{{.Names}}")), "up"+c.sep+"db"+c.sep+"1")
		same(t, "networks of app", must(t, w.docker("inspect", "--format", "{{len .NetworkSettings.Networks}}", "up"+c.sep+"app"+c.sep+"1")), 2)
		same(t, "what was built", must(t, c.in(dir, "exec -T app cat /built")), "built")
		same(t, "a service by its name", do(t, c.in(dir, "exec -T app ping -c 1 db")).code, 0)
		if len(c.files) > 1 {
			same(t, "its config", must(t, c.in(dir, "exec -T db cat /etc/conf")), "configured")
		}
		must(t, c.in(dir, "down -v"))
	}
}

func composeUpAgain(t *testing.T, w *world) {
	for _, c := range w.composers(t) {
		dir := w.stackDir(t, "again")
		must(t, c.in(dir, "up -d"))
		before := w.ids(t)
		must(t, c.in(dir, "up -d"))
		same(t, "containers after up again, Compose "+c.name, w.ids(t), before)
		if err := w.serve.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = w.stopServeHard() // it says that it was killed
		if err := w.startServe(); err != nil {
			t.Fatal(err)
		}
		must(t, c.in(dir, "up -d"))
		same(t, "containers after a restart of the manager, Compose "+c.name, w.ids(t), before)
		must(t, c.in(dir, "down -v"))
	}
	if program("BERTH_ENGINE29") == "" {
		return
	}
	// Engines that store images differently have different IDs for one image.
	m := mixed(t)
	for _, c := range m.composers(t) {
		for _, node := range []string{"new", "old"} {
			dir := m.stackDir(t, "again")
			text := strings.Replace(stack, "    init: true\n", "    init: true\n    environment: ['constraint:node=="+node+"']\n", 1)
			text = strings.Replace(text, "    networks: [back]\n", "    networks: [back]\n    environment: ['constraint:node=="+node+"']\n", 1)
			if err := os.WriteFile(filepath.Join(dir, "compose.yaml"), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			must(t, c.in(dir, "up -d"))
			before := m.ids(t)
			for range 2 {
				must(t, c.in(dir, "up -d"))
				same(t, "containers on "+node+" of a mixed fleet after up again, Compose "+c.name, m.ids(t), before)
			}
			must(t, c.in(dir, "down -v --rmi local"))
		}
	}
}

// small is a project that is made fast.
const small = `services:
  one:
    image: busybox
    command: sleep 1000
    volumes: ["data:/data"]
    networks: [net]
    stop_grace_period: 0s
networks: {net: {}}
volumes: {data: {}}
`

func composeConstraint(t *testing.T, w *world) {
	for _, c := range w.composers(t) {
		c.files = c.files[:1]
		for zone, allowed := range map[string]string{"a": "host1", "b": "host2 host3"} {
			text := strings.Replace(small, "    networks:", "    labels: {com.docker.swarm.constraints: '[\"zone=="+zone+"\"]'}\n    networks:", 1)
			dir := filepath.Join(write(t, "compose.yaml", text))
			must(t, c.in(dir, "-p zoned up -d"))
			node := w.nodeOf(t, "zoned"+c.sep+"one"+c.sep+"1")
			contains(t, "nodes of zone "+zone, allowed, node)
			same(t, "homes", w.networkNode(t, "zoned_net")+" "+w.volumeNode(t, "zoned_data"), node+" "+node)
			must(t, c.in(dir, "-p zoned down -v"))
		}
	}
}

func composeCommands(t *testing.T, w *world) {
	p := tapped(t)
	ref := p.addr + "/composed:1"
	must(t, w.docker("tag", "busybox", ref))
	w.forget(t, ref)
	must(t, w.docker("push", ref))
	for _, c := range w.composers(t) {
		dir := w.stackDir(t, "all")
		file := filepath.Join(dir, "compose.yaml")
		if err := os.WriteFile(file, []byte(strings.Replace(stack, "image: busybox", "image: "+ref, 1)), 0o600); err != nil {
			t.Fatal(err)
		}
		must(t, c.in(dir, "up -d"))
		for _, what := range [][2]string{
			{"ps", "all" + c.sep + "app" + c.sep + "1"},
			{"ps -q app", ""},
			{"logs --tail 1 app", "tick"},
			{"exec -T app echo in", "in"},
			{"run --rm -T db echo r", "r"},
			{"top", "sleep 1000"},
			{"images", "composed"},
			{"port app 8099", "0.0.0.0:"},
			{"pull db", ""},
			{"restart -t 0 app", ""},
			{"pause app", ""},
			{"unpause app", ""},
			{"config", "8099"},
		} {
			words, want := what[0], what[1]
			r := do(t, c.in(dir, words))
			if r.code != 0 || !strings.Contains(r.out+r.err, want) {
				t.Errorf("Compose %s %s: exit %d, want %q in\n%s%s", c.name, words, r.code, want, r.out, r.err)
			}
		}
		if c.name == "5" {
			must(t, c.in(dir, "cp conf app:/copied"))
			must(t, c.in(dir, "cp app:/copied back"))
			b, err := os.ReadFile(filepath.Join(dir, "back"))
			if err != nil || string(b) != "configured\n" {
				t.Errorf("compose cp: %q, %v", b, err)
			}
		}
		events := c.in(dir, "events --json")
		seen := outputTo(t, events)
		background(t, events)
		eventually(t, 20*time.Second, "compose events", func() bool {
			must(t, w.docker("kill", "-s", "CONT", "all"+c.sep+"app"+c.sep+"1"))
			return strings.Contains(seen.String(), `"action"`)
		})
		must(t, c.in(dir, "kill app"))
		must(t, c.in(dir, "start"))
		must(t, c.in(dir, "stop -t 0"))
		must(t, c.in(dir, "rm -fv"))
		must(t, c.in(dir, "down -v"))
	}
}

func composeDown(t *testing.T, w *world) {
	for _, c := range w.composers(t) {
		c.files = c.files[:1]
		dir := write(t, "compose.yaml", small)
		must(t, c.in(dir, "-p gone up -d"))
		must(t, c.in(dir, "-p gone down -v"))
		for _, what := range []string{"ps -aq", "volume ls -q", "network ls -q --filter type=custom"} {
			same(t, "docker "+what+" after down -v", must(t, w.docker(args(what)...)), "")
			for _, node := range []string{"host1", "host2", "host3"} {
				same(t, "the same on "+node, must(t, w.direct(t, node, args(what)...)), "")
			}
		}
	}
}

func manyProjects(t *testing.T, w *world) {
	list := w.composers(t)
	c, n := list[len(list)-1], rounds(6, 30)
	c.files = c.files[:1]
	dir := write(t, "compose.yaml", small)
	each := func(words string) error {
		return all(n, func(i int) error {
			out, err := c.in(dir, "-p", fmt.Sprintf("many%d", i), words).CombinedOutput()
			if err != nil {
				return fmt.Errorf("project %d %s: %w\n%s", i, words, err, out)
			}
			return nil
		})
	}
	if err := each("up -d"); err != nil {
		t.Fatal(err)
	}
	nodes := map[string]int{}
	for i := range n {
		node := w.nodeOf(t, fmt.Sprintf("many%d%sone%s1", i, c.sep, c.sep))
		same(t, "homes", w.networkNode(t, fmt.Sprintf("many%d_net", i))+" "+w.volumeNode(t, fmt.Sprintf("many%d_data", i)), node+" "+node)
		nodes[node]++
	}
	for _, node := range []string{"host1", "host2", "host3"} {
		if nodes[node] < n/3-1 || nodes[node] > n/3+1 {
			t.Errorf("projects by node: %v, want about %d on each", nodes, n/3)
			break
		}
	}
	if err := each("down -v"); err != nil {
		t.Fatal(err)
	}
}

func severalNetworks(t *testing.T, w *world) {
	for _, name := range []string{"neta", "netb"} {
		must(t, w.docker("network", "create", "--label", "com.docker.compose.project=several", name))
	}
	// One network in the old way and one in that of API 1.44, which these engines do not speak.
	body := `{"Image":"busybox","Cmd":["sleep","1000"],"Labels":{"com.docker.compose.project":"several"},"HostConfig":{"NetworkMode":"neta"},
		"NetworkingConfig":{"EndpointsConfig":{"neta":{"Aliases":["first"]},"netb":{"Aliases":["second"]}}}}`
	a := w.api(t, "POST", "/v1.44/containers/create?name=several", body)
	same(t, "status", a.status, 201)
	var seen struct {
		NetworkSettings struct {
			Networks map[string]struct{ Aliases []string }
		}
	}
	if err := json.Unmarshal([]byte(must(t, w.docker("inspect", "--format", "{{json .}}", "several"))), &seen); err != nil {
		t.Fatal(err)
	}
	for name, alias := range map[string]string{"neta": "first", "netb": "second"} {
		if !slices.Contains(seen.NetworkSettings.Networks[name].Aliases, alias) {
			t.Errorf("before the start the networks are %+v", seen.NetworkSettings.Networks)
		}
	}
	must(t, w.docker("start", "several"))
	must(t, w.docker("run", "--rm", "--network", "netb", "busybox", "ping", "-c", "1", "second"))
}
