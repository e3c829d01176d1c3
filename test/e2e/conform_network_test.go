//go:build e2e

package e2e

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

func networkNames(t *testing.T, w *world) {
	a := w.api(t, "POST", "/v1.41/networks/create", `{"Name":"once"}`)
	same(t, "status of the first", a.status, 201)
	again := w.api(t, "POST", "/v1.41/networks/create", `{"Name":"once","CheckDuplicate":true}`)
	same(t, "status of the second", again.status, 409)
	same(t, "its text", again.message(t), "network with name once already exists")
	same(t, "docker network ls", lines(must(t, w.docker("network", "ls", "--format", "{{.Name}}"))), "[bridge host none once]")
	same(t, "status of removing bridge", w.api(t, "DELETE", "/v1.41/networks/bridge", "").status, 403)
}

func connectOverNodes(t *testing.T, w *world) {
	must(t, w.docker("network", "create", "home"))
	must(t, w.docker(args("run -d --name there --network home", on("host1"), "busybox sleep 1000")...))
	must(t, w.docker(args("run -d --name near", on("host1"), "busybox sleep 1000")...))
	must(t, w.docker(args("run -d --name far", on("host2"), "busybox sleep 1000")...))
	must(t, w.docker("network", "connect", "home", "near"))
	must(t, w.docker("exec", "near", "ping", "-c", "1", "there"))
	a := w.api(t, "POST", "/v1.41/networks/home/connect", `{"Container":"far"}`)
	same(t, "status of connecting over two nodes", a.status, 400)
	contains(t, "its text", a.message(t), "host1", "host2")
}

func volumeOnTwoNodes(t *testing.T, w *world) {
	for _, node := range []string{"host1", "host2"} {
		must(t, w.direct(t, node, "volume", "create", "both"))
	}
	eventually(t, 5*time.Second, "both are seen", func() bool {
		return fmt.Sprint(lines(must(t, w.docker("volume", "ls", "-q")))) == "[host1/both host2/both]"
	})
	a := w.api(t, "GET", "/v1.41/volumes/both", "")
	same(t, "status of inspect", a.status, 400)
	contains(t, "its text", a.message(t), "ambiguous")
	must(t, w.docker("volume", "rm", "host1/both"))
	same(t, "what is left", must(t, w.docker("volume", "ls", "-q")), "both")
	same(t, "its home", w.volumeNode(t, "both"), "host2")
}

func volumeTwice(t *testing.T, w *world) {
	for range 2 {
		a := w.api(t, "POST", "/v1.41/volumes/create", `{"Name":"twice"}`)
		same(t, "status", a.status, 201)
	}
	same(t, "volumes", must(t, w.docker("volume", "ls", "-q")), "twice")
	same(t, "status of removing none by force", w.api(t, "DELETE", "/v1.41/volumes/none?force=1", "").status, 204)
	same(t, "status of removing none", w.api(t, "DELETE", "/v1.41/volumes/none", "").status, 404)
}

func pruneKeepsNamed(t *testing.T, w *world) {
	must(t, w.docker("volume", "create", "named"))
	must(t, w.docker("run", "--name", "anon", "-v", "/anonymous", "busybox", "true"))
	must(t, w.docker("rm", "anon"))
	same(t, "volumes before", len(lines(must(t, w.docker("volume", "ls", "-q")))), 2)
	// From API 1.42 on, prune takes anonymous volumes only; these engines speak 1.41, in which it takes all.
	a := w.api(t, "POST", "/v1.44/volumes/prune", "")
	same(t, "status", a.status, 200)
	same(t, "volumes after", must(t, w.docker("volume", "ls", "-q")), "named")
	contains(t, "prune of all", w.api(t, "POST", "/v1.44/volumes/prune?filters="+`{"all":["true"]}`, "").body, `"named"`)
}

func usageAddsUp(t *testing.T, w *world) {
	for i, node := range []string{"host1", "host2", "host3"} {
		must(t, w.docker(args("run -d --name", fmt.Sprintf("used%d", i), on(node), fmt.Sprintf("-v usage%d:/v", i), "busybox sh -c", []string{"dd if=/dev/zero of=/v/x bs=1k count=100 2>/dev/null; echo x >/y; exec sleep 1000"})...))
	}
	count := func(text string) map[string]int {
		got := map[string]int{}
		for _, l := range lines(text) {
			var kind string
			var n int
			if _, err := fmt.Sscanf(l, "%s %d", &kind, &n); err != nil {
				t.Fatalf("%v in %q", err, l)
			}
			got[kind] = n
		}
		return got
	}
	const format = `{{if eq .Type "Local Volumes"}}Volumes{{else if eq .Type "Build Cache"}}Cache{{else}}{{.Type}}{{end}} {{.TotalCount}}`
	sum := map[string]int{}
	for _, node := range []string{"host1", "host2", "host3"} {
		for kind, n := range count(must(t, w.direct(t, node, "system", "df", "--format", format))) {
			sum[kind] += n
		}
	}
	got := count(must(t, w.docker("system", "df", "--format", format)))
	for _, kind := range []string{"Containers", "Volumes"} {
		same(t, kind, got[kind], sum[kind])
	}
	contains(t, "docker system df -v", must(t, w.docker("system", "df", "-v")), "used0", "used1", "used2", "usage0", "usage1", "usage2", "102.4kB")
}

