//go:build e2e

package e2e

import (
	"archive/tar"
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io"
	"log"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/registry"
)

// tree is an archive of files.
func tree(t *testing.T, files map[string][]byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for name, body := range files {
		if err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(body))}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(body); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// build makes an image with the builder that needs no plugin.
func (w *world) build(t *testing.T, ref, dockerfile string) {
	t.Helper()
	must(t, with(feed(w.docker("build", "-q", "-t", ref, "-"), strings.NewReader(dockerfile)), "DOCKER_BUILDKIT=0"))
	w.forget(t, ref)
}

// forget removes an image after the test.
func (w *world) forget(t *testing.T, refs ...string) {
	t.Cleanup(func() {
		for _, ref := range refs {
			if do(t, w.docker("image", "inspect", ref)).code == 0 {
				must(t, w.docker("rmi", "-f", ref))
			}
		}
	})
}

// trickle is a body that arrives in pieces over a time.
func trickle(body []byte, over time.Duration) io.Reader {
	r, in := io.Pipe()
	go func() {
		const pieces = 20
		tick := time.NewTicker(over / pieces)
		defer tick.Stop()
		size := len(body)/pieces + 1
		for len(body) > 0 {
			n := min(len(body), size)
			if _, err := in.Write(body[:n]); err != nil {
				return // the reader has left, and says why
			}
			body = body[n:]
			<-tick.C
		}
		in.Close()
	}()
	return r
}

func trickledBodies(t *testing.T, w *world) {
	data := make([]byte, 4<<20)
	if _, err := rand.Read(data); err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(data)
	over := lasting(time.Second, 10*time.Second)
	w.forget(t, "trickled:1")
	send := func(path string, body io.Reader) string {
		t.Helper()
		res, err := w.http(t).Post("http://berth"+path, "application/x-tar", body)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		b, err := io.ReadAll(res.Body)
		if err != nil || res.StatusCode != 200 {
			t.Fatalf("%s: %s %s, %v", path, res.Status, b, err)
		}
		return string(b)
	}
	context := tree(t, map[string][]byte{"Dockerfile": []byte("FROM busybox\nCOPY data /data\nRUN sha256sum /data\n"), "data": data})
	contains(t, "the build", send("/v1.41/build?t=trickled:1", trickle(context, over)), hex.EncodeToString(sum[:]))
	archive := must(t, w.docker("save", "trickled:1"))
	must(t, w.docker("rmi", "trickled:1"))
	contains(t, "the load", send("/v1.41/images/load", trickle([]byte(archive), over)), "Loaded image: trickled:1")
	contains(t, "what was loaded", must(t, w.docker("run", "--rm", "trickled:1", "sha256sum", "/data")), hex.EncodeToString(sum[:]))
}

// tap is a registry that notes who asks for what, and does not answer one of them.
type tap struct {
	addr string
	lame string // the address that gets no answer

	mu    sync.Mutex
	pulls map[string]int // by address: manifests that were asked for
	auth  []string       // what came with pushes
}

func tapped(t *testing.T) *tap {
	t.Helper()
	p := &tap{pulls: map[string]int{}}
	quiet := registry.New(registry.Logger(log.New(io.Discard, "", 0)))
	p.addr = serveHTTP(t, bridge, http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		host, _, err := net.SplitHostPort(r.RemoteAddr)
		if err != nil || host == p.lame {
			panic(http.ErrAbortHandler)
		}
		p.mu.Lock()
		switch {
		case !strings.Contains(r.URL.Path, "/manifests/"):
		case r.Method == http.MethodPut:
			p.auth = append(p.auth, r.Header.Get("Authorization"))
		default:
			p.pulls[host]++
		}
		p.mu.Unlock()
		quiet.ServeHTTP(rw, r)
	}))
	return p
}

func (p *tap) pulled() map[string]int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return maps.Clone(p.pulls)
}

func (p *tap) forget() {
	p.mu.Lock()
	defer p.mu.Unlock()
	clear(p.pulls)
	p.auth = nil
}

