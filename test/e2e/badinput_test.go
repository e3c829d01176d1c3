//go:build e2e

package e2e

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// Whatever is sent, the answer has the right status and says what is wrong, and the manager lives.
func TestBadInput(t *testing.T) {
	w := fleet(t)
	pid := w.serve.Process.Pid
	big := strings.Repeat("x", 1<<20)
	env := func(rule string) string { return `{"Image":"busybox","Env":["` + rule + `"]}` }
	for name, tt := range map[string]struct {
		method, path, body string
		status             int
		text               string
	}{
		"garbage for a container":          {"POST", "/containers/create", `{"Image":`, 400, "JSON"},
		"words for a container":            {"POST", "/containers/create", `hello`, 400, "JSON"},
		"a list for a container":           {"POST", "/containers/create", `[1,2]`, 400, "request body"},
		"nothing for a container":          {"POST", "/containers/create", ``, 400, "Config cannot be empty"},
		"a number for an image":            {"POST", "/containers/create", `{"Image":7}`, 400, "Image"},
		"an image that is no reference":    {"POST", "/containers/create", `{"Image":"UPPER//x"}`, 400, "invalid reference format"},
		"garbage for a network":            {"POST", "/networks/create", `{`, 400, "JSON"},
		"garbage for a volume":             {"POST", "/volumes/create", `nope`, 400, "JSON"},
		"garbage for an exec":              {"POST", "/exec/" + strings.Repeat("0", 64) + "/start", `{`, 404, "No such exec instance"},
		"garbage filters":                  {"GET", "/containers/json?filters=" + url.QueryEscape(`{"status":`), "", 400, "filter"},
		"a filter nobody knows":            {"GET", "/containers/json?filters=" + url.QueryEscape(`{"colour":["red"]}`), "", 400, "colour"},
		"an operator nobody knows":         {"POST", "/containers/create", env("constraint:size>5"), 400, "One of operator ==, != is expected"},
		"an affinity without an operator":  {"POST", "/containers/create", env("affinity:container"), 400, "operator"},
		"a key that is none":               {"POST", "/containers/create", env("constraint:s!ze==5"), 400, "is invalid"},
		"a value that is a lone slash":     {"POST", "/containers/create", env("constraint:node==/"), 400, "is invalid"},
		"a soft lone slash":                {"POST", "/containers/create", env("constraint:node==~/"), 400, "is invalid"},
		"an empty value":                   {"POST", "/containers/create", env("constraint:node=="), 400, "is invalid"},
		"a regular expression that is not": {"POST", "/containers/create", env("constraint:node==/[/"), 400, "["},
		"a label that is no list":          {"POST", "/containers/create", `{"Image":"busybox","Labels":{"com.docker.swarm.constraints":"size==xxl"}}`, 400, "must hold a JSON list"},
		"a name of a megabyte":             {"POST", "/containers/create?name=" + big, `{"Image":"busybox"}`, 400, ""},
		"an image name of a megabyte":      {"POST", "/containers/create", `{"Image":"` + big + `"}`, 400, "invalid reference format"},
		"a rule of a megabyte":             {"POST", "/containers/create", env("constraint:size==" + big), 400, ""},
		"a volume of a megabyte":           {"POST", "/volumes/create", `{"Name":"` + big + `"}`, 400, "255 characters"},
		"a network of a megabyte":          {"POST", "/networks/create", `{"Name":"` + big + `"}`, 400, "255 characters"},
		"a name with a line in it":         {"POST", "/containers/create?name=a%0Ab", `{"Image":"busybox"}`, 400, "Invalid container name"},
		"a name that climbs":               {"POST", "/containers/create?name=" + url.QueryEscape("../x"), `{"Image":"busybox"}`, 400, ""},
		"a port that is none":              {"POST", "/containers/create", `{"Image":"busybox","HostConfig":{"PortBindings":{"80/tcp":[{"HostPort":"99999"}]}}}`, 400, "99999"},
		"a container that is not":          {"GET", "/containers/nobody/json", "", 404, "No such container: nobody"},
		"an image that is not":             {"GET", "/images/nothing/json", "", 404, "No such image: nothing"},
		"an image with slashes":            {"GET", "/images/a/b/c:d/json", "", 404, "No such image: a/b/c:d"},
		"a network that is not":            {"GET", "/networks/nothing", "", 404, "network nothing not found"},
		"a volume that is not":             {"GET", "/volumes/nothing", "", 404, "no such volume"},
		"an exec that is not":              {"GET", "/exec/xyz/json", "", 404, "exec"},
		"a page that is not":               {"GET", "/v1.41/nope", "", 404, "page not found"},
		"a method that is not":             {"PATCH", "/info", "", 404, "page not found"},
		"a version that is none":           {"GET", "/v1.x/info", "", 404, "page not found"},
		"a container called by a slash":    {"GET", "/containers//json", "", 404, ""},
		"a signal that is not":             {"POST", "/containers/nobody/kill?signal=NOPE", "", 404, "nobody"},
		"a tar that is none":               {"POST", "/images/load", "this is no tar", 200, ""},
	} {
		t.Run(name, func(t *testing.T) {
			a := w.api(t, tt.method, tt.path, tt.body)
			if tt.status != 0 && a.status != tt.status {
				t.Errorf("status %d, want %d: %.300s", a.status, tt.status, a.body)
			}
			if a.status >= 500 {
				t.Errorf("status %d says that it is our fault: %.300s", a.status, a.body)
			}
			if tt.text != "" {
				contains(t, "the message", a.message(t), tt.text)
			}
			if len(a.body) > 64<<10 {
				t.Errorf("the answer has %d bytes", len(a.body))
			}
		})
	}
	same(t, "containers that all this made", must(t, w.docker("ps", "-aq")), "")
	same(t, "process of the manager", w.serve.Process.Pid, pid)
	must(t, w.docker("run", "--rm", "busybox", "true"))
}