func systemPrune(t *testing.T, w *world) {
	for i, node := range []string{"host1", "host2", "host3"} {
		must(t, w.docker(args("run --name", fmt.Sprintf("ended%d", i), on(node), "busybox true")...))
		must(t, w.docker(args("run -d --name", fmt.Sprintf("runs%d", i), on(node), "busybox sleep 1000")...))
		must(t, w.docker("network", "create", fmt.Sprintf("%s/idle%d", node, i)))
	}
	out := must(t, w.docker("system", "prune", "-f"))
	contains(t, "docker system prune", out, "Deleted Containers:", "Deleted Networks:", "idle0", "idle1", "idle2", "Total reclaimed space")
	for i, node := range []string{"host1", "host2", "host3"} {
		same(t, "containers left on "+node, must(t, w.direct(t, node, "ps", "-a", "--format", "{{.Names}}")), fmt.Sprintf("runs%d", i))
		same(t, "networks left on "+node, must(t, w.direct(t, node, "network", "ls", "-q", "--filter", "type=custom")), "")
	}
}

// address is where a container's port is published on its node.
func (w *world) address(t *testing.T, container, port string) string {
	t.Helper()
	first, _, _ := strings.Cut(must(t, w.docker("port", container, port)), "\n")
	_, p, err := net.SplitHostPort(first)
	if err != nil {
		t.Fatal(err)
	}
	return net.JoinHostPort(must(t, w.command("berth", "ip", w.nodeOf(t, container))), p)
}

// mapped is where a container's port answers for those who take the endpoint for an engine on this computer.
func (w *world) mapped(t *testing.T, container, port string) string {
	t.Helper()
	_, p, err := net.SplitHostPort(w.address(t, container, port))
	if err != nil {
		t.Fatal(err)
	}
	return net.JoinHostPort("localhost", p)
}

// page waits for a web server's page.
func page(t *testing.T, addr string) string {
	t.Helper()
	var body string
	eventually(t, 10*time.Second, "an answer of "+addr, func() bool {
		res, err := http.Get("http://" + addr + "/")
		if err != nil {
			return false
		}
		defer res.Body.Close()
		b, err := io.ReadAll(res.Body)
		body = string(b)
		return err == nil && res.StatusCode == 200
	})
	return body
}

// website is a command that serves one line.
func website(text string) []string {
	return []string{"web:1", "sh", "-c", "mkdir /w; echo " + text + " >/w/index.html; exec httpd -f -p 80 -h /w"}
}

func uniquePorts(t *testing.T, w *world) {
	second := w.secondServe(t, "--unique-ports", "--port-range", "21000-21007")
	seen := map[string]bool{}
	for i := range 6 {
		name := fmt.Sprintf("unique%d", i)
		must(t, second.docker(args("run -d -p 80 --name", name, website(name))...))
		addr := second.address(t, name, "80")
		_, port, _ := net.SplitHostPort(addr)
		seen[port] = true
		if port < "21000" || port > "21007" {
			t.Errorf("port %s is not of the range", port)
		}
		same(t, "who answers at "+addr, page(t, addr), name+"\n")
		same(t, "who answers on this computer", page(t, "127.0.0.1:"+port), name+"\n")
	}
	same(t, "ports", len(seen), 6)
	must(t, second.docker("rm", "-f", "unique0", "unique1", "unique2"))
	for i := range 5 { // more than were left; the other manager may have one of those that are free now for a moment yet
		eventually(t, 5*time.Second, "a port that was given up is given out", func() bool {
			return do(t, second.docker(args("run -d -p 80 --name", fmt.Sprintf("later%d", i), website("x"))...)).code == 0
		})
	}
	fails(t, second.docker(args("run -d -p 80", website("x"))...))
}