func pullWithLameNode(t *testing.T, w *world) {
	p := tapped(t)
	ref := p.addr + "/pulled:1"
	must(t, w.docker("tag", "busybox", ref))
	w.forget(t, ref)
	must(t, w.docker("push", ref))
	must(t, w.docker("rmi", ref))
	phrase := func(out string) {
		t.Helper()
		for _, ok := range []string{"Downloaded newer image", "Image is up to date", "Download complete"} {
			if strings.Contains(out, ok) {
				return
			}
		}
		t.Errorf("no phrase that docker-java accepts in:\n%s", out)
	}
	a := w.api(t, "POST", "/v1.41/images/create?fromImage="+ref, "")
	messages := strings.Split(strings.TrimSpace(a.body), "\n")
	phrase(messages[len(messages)-1])
	phrase(must(t, w.docker("pull", ref)))
	must(t, w.docker("rmi", ref))
	p.lame = must(t, w.command("berth", "ip", "host2"))
	out := must(t, w.docker("pull", ref))
	phrase(out)
	contains(t, "docker pull with a node that cannot", out, "host2", "host1: Pulling", "host3: Pulling")
	same(t, "holders", w.holders(t, ref), "host1 host3")
}

func pullOnceWhereNeeded(t *testing.T, w *world) {
	p := tapped(t)
	ref := p.addr + "/unknown:1"
	must(t, w.docker("tag", "busybox", ref))
	w.forget(t, ref)
	must(t, w.docker("push", ref))
	must(t, w.docker("rmi", ref))
	p.forget()
	a := w.api(t, "POST", "/v1.41/containers/create", `{"Image":"`+ref+`"}`)
	same(t, "status of a create whose image nobody has", a.status, 404)
	contains(t, "its text", a.message(t), "No such image: "+ref)
	r := do(t, w.docker(args("run --name pulls", on("host3"), ref, "echo pulled")...))
	same(t, "output", r.out, "pulled\n")
	same(t, "node", w.nodeOf(t, "pulls"), "host3")
	same(t, "holders", w.holders(t, ref), "host3")
	ip := must(t, w.command("berth", "ip", "host3"))
	pulled := p.pulled()
	if pulled[ip] == 0 || len(pulled) != 1 {
		t.Errorf("manifests were asked for by %v, want host3 (%s) alone", pulled, ip)
	}
	must(t, w.docker(args("run --rm", on("host3"), ref, "true")...))
	same(t, "manifests asked for after another run", p.pulled(), pulled)
	must(t, w.docker("rm", "pulls"))
}

func movedTag(t *testing.T, w *world) {
	w.build(t, "moving:1", "FROM busybox\nRUN echo old >/which\n")
	for _, node := range []string{"host1", "host2", "host3"} {
		same(t, "before on "+node, must(t, w.docker(args("run --rm", on(node), "moving:1 cat /which")...)), "old")
	}
	must(t, with(feed(w.direct(t, "host1", "build", "-q", "-t", "moving:1", "-"), strings.NewReader("FROM busybox\nRUN echo new >/which\n")), "DOCKER_BUILDKIT=0"))
	id := must(t, w.direct(t, "host1", "image", "inspect", "--format", "{{.Id}}", "moving:1"))
	eventually(t, 5*time.Second, "the tag's move is seen", func() bool {
		return must(t, w.docker("image", "inspect", "--format", "{{.Id}}", "moving:1")) == id
	})
	for _, node := range []string{"host2", "host3", "host1"} {
		same(t, "after on "+node, must(t, w.docker(args("run --rm", on(node), "moving:1 cat /which")...)), "new")
	}
}

func removeImages(t *testing.T, w *world) {
	w.build(t, "removed:1", "FROM busybox\nRUN echo removed >/which\n")
	for _, node := range []string{"host1", "host2", "host3"} {
		must(t, w.docker(args("run --rm", on(node), "removed:1 true")...))
	}
	id := must(t, w.docker("image", "inspect", "--format", "{{.Id}}", "removed:1"))
	must(t, w.docker(args("run -d --name user", on("host2"), "removed:1 sleep 1000")...))
	a := w.api(t, "DELETE", "/v1.41/images/removed:1", "")
	same(t, "status of removing what is used", a.status, 409)
	contains(t, "its text", a.message(t), "conflict: unable to remove repository reference")
	same(t, "holders after that", w.holders(t, "removed:1"), "host1 host2 host3")
	must(t, w.docker("rm", "-f", "user"))
	out := must(t, w.docker("rmi", "removed:1"))
	same(t, "deletions of the image that are told", strings.Count(out, "Deleted: "+id), 1)
	same(t, "holders at last", w.holders(t, "removed:1"), "")
	same(t, "status of removing it again", w.api(t, "DELETE", "/v1.41/images/removed:1", "").status, 404)
}

