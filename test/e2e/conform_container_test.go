//go:build e2e

package e2e

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

func nameTakenOnce(t *testing.T, w *world) {
	id := must(t, w.docker(args("create --name twice", on("host1"), "busybox")...))
	for _, node := range []string{"host1", "host2"} {
		contains(t, "the second on "+node, fails(t, w.docker(args("create --name twice", on(node), "busybox")...)),
			`Conflict. The container name "/twice" is already in use by container "`+id+`". You have to remove (or rename) that container to be able to reuse that name.`)
	}
	var made, taken atomic.Int32
	c := w.http(t)
	err := all(20, func(int) error {
		res, err := c.Post("http://berth/v1.41/containers/create?name=many", "application/json", strings.NewReader(`{"Image":"busybox"}`))
		if err != nil {
			return err
		}
		defer res.Body.Close()
		switch res.StatusCode {
		case 201:
			made.Add(1)
		case 409:
			taken.Add(1)
		default:
			return errors.New(res.Status)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	same(t, "made and refused of twenty", fmt.Sprint(made.Load(), taken.Load()), "1 19")
}

func allItsNames(t *testing.T, w *world) {
	byFirst := map[byte]string{} // first character → node of the only ID with it; "" for several on one node
	var id, ambiguous string
	for i := 0; ambiguous == ""; i++ {
		if i == 60 {
			t.Fatal("of 60 IDs on three nodes no two begin alike")
		}
		node := fmt.Sprintf("host%d", 1+i%3)
		id = w.create(t, fmt.Sprintf("c%02d", i), `{"Image":"busybox","Env":["constraint:node==`+node+`"]}`)
		if other, known := byFirst[id[0]]; known && other != node {
			ambiguous = id[:1]
		}
		byFirst[id[0]] = node
	}
	for _, ref := range []string{id, id[:12]} {
		same(t, "by "+ref, must(t, w.docker("inspect", "--format", "{{.Id}}", ref)), id)
	}
	name := strings.TrimPrefix(must(t, w.docker("inspect", "--format", "{{.Name}}", id)), "/")
	for _, ref := range []string{name, w.nodeOf(t, id) + "/" + name, w.nodeOf(t, id) + "/" + id[:12]} {
		same(t, "by "+ref, must(t, w.docker("inspect", "--format", "{{.Id}}", ref)), id)
	}
	a := w.api(t, "GET", "/containers/"+ambiguous+"/json", "")
	same(t, "status of an ID's beginning on two nodes", a.status, 400)
	contains(t, "its text", a.message(t), "multiple IDs found with provided prefix: "+ambiguous)
	unique := w.uniqueFirst(t)
	if unique == "" {
		return // all sixteen beginnings are taken twice, which is next to impossible
	}
	same(t, "by a single character", must(t, w.docker("inspect", "--format", "{{.Id}}", unique[:1])), unique)
}

// uniqueFirst is the ID of a container with a first character that no other ID has.
func (w *world) uniqueFirst(t *testing.T) string {
	t.Helper()
	count, last := map[byte]int{}, map[byte]string{}
	for _, id := range strings.Fields(must(t, w.docker("ps", "-aq", "--no-trunc"))) {
		count[id[0]]++
		last[id[0]] = id
	}
	for first, n := range count {
		if n == 1 {
			return last[first]
		}
	}
	return ""
}

func exitCodes(t *testing.T, w *world) {
	for i := range rounds(5, 34) {
		err := all(3, func(k int) error {
			out, err := w.docker(args("run --rm", on(fmt.Sprintf("host%d", k+1)), "busybox sh -c", []string{"exit 3"})...).CombinedOutput()
			if code, _ := exitCode(err); code != 3 {
				return fmt.Errorf("round %d on host%d: exit %d: %s", i, k+1, code, out)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

func longWait(t *testing.T, w *world) {
	d := lasting(3*time.Second, 10*time.Minute)
	w.create(t, "idles", fmt.Sprintf(`{"Image":"busybox","Cmd":["sh","-c","sleep %d; exit 5"]}`, int(d.Seconds())))
	must(t, w.docker("start", "idles"))
	began := time.Now()
	a := w.api(t, "POST", "/v1.41/containers/idles/wait", "")
	var end struct{ StatusCode int }
	a.into(t, &end)
	same(t, "exit code", end.StatusCode, 5)
	if took := time.Since(began); took < d-2*time.Second {
		t.Errorf("wait ended after %s, the container after %s", took, d)
	}
}

func longStop(t *testing.T, w *world) {
	d := lasting(3*time.Second, 2*time.Minute)
	must(t, w.docker("run", "-d", "--name", "stubborn", "busybox", "sh", "-c", "trap '' TERM; while :; do sleep 1; done"))
	began := time.Now()
	a := w.api(t, "POST", fmt.Sprintf("/v1.41/containers/stubborn/stop?t=%d", int(d.Seconds())), "")
	same(t, "status of stop", a.status, 204)
	if took := time.Since(began); took < d || took > d+8*time.Second {
		t.Errorf("stop took %s, want about %s", took, d)
	}
	same(t, "status of stopping what is stopped", w.api(t, "POST", "/v1.41/containers/stubborn/stop", "").status, 304)
}

func copyBothWays(t *testing.T, w *world) {
	must(t, w.docker("create", "--name", "copied", "busybox"))
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "tree", "deep"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"file": "in a file\n", "tree/deep/leaf": "in a tree\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o640); err != nil {
			t.Fatal(err)
		}
	}
	must(t, w.docker("cp", dir+"/file", "copied:/tmp/file"))
	must(t, w.docker("cp", dir+"/tree", "copied:/tmp/"))
	must(t, w.docker("cp", "copied:/tmp/file", dir+"/back"))
	must(t, w.docker("cp", "copied:/tmp/tree", dir+"/treeback"))
	for name, want := range map[string]string{"back": "in a file\n", "treeback/deep/leaf": "in a tree\n"} {
		got, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		same(t, name, string(got), want)
	}
	must(t, w.at("tar c -C "+dir+" tree | docker cp - copied:/var"))
	same(t, "a tar out", must(t, w.at("docker cp copied:/var/tree/deep - | tar xO deep/leaf")), "in a tree")
	contains(t, "a path that is not there", fails(t, w.docker("cp", "copied:/nothing", dir)), "Could not find the file /nothing in container")
	a := w.api(t, "HEAD", "/v1.41/containers/copied/archive?path=/tmp/file", "")
	same(t, "HEAD", a.status, 200)
	if a.header.Get("X-Docker-Container-Path-Stat") == "" {
		t.Error("HEAD has no X-Docker-Container-Path-Stat")
	}
}

func asTheEngine(t *testing.T, w *world) {
	must(t, w.docker(args("run -d --name alike", on("host2"), "-m 64m busybox sh -c", []string{"echo x >/made; rm /etc/group; exec sleep 1000"})...))
	eventually(t, 5*time.Second, "the change is made", func() bool { return strings.Contains(must(t, w.docker("diff", "alike")), "/etc/group") })
	for _, words := range []string{"diff alike", "top alike -o pid,comm", "inspect --format {{json.HostConfig}} alike", "port alike", "history -q busybox"} {
		r := do(t, w.docker(args(words)...))
		d := do(t, w.direct(t, "host2", args(words)...))
		same(t, "docker "+words, lines(r.out+r.err), lines(d.out+d.err)) // diff's are in no order
	}
	dir := t.TempDir()
	must(t, w.docker("export", "-o", dir+"/fleet.tar", "alike"))
	must(t, w.direct(t, "host2", "export", "-o", dir+"/engine.tar", "alike"))
	same(t, "docker export", tarNames(t, dir+"/fleet.tar"), tarNames(t, dir+"/engine.tar"))
	id := must(t, w.docker("commit", "-m", "why", "alike", "committed:1"))
	t.Cleanup(func() { must(t, w.docker("rmi", "-f", "committed:1")) })
	same(t, "docker commit", must(t, w.direct(t, "host2", "image", "inspect", "--format", "{{.Id}} {{.Comment}}", "committed:1")), id+" why")
	must(t, w.docker("rename", "alike", "renamed"))
	must(t, w.docker("update", "--memory", "96m", "--memory-swap", "192m", "renamed"))
	same(t, "docker rename and update", must(t, w.direct(t, "host2", "inspect", "--format", "{{.Name}} {{.HostConfig.Memory}}", "renamed")), "/renamed 100663296")
}

func statsOfMany(t *testing.T, w *world) {
	n := rounds(9, 30)
	for i := range n {
		w.create(t, fmt.Sprintf("busy%02d", i), `{"Image":"busybox","Cmd":["sleep","1000"],"Labels":{"test":"stats"}}`)
	}
	must(t, w.at("docker start $(docker ps -aq --filter label=test=stats)"))
	out := must(t, w.docker("stats", "--no-stream", "--format", "{{.Name}} {{.PIDs}}"))
	same(t, "rows of docker stats", len(lines(out)), n)
	contains(t, "docker stats", out, "busy00 1", fmt.Sprintf("busy%02d 1", n-1))
	streaming := w.docker("stats", "--format", "{{.Name}} {{.MemUsage}}")
	seen := outputTo(t, streaming)
	background(t, streaming)
	eventually(t, 15*time.Second, "each container twice", func() bool {
		return strings.Count(seen.String(), "busy00 ") >= 2 && strings.Count(seen.String(), fmt.Sprintf("busy%02d ", n-1)) >= 2
	})
}

func noNodeFits(t *testing.T, w *world) {
	a := w.api(t, "POST", "/v1.41/containers/create", `{"Image":"busybox","Env":["constraint:size==none"]}`)
	same(t, "status", a.status, 503)
	r := do(t, w.docker("run", "-e", "constraint:size==none", "busybox", "true"))
	quickly(t, "docker run", r, 125, 5*time.Second)
	contains(t, "docker run", r.err, "no node fits", "size==none")
	lacks(t, "docker run", r.err, "Unable to find image", "Pulling")
	for i, node := range []string{"host1", "host2"} {
		must(t, w.docker(args("create --name", fmt.Sprintf("tie%d", i), on(node), "-v /data busybox")...))
	}
	against := w.api(t, "POST", "/v1.41/containers/create", `{"Image":"busybox","HostConfig":{"VolumesFrom":["tie0","tie1"]}}`)
	same(t, "status of ties that contradict each other", against.status, 400)
	contains(t, "its text", against.message(t), "tie0", "tie1")
}

func devContainers(t *testing.T, w *world) {
	// What the dev containers' command line does with a workspace in a volume; its helpers have to be beside it.
	const label = "devcontainer.local_folder=/home/me/project"
	must(t, w.docker("volume", "create", "vscode"))
	must(t, w.docker("run", "--rm", "-v", "vscode:/workspaces", "busybox", "sh", "-c", "mkdir -p /workspaces/project; echo code >/workspaces/project/file"))
	events := w.docker("events", "--format", "json", "--filter", "event=start", "--filter", "label="+label)
	seen := outputTo(t, events)
	background(t, events)
	id := must(t, w.docker("run", "-d", "--label", label, "--mount", "type=volume,source=vscode,target=/workspaces", "--entrypoint", "/bin/sh", "busybox", "-c", "echo Container started; while sleep 1 & wait $!; do :; done"))
	same(t, "docker ps -q", must(t, w.docker("ps", "-q", "-a", "--no-trunc", "--filter", "label="+label)), id)
	var inspected []struct {
		ID string `json:"Id"`
	}
	if err := json.Unmarshal([]byte(must(t, w.docker("inspect", "--type", "container", id))), &inspected); err != nil || len(inspected) != 1 {
		t.Errorf("inspect: %v, %v", inspected, err)
	}
	var shell bytes.Buffer
	cmd := feed(w.docker("exec", "-i", "-u", "root", "-e", "A=b", id, "/bin/sh"), strings.NewReader("echo start; cat /workspaces/project/file; (exit 0); echo code=$? $A\n"))
	cmd.Stdout = &shell
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
	same(t, "a shell in it", shell.String(), "start\ncode\ncode=0 b\n")
	helper := must(t, w.docker("run", "-d", "--label", label, "busybox", "sleep", "1000"))
	same(t, "node of its helper", w.nodeOf(t, helper), w.nodeOf(t, id))
	eventually(t, 10*time.Second, "its start in docker events: "+seen.String(), func() bool { return strings.Contains(seen.String(), helper) })
	if tool := program("BERTH_DEVCONTAINER"); tool != "" {
		w.devcontainerUp(t, tool)
	}
}

// devcontainerUp is the dev containers' own command line.
func (w *world) devcontainerUp(t *testing.T, tool string) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "project")
	if err := os.MkdirAll(filepath.Join(dir, ".devcontainer"), 0o755); err != nil {
		t.Fatal(err)
	}
	config := `{"image":"busybox","workspaceMount":"source=devspace,target=/workspaces,type=volume","workspaceFolder":"/workspaces","overrideCommand":true,"updateRemoteUserUID":false}`
	if err := os.WriteFile(filepath.Join(dir, ".devcontainer", "devcontainer.json"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	endpoint := "DOCKER_HOST=unix://" + w.socket
	up := must(t, with(w.command(tool, "up", "--workspace-folder", dir), endpoint))
	contains(t, "devcontainer up", up, `"outcome":"success"`)
	same(t, "devcontainer exec", must(t, with(w.command(tool, "exec", "--workspace-folder", dir, "echo", "inside"), endpoint)), "inside")
}