// Names that look like parts of the API's paths, or of IDs, are names like others.
func TestNamesLikePaths(t *testing.T) {
	w := fleet(t)
	for _, name := range []string{"v1", "con", "v1.41", "json", "containers", "create", "exec", "prune", "host1", "dad", "start", "attach", "images.json"} {
		must(t, w.docker("run", "-d", "--name", name, "busybox", "sh", "-c", "echo I am $0; sleep 1000", name))
		eventually(t, 5*time.Second, name+" speaks", func() bool { return do(t, w.docker("logs", name)).out == "I am "+name+"\n" })
		same(t, "docker exec "+name, must(t, w.docker("exec", name, "echo", "in")), "in")
		same(t, "docker inspect "+name, must(t, w.docker("inspect", "--format", "{{.Name}}", name)), "/"+name)
		must(t, w.docker("rename", name, name+"-2"))
		must(t, w.docker("rm", "-f", name+"-2"))
	}
}

// Bytes that are no HTTP, and clients that leave in the midst of it.
func TestBadBytes(t *testing.T) {
	w := fleet(t)
	for _, text := range []string{"\x00\x01\x02\r\n\r\n", "GET\r\n\r\n", "GET /info HTTP/9.9\r\n\r\n", "POST /containers/create HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{\"Image\":",
		"POST /containers/create HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", "GET /info HTTP/1.1\r\nHost: x\r\nX: " + strings.Repeat("y", 2<<20) + "\r\n\r\n"} {
		c, err := net.Dial("unix", w.socket)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = c.Write([]byte(text)) // the manager may have hung up on it
		if err := c.SetReadDeadline(time.Now().Add(200 * time.Millisecond)); err != nil {
			t.Fatal(err)
		}
		line, _ := bufio.NewReader(c).ReadString('\n') // no answer at all is one, too
		if strings.Contains(line, " 200 ") || strings.Contains(line, " 201 ") {
			t.Errorf("%.40q was answered with %q", text, line)
		}
		c.Close()
	}
	must(t, w.docker("run", "--rm", "busybox", "true"))
}

// Two engines that call themselves alike are two nodes with names of their own.
func TestTwoEnginesOfOneName(t *testing.T) {
	w := fleet(t)
	pid := strconv.Itoa(w.dockerd(t, "host2"))
	rename := func(name string) {
		t.Helper()
		if out, err := exec.Command("nsenter", "--target", pid, "--uts", "hostname", name).CombinedOutput(); err != nil {
			t.Fatalf("hostname: %v\n%s", err, out)
		}
	}
	one, two := w.engineSocket(t, "host1"), w.engineSocket(t, "host2")
	rename("host1")
	t.Cleanup(func() { rename("host2") })
	second := w.secondServe(t, "unix://"+one+",unix://"+two)
	eventually(t, 10*time.Second, "two healthy nodes", func() bool {
		healthy := 0
		for _, n := range second.nodeList(t) {
			if n.State == "Healthy" {
				healthy++
			}
		}
		return healthy == 2
	})
	names := map[string]bool{}
	for _, n := range second.nodeList(t) {
		names[n.Name] = true
	}
	same(t, "names that differ", len(names), 2)
	for name := range names {
		id := must(t, second.docker("create", "-e", "constraint:node=="+name, "busybox"))
		same(t, "node", second.nodeOf(t, id), name)
	}
	for range 4 {
		must(t, second.docker("create", "--label", "test=twins", "busybox"))
	}
	same(t, "containers on both", len(second.nodes(t, "label=test=twins")), 2)
}

// Many clients at once, of all kinds, and none gets another's answer.
func TestManyClients(t *testing.T) {
	w := fleet(t)
	var wg sync.WaitGroup
	client := w.http(t)
	for i := range 40 {
		wg.Go(func() {
			name := fmt.Sprintf("many%02d", i)
			res, err := client.Post("http://berth/v1.41/containers/create?name="+name, "application/json", strings.NewReader(`{"Image":"busybox","Cmd":["true"],"Labels":{"me":"`+name+`"}}`))
			if err != nil {
				t.Error(err)
				return
			}
			res.Body.Close()
			if res.StatusCode != http.StatusCreated {
				t.Errorf("%s: status %d", name, res.StatusCode)
				return
			}
			res, err = client.Get("http://berth/containers/" + name + "/json")
			if err != nil {
				t.Error(err)
				return
			}
			defer res.Body.Close()
			var c struct {
				Name   string
				Config struct{ Labels map[string]string }
			}
			if err := json.NewDecoder(res.Body).Decode(&c); err != nil || c.Name != "/"+name || c.Config.Labels["me"] != name {
				t.Errorf("%s: read back %q %v: %v", name, c.Name, c.Config.Labels, err)
			}
		})
	}
	wg.Wait()
	nodes := w.nodes(t, "label=me")
	for _, n := range []string{"host1", "host2", "host3"} {
		if nodes[n] < 13 || nodes[n] > 14 {
			t.Errorf("40 containers created at once are on %v", nodes)
			break
		}
	}
}