func saveFromTwoNodes(t *testing.T, w *world) {
	for i, node := range []string{"host1", "host2"} {
		ref := fmt.Sprintf("apart:%d", i)
		w.forget(t, ref)
		must(t, with(feed(w.direct(t, node, "build", "-q", "-t", ref, "-"), strings.NewReader(fmt.Sprintf("FROM busybox\nRUN echo %d >/which\n", i))), "DOCKER_BUILDKIT=0"))
		eventually(t, 5*time.Second, ref+" is seen", func() bool { return do(t, w.docker("image", "inspect", ref)).code == 0 })
	}
	file := filepath.Join(t.TempDir(), "both.tar")
	must(t, w.docker("save", "-o", file, "apart:0", "apart:1"))
	must(t, w.docker("rmi", "apart:0", "apart:1"))
	contains(t, "docker load", must(t, w.docker("load", "-i", file)), "Loaded image: apart:0", "Loaded image: apart:1")
	for i := range 2 {
		same(t, "what was loaded", must(t, w.docker("run", "--rm", fmt.Sprintf("apart:%d", i), "cat", "/which")), i)
	}
}

func oneImage(t *testing.T, w *world) {
	same(t, "rows of docker images", must(t, w.docker("images", "--format", "{{.Repository}}:{{.Tag}}", "busybox")), "busybox:latest")
	ids := map[string]int{}
	for range 100 {
		var i struct {
			ID string `json:"Id"`
		}
		w.get(t, "/v1.41/images/busybox/json", &i)
		ids[i.ID]++
	}
	same(t, "IDs in a hundred answers", len(ids), 1)
}

func pushCredentials(t *testing.T, w *world) {
	second := w.secondServe(t, "-l", "debug")
	p := tapped(t)
	ref := p.addr + "/pushed:1"
	must(t, w.docker("tag", "busybox", ref))
	w.forget(t, ref)
	const secret = "a-secret-of-birds"
	auth := base64.URLEncoding.EncodeToString([]byte(`{"username":"bird","password":"` + secret + `","serveraddress":"` + p.addr + `"}`))
	a := second.api(t, "POST", "/v1.41/images/"+p.addr+"/pushed/push?tag=1", "", "X-Registry-Auth", auth)
	contains(t, "the push", a.body, "digest: sha256:")
	log, err := os.ReadFile(second.log)
	if err != nil {
		t.Fatal(err)
	}
	contains(t, "the log at level debug", string(log), "/push")
	lacks(t, "the log at level debug", string(log), secret, auth)
	// Another client that brings no credentials pushes with none.
	p.forget()
	second.api(t, "POST", "/v1.41/images/"+p.addr+"/pushed/push?tag=1", "", "X-Registry-Auth", base64.URLEncoding.EncodeToString([]byte("{}")))
	p.mu.Lock()
	defer p.mu.Unlock()
	if got := strings.Join(p.auth, ""); got != "" {
		t.Errorf("a push without credentials had %q", got)
	}
}

func pluginsAndRegistries(t *testing.T, w *world) {
	contains(t, "docker plugin ls", must(t, w.docker("plugin", "ls")), "ID", "NAME", "ENABLED")
	quiet := registry.New(registry.Logger(log.New(io.Discard, "", 0)))
	addr := serveHTTP(t, bridge, http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/v1/_ping":
		case "/v1/search":
			rw.Header().Set("Content-Type", "application/json")
			_, _ = io.WriteString(rw, `{"num_results":1,"results":[{"name":"birds/`+r.FormValue("q")+`","description":"a bird","star_count":3}]}`)
		default:
			quiet.ServeHTTP(rw, r)
		}
	}))
	contains(t, "docker search", must(t, w.docker("search", addr+"/sparrow")), "birds/sparrow", "a bird")
	ref := addr + "/listed:1"
	must(t, w.docker("tag", "busybox", ref))
	w.forget(t, ref)
	must(t, w.docker("push", ref))
	var d struct{ Descriptor struct{ Digest string } }
	w.get(t, "/v1.41/distribution/"+ref+"/json", &d)
	contains(t, "its digest", d.Descriptor.Digest, "sha256:")
	contains(t, "docker manifest inspect", must(t, w.docker("manifest", "inspect", "--insecure", ref)), `"schemaVersion": 2`)
}