func hostPortTwice(t *testing.T, w *world) {
	nodes := map[string]bool{}
	for i := range 2 {
		name := fmt.Sprintf("fixed%d", i)
		must(t, w.docker(args("run -d -p 8097:80 --name", name, website(name))...))
		nodes[w.nodeOf(t, name)] = true
		same(t, "who answers", page(t, w.address(t, name, "80")), name+"\n")
	}
	same(t, "nodes", len(nodes), 2)
	same(t, "who answers on this computer: the first", page(t, "127.0.0.1:8097"), "fixed0\n")
	must(t, w.docker(args("run -d -p 8097:80 --name third", website("third"))...))
	contains(t, "a fourth", fails(t, w.docker(args("run -d -p 8097:80", website("fourth"))...)), "8097")
	must(t, w.docker(args("run -d -p 8097:80/udp --name udp", website("udp"))...)) // another protocol, another port
}

// reaperImage is the name that Testcontainers for Go 0.45 knows its reaper by.
const reaperImage = "testcontainers/ryuk:0.14.0"

func testcontainers(t *testing.T, w *world) {
	// A program of ours that speaks the reaper's protocol, since the real one cannot be had without a registry.
	dir := t.TempDir()
	build := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-o", dir+"/ryuk", "berth/test/clients/ryuk")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	must(t, build)
	must(t, w.at("tar c -C "+dir+" ryuk | docker import -c 'CMD [\"/ryuk\"]' -c 'EXPOSE 8080' - "+reaperImage))
	w.forget(t, reaperImage)
	const session = "e2e-session"
	const labels = `{"org.testcontainers":"true","org.testcontainers.sessionId":"` + session + `"}`
	w.create(t, "reaper", `{"Image":"`+reaperImage+`","Labels":{"org.testcontainers":"true","org.testcontainers.ryuk":"true","org.testcontainers.sessionId":"`+session+`"},
		"ExposedPorts":{"8080/tcp":{}},"HostConfig":{"AutoRemove":true,"Binds":["/var/run/docker.sock:/var/run/docker.sock"],"PortBindings":{"8080/tcp":[{"HostPort":"0"}]}}}`)
	must(t, w.docker("start", "reaper"))
	eventually(t, 10*time.Second, "the reaper listens", func() bool { return strings.Contains(do(t, w.docker("logs", "reaper")).out, "Started") })
	conn, err := net.Dial("tcp", w.mapped(t, "reaper", "8080"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprintf(conn, "label=org.testcontainers=true&label=org.testcontainers.sessionId=%s\n", session)
	if line, err := bufio.NewReader(conn).ReadString('\n'); err != nil || line != "ACK\n" {
		t.Fatalf("the reaper says %q, %v", line, err)
	}
	same(t, "status of the network", w.api(t, "POST", "/v1.41/networks/create", `{"Name":"tcnet","Labels":`+labels+`}`).status, 201)
	same(t, "status of the volume", w.api(t, "POST", "/v1.41/volumes/create", `{"Name":"tcvol","Labels":`+labels+`}`).status, 201)
	for i, node := range []string{"tc0", "tc1", "tc2"} {
		w.create(t, node, `{"Image":"web:1","Cmd":["sh","-c","mkdir /w; echo tc >/w/index.html; exec httpd -f -p 80 -h /w"],"Labels":`+labels+`,"ExposedPorts":{"80/tcp":{}},
			"HostConfig":{"Binds":["tcvol:/v"],"NetworkMode":"tcnet","PortBindings":{"80/tcp":[{"HostPort":"0"}]}}}`)
		must(t, w.docker("start", node))
		same(t, "node of a container beside its reaper", w.nodeOf(t, node), w.nodeOf(t, "reaper"))
		if i == 0 {
			same(t, "a mapped port", page(t, w.mapped(t, node, "80")), "tc\n")
		}
	}
	same(t, "home of the session's network", w.networkNode(t, "tcnet"), w.nodeOf(t, "reaper"))
	if err := conn.Close(); err != nil { // as when the test is killed
		t.Fatal(err)
	}
	w.reaped(t)
	if tool := program("BERTH_TESTCONTAINERS"); tool != "" {
		cmd := with(w.command(tool, "host2"), "DOCKER_HOST=unix://"+w.socket) // it looks for mapped ports on localhost
		r := do(t, cmd)                                                       // it kills itself at the end
		contains(t, "Testcontainers for Go", r.out+r.err, "OK: the page, the file and the other container")
		w.reaped(t)
	}
}

// reaped waits until a session's objects are gone.
func (w *world) reaped(t *testing.T) {
	t.Helper()
	eventually(t, 20*time.Second, "the session is removed", func() bool {
		return must(t, w.docker("ps", "-aq"))+must(t, w.docker("volume", "ls", "-q"))+must(t, w.docker("network", "ls", "-q", "--filter", "type=custom")) == ""
	})
}
