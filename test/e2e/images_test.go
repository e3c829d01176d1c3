//go:build e2e

package e2e

import (
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/registry"
)

// bridge is this computer's address as the shared machines see it.
const bridge = "10.213.77.1"

// registry serves an empty registry that wants a login, and has the client log in.
func (w *world) registry(t *testing.T) string {
	t.Helper()
	quiet := registry.New(registry.Logger(log.New(io.Discard, "", 0)))
	addr := serveHTTP(t, bridge, http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if user, password, ok := r.BasicAuth(); !ok || user != "bird" || password != "tweet" {
			rw.Header().Set("WWW-Authenticate", `Basic realm="birds"`)
			http.Error(rw, `{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}`, http.StatusUnauthorized)
			return
		}
		quiet.ServeHTTP(rw, r)
	}))
	must(t, feed(w.docker("login", "-u", "bird", "--password-stdin", addr), strings.NewReader("tweet")))
	t.Cleanup(func() { must(t, w.docker("logout", addr)) })
	return addr
}

// holders are the machines that have an image, asked one by one behind the endpoint's back.
func (w *world) holders(t *testing.T, ref string) string {
	t.Helper()
	var have []string
	for _, name := range []string{"host1", "host2", "host3"} {
		if must(t, w.sh(`eval "$(berth env `+name+`)"; docker images -q `+ref)) != "" {
			have = append(have, name)
		}
	}
	return strings.Join(have, " ")
}

// S7: pull on every node with a line for each; rmi reaches them all; what does not exist fails in the engine's words.
func TestPullEverywhere(t *testing.T) {
	w := fleet(t)
	ref := w.registry(t) + "/bird:1"
	must(t, w.docker("tag", "busybox", ref))
	must(t, w.docker("push", ref))
	must(t, w.docker("rmi", ref))
	same(t, "holders before", w.holders(t, ref), "")

	pull := must(t, w.docker("pull", ref))
	for _, node := range []string{"host1", "host2", "host3"} {
		contains(t, "docker pull", pull, node+": Pulling "+ref+"... : ")
	}
	contains(t, "docker pull", pull, "Digest: sha256:", "Status: ")
	same(t, "holders after docker pull", w.holders(t, ref), "host1 host2 host3")
	same(t, "rows of docker images", len(strings.Fields(must(t, w.docker("images", "-q", ref)))), 1)
	contains(t, "pull again", must(t, w.docker("pull", ref)), "Status: Image is up to date for "+ref)
	contains(t, "pull with the old client", must(t, w.old("pull", ref)), "Status: Image is up to date for "+ref)

	must(t, w.docker("create", "--name", "user", "-e", "constraint:node==host2", ref))
	r := do(t, w.docker("rmi", ref, "web:none"))
	same(t, "rmi of what is not there", r.code, 1)
	contains(t, "rmi", r.err, "No such image: web:none")
	must(t, w.docker("rm", "user"))
	do(t, w.docker("rmi", ref)) // it may be gone: a tag of an image with other tags can be removed while it is used
	same(t, "holders after docker rmi", w.holders(t, ref), "")

	unknown := do(t, w.docker("pull", strings.Replace(ref, "bird:1", "bird:none", 1)))
	same(t, "exit code of pulling what does not exist", unknown.code, 1)
	contains(t, "its text", unknown.err, "Error response from daemon: manifest for", "bird:none not found")
	contains(t, "a repository that does not exist", fails(t, w.docker("pull", strings.Replace(ref, "bird", "nobird", 1))), "nobird not found")
}

// A create whose image nobody has is pulled by the client, with its credentials, on the node that was chosen and no other.
func TestRunPullsOnTheChosenNode(t *testing.T) {
	w := fleet(t)
	addr := w.registry(t)
	ref := addr + "/chosen:1"
	must(t, w.docker("tag", "busybox", ref))
	must(t, w.docker("push", ref))
	must(t, w.docker("rmi", ref))
	r := do(t, w.docker("run", "--name", "pulls", "-e", "constraint:node==host3", ref, "echo", "pulled"))
	same(t, "output", r.out, "pulled\n")
	contains(t, "progress", r.err, "Unable to find image '"+ref+"' locally", "Status: Downloaded newer image")
	same(t, "holders", w.holders(t, ref), "host3")
	same(t, "node", w.nodeOf(t, "pulls"), "host3")
	// From there it is carried to where it is needed, without the registry.
	same(t, "elsewhere", must(t, w.docker("run", "--rm", "-e", "constraint:node==host1", "--pull", "never", ref, "echo", "carried")), "carried")
	must(t, w.docker("rm", "pulls"))
	must(t, w.docker("rmi", ref))
	missing := do(t, w.docker("run", addr+"/missing:1", "true"))
	same(t, "exit code for an image that nobody has", missing.code, 125)
	contains(t, "its text", missing.err, "Unable to find image", "missing not found")
}

