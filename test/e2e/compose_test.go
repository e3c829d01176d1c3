//go:build e2e

package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// S8: the file of the old days, of Compose's first version, as it stands.
const flock = `bird:
  image: bird
  command: bird
  restart: always
`

func TestFlock(t *testing.T) {
	w := fleet(t)
	song := "FROM busybox\nRUN printf '#!/bin/sh\\necho tweet\\nexec sleep 1000\\n' >/bin/bird && chmod 755 /bin/bird\n"
	must(t, with(feed(w.docker("build", "-t", "bird", "-"), strings.NewReader(song)), "DOCKER_BUILDKIT=0"))
	t.Cleanup(func() { must(t, w.docker("rmi", "-f", "bird")) })
	dir := write(t, "flock.yml", flock)
	must(t, w.compose(dir, "-p", "flock", "-f", "flock.yml", "scale", "bird=10"))
	nodes := w.nodes(t, "label=com.docker.compose.project=flock")
	for _, node := range []string{"host1", "host2", "host3"} {
		if n := nodes[node]; n < 3 || n > 4 {
			t.Errorf("ten birds by node: %v, want 3 or 4 on each", nodes)
			break
		}
	}
	same(t, "birds in docker ps", len(strings.Fields(must(t, w.docker("ps", "-q", "--filter", "status=running", "--filter", "ancestor=bird")))), 10)
	same(t, "birds in compose ps", len(strings.Fields(must(t, w.compose(dir, "-p", "flock", "-f", "flock.yml", "ps", "-q")))), 10)
	same(t, "songs", strings.Count(must(t, w.compose(dir, "-p", "flock", "-f", "flock.yml", "logs", "--no-color")), "tweet"), 10)
	must(t, w.compose(dir, "-p", "flock", "-f", "flock.yml", "scale", "-t", "0", "bird=4"))
	same(t, "birds after scaling down", len(strings.Fields(must(t, w.docker("ps", "-aq")))), 4)
	must(t, w.compose(dir, "-p", "flock", "-f", "flock.yml", "kill"))
	same(t, "birds that sing", must(t, w.docker("ps", "-q")), "")
	must(t, w.compose(dir, "-p", "flock", "-f", "flock.yml", "rm", "-vf"))
	same(t, "birds after rm", must(t, w.docker("ps", "-aq")), "")
}

const project = `version: '3.7'
services:
  web:
    image: web:1
    command: httpd -f -p 80 -h /site
    volumes: ['site:/site']
    networks: [net]
    depends_on: [writer]
  writer:
    image: busybox
    command: sh -c 'echo hello >/site/index.html; exec sleep 1000'
    volumes: ['site:/site']
    networks: [net]
networks:
  net:
volumes:
  site:
`

// A project with a network and a volume is on one node; up again recreates nothing, whatever the manager went through.
func TestComposeProject(t *testing.T) {
	w := fleet(t)
	dir := write(t, "docker-compose.yml", project)
	ids := func() string { return strings.Join(lines(must(t, w.docker("ps", "-aq", "--no-trunc"))), " ") }
	must(t, w.compose(dir, "-p", "proj", "up", "-d"))
	before := ids()
	same(t, "containers", len(strings.Fields(before)), 2)
	if nodes := w.nodes(t, "label=com.docker.compose.project=proj"); len(nodes) != 1 {
		t.Errorf("the project is on %v", nodes)
	}
	eventually(t, 5*time.Second, "the page is served by the service's name", func() bool {
		return do(t, w.compose(dir, "-p", "proj", "exec", "-T", "writer", "wget", "-qO-", "http://web/index.html")).out == "hello\n"
	})
	r := do(t, w.compose(dir, "-p", "proj", "up", "-d"))
	same(t, "containers after up again", ids(), before)
	contains(t, "up again", r.out+r.err, "proj_web_1 is up-to-date", "proj_writer_1 is up-to-date")
	if err := w.stopServe(); err != nil {
		t.Fatal(err)
	}
	if err := w.startServe(); err != nil {
		t.Fatal(err)
	}
	r = do(t, w.compose(dir, "-p", "proj", "up", "-d"))
	same(t, "containers after a restart of the manager", ids(), before)
	contains(t, "up after the restart", r.out+r.err, "proj_web_1 is up-to-date", "proj_writer_1 is up-to-date")
	same(t, "compose ps", strings.Count(must(t, w.compose(dir, "-p", "proj", "ps")), " Up "), 2)
	contains(t, "compose top", must(t, w.compose(dir, "-p", "proj", "top")), "httpd")
	must(t, w.compose(dir, "-p", "proj", "stop", "-t", "0"))
	must(t, w.compose(dir, "-p", "proj", "start"))
	same(t, "output of compose run", must(t, w.compose(dir, "-p", "proj", "run", "--rm", "-T", "writer", "cat", "/site/index.html")), "hello")
	must(t, w.compose(dir, "-p", "proj", "down", "-v", "-t", "0"))
	for _, what := range []string{"ps -aq", "volume ls -q", "network ls -q --filter type=custom"} {
		same(t, "docker "+what+" after down -v", must(t, w.docker(args(what)...)), "")
	}
}

// A service whose constraint leads elsewhere takes its network and volume along, since nothing has used them yet.
func TestComposeConstraint(t *testing.T) {
	w := fleet(t)
	for i, node := range []string{"host1", "host2", "host3"} {
		name := fmt.Sprintf("there%d", i)
		dir := write(t, "docker-compose.yml", strings.ReplaceAll(project, "    networks: [net]\n    depends", "    networks: [net]\n    environment: ['constraint:node=="+node+"']\n    depends"))
		if err := os.Rename(filepath.Join(dir, "docker-compose.yml"), filepath.Join(dir, "c.yml")); err != nil {
			t.Fatal(err)
		}
		must(t, w.sh("sed -i 's/    depends_on: .*//; s/^  writer:/  writer:\\n    depends_on: [web]/' "+filepath.Join(dir, "c.yml")))
		must(t, w.compose(dir, "-f", "c.yml", "-p", name, "up", "-d"))
		if got := w.nodes(t, "label=com.docker.compose.project="+name); got[node] != 2 {
			t.Errorf("the project that belongs on %s is on %v", node, got)
		}
		same(t, "node of the volume", must(t, w.docker("volume", "ls", "--filter", "name="+name, "--format", `{{.Label "berth.node"}}`)), node)
		must(t, w.compose(dir, "-f", "c.yml", "-p", name, "down", "-v", "-t", "0"))
	}
}