// build, tag, history, save, load, import, inspect, rmi.
func TestImages(t *testing.T) {
	w := fleet(t)
	dir := write(t, "Dockerfile", "FROM busybox\nARG WORD\nCOPY word /word\nRUN echo built $WORD >/built\nCMD [\"cat\",\"/built\",\"/word\"]\nLABEL made=here\n")
	if err := os.WriteFile(filepath.Join(dir, "word"), []byte("from the context\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		do(t, w.docker("rmi", "-f", "built:1", "built:2", "built:3", "loaded:1", "saved:1", "imported:1"))
	})
	build := func(tag string) string {
		return must(t, with(w.docker("build", "-t", tag, "--build-arg", "WORD="+tag, dir), "DOCKER_BUILDKIT=0"))
	}
	contains(t, "docker build", build("built:1"), "Step 1/6", "Successfully built", "Successfully tagged built:1")
	for _, node := range []string{"host1", "host2", "host3"} { // a built image is usable everywhere
		same(t, "run on "+node, must(t, w.docker(args("run --rm", on(node), "built:1")...)), "built built:1\nfrom the context")
	}
	must(t, with(w.old("build", "-q", "-t", "built:2", "--build-arg", "WORD=two", dir), "DOCKER_BUILDKIT=0"))
	same(t, "built by the old client", must(t, w.docker("run", "--rm", "built:2")), "built two\nfrom the context")
	contains(t, "a build that fails", fails(t, with(feed(w.docker("build", "-"), strings.NewReader("FROM busybox\nRUN exit 3\n")), "DOCKER_BUILDKIT=0")), "returned a non-zero code: 3")
	// The last meaning of a tag counts, wherever it was given.
	must(t, with(feed(w.docker("build", "-t", "built:1", "-"), strings.NewReader("FROM busybox\nCMD echo newer\n")), "DOCKER_BUILDKIT=0"))
	for _, node := range []string{"host1", "host2", "host3"} {
		same(t, "the newer one on "+node, must(t, w.docker(args("run --rm", on(node), "built:1")...)), "newer")
	}
	must(t, w.docker("tag", "built:1", "built:3"))
	same(t, "tags of one image", must(t, w.docker("inspect", "--format", "{{.Id}}", "built:1")), must(t, w.docker("inspect", "--format", "{{.Id}}", "built:3")))
	contains(t, "docker history", must(t, w.docker("history", "built:2")), "COPY", "LABEL made=here")
	contains(t, "docker images", must(t, w.docker("images", "--filter", "label=made=here")), "built", "2")
	contains(t, "docker images --filter reference", must(t, w.docker("images", "--filter", "reference=built:*")), "built")

	// One archive of two images, removed everywhere, and loaded everywhere.
	file := filepath.Join(dir, "images.tar")
	must(t, w.docker("tag", "built:2", "saved:1"))
	must(t, w.docker("save", "-o", file, "saved:1", "built:3"))
	must(t, w.docker("rmi", "saved:1", "built:3"))
	contains(t, "docker load", must(t, w.docker("load", "-i", file)), "Loaded image: saved:1", "Loaded image: built:3")
	same(t, "holders after docker load", w.holders(t, "saved:1"), "host1 host2 host3")
	same(t, "piped", must(t, w.at(`docker save saved:1 | docker load | grep -c 'saved:1'`)), "1")
	contains(t, "docker load of nothing", fails(t, feed(w.docker("load"), strings.NewReader("this is no archive"))), "Error")

	tree := filepath.Join(dir, "tree.tar")
	must(t, w.at(`docker create --name source busybox; docker export source >`+tree+`; docker rm source`))
	must(t, w.docker("import", "-c", "ENV FROM=tar", "-m", "brought", tree, "imported:1"))
	same(t, "holders after docker import", w.holders(t, "imported:1"), "host1 host2 host3")
	same(t, "run it", must(t, w.docker("run", "--rm", "imported:1", "sh", "-c", "echo $FROM")), "tar")

	must(t, w.docker("create", "--name", "uses", "-e", "constraint:node==host3", "imported:1", "sh"))
	contains(t, "rmi of an image in use", fails(t, w.docker("rmi", "imported:1")), "conflict: unable to remove repository reference", "imported:1")
	same(t, "it is untouched everywhere", w.holders(t, "imported:1"), "host1 host2 host3")
	must(t, w.docker("rm", "uses"))
	contains(t, "docker rmi", must(t, w.docker("rmi", "imported:1")), "Untagged: imported:1", "Deleted: sha256:")
	same(t, "holders after docker rmi", w.holders(t, "imported:1"), "")
	contains(t, "inspect of what is gone", fails(t, w.docker("image", "inspect", "imported:1")), "No such image: imported:1")
}

// An image on three nodes is one row, and every question gets the same answer.
func TestOneImageOnManyNodes(t *testing.T) {
	w := fleet(t)
	var list []struct {
		ID       string `json:"Id"`
		RepoTags []string
	}
	w.get(t, "/v1.41/images/json", &list)
	rows := 0
	for _, i := range list {
		if strings.Contains(fmt.Sprint(i.RepoTags), "busybox:latest") {
			rows++
		}
	}
	same(t, "rows of busybox", rows, 1)
	first := ""
	for range 30 {
		var img struct{ ID string }
		w.get(t, "/images/busybox/json", &img)
		if first == "" {
			first = img.ID
		}
		if img.ID != first {
			t.Fatalf("the image is %s, then %s", first, img.ID)
		}
	}
	var pruned struct{ ImagesDeleted []json.RawMessage }
	a := w.api(t, "POST", "/images/prune", "")
	if err := json.Unmarshal([]byte(a.body), &pruned); err != nil || a.status != http.StatusOK {
		t.Errorf("images/prune: %d %s", a.status, a.body)
	}
	same(t, "busybox after a prune", w.holders(t, "busybox"), "host1 host2 host3")
}
