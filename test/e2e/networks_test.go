//go:build e2e

package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
)

// volumeNode and networkNode tell where something lives.
func (w *world) volumeNode(t *testing.T, name string) string {
	t.Helper()
	var v struct{ Node struct{ Name string } }
	w.get(t, "/volumes/"+name, &v)
	return v.Node.Name
}

func (w *world) networkNode(t *testing.T, name string) string {
	t.Helper()
	var n struct{ Node struct{ Name string } }
	w.get(t, "/networks/"+name, &n)
	return n.Node.Name
}

// A volume has one home, and the containers that use it go there.
func TestVolumesHaveAHome(t *testing.T) {
	w := fleet(t)
	must(t, w.docker("volume", "create", "--label", "kind=data", "vol"))
	home := w.volumeNode(t, "vol")
	must(t, w.docker("run", "--rm", "-v", "vol:/v", "busybox", "sh", "-c", "echo kept >/v/file"))
	for i := range 4 {
		name := fmt.Sprintf("reader%d", i)
		same(t, "what is in the volume", must(t, w.docker("run", "--name", name, "-v", "vol:/v:ro", "busybox", "cat", "/v/file")), "kept")
		same(t, "node of a container with the volume", w.nodeOf(t, name), home)
	}
	same(t, "by --mount", must(t, w.docker("run", "--rm", "--mount", "source=vol,target=/m", "busybox", "cat", "/m/file")), "kept")
	same(t, "created again it is the same", must(t, w.docker("volume", "create", "vol")), "vol")
	same(t, "docker volume ls", must(t, w.docker("volume", "ls", "--filter", "label=kind=data", "--format", `{{.Name}} {{.Driver}} {{.Label "berth.node"}}`)), "vol local "+home)
	same(t, "the same of the old client", must(t, w.old("volume", "ls", "-q")), "vol")
	contains(t, "rm of a volume in use", fails(t, w.docker("volume", "rm", "vol")), "volume is in use")
	same(t, "by node/name", must(t, w.docker("volume", "inspect", "--format", "{{.Name}}", home+"/vol")), "vol")

	// Two volumes on two nodes: no node can serve both.
	other := "host1"
	if home == other {
		other = "host2"
	}
	must(t, w.docker("run", "--rm", "-v", "far:/v", "-e", "constraint:node=="+other, "busybox", "touch", "/v/x"))
	same(t, "home of a volume that docker run made", w.volumeNode(t, "far"), other)
	a := w.api(t, "POST", "/v1.41/containers/create", `{"Image":"busybox","HostConfig":{"Binds":["vol:/a","far:/b"]}}`)
	same(t, "status of a contradiction", a.status, http.StatusBadRequest)
	contains(t, "its text", a.message(t), "volume vol is on "+home, "volume far is on "+other)
	contains(t, "a constraint against the home", fails(t, w.docker("run", "-v", "vol:/v", "-e", "constraint:node=="+other, "busybox")), "no node fits")

	must(t, w.docker("rm", "reader0", "reader1", "reader2", "reader3"))
	must(t, w.docker("volume", "rm", "vol", "far"))
	contains(t, "what is gone", strings.ToLower(fails(t, w.docker("volume", "inspect", "vol"))), "no such volume")
	same(t, "volume rm -f of nothing", do(t, w.docker("volume", "rm", "-f", "vol")).code, 0)
}

// A network has one home; names resolve in it; it moves as long as nothing used it.
func TestNetworksHaveAHome(t *testing.T) {
	w := fleet(t)
	id := must(t, w.docker("network", "create", "--label", "kind=net", "--subnet", "10.99.1.0/24", "net"))
	home := w.networkNode(t, "net")
	contains(t, "the name is taken", fails(t, w.docker("network", "create", "net")), "network with name net already exists")
	must(t, w.docker("run", "-d", "--name", "server", "--network", "net", "--network-alias", "site", "--ip", "10.99.1.7", "busybox", "sh", "-c", "mkdir /w; echo hello >/w/index.html; exec httpd -f -h /w"))
	same(t, "node of the server", w.nodeOf(t, "server"), home)
	for _, name := range []string{"server", "site", "10.99.1.7"} {
		same(t, "by "+name, must(t, w.docker("run", "--rm", "--network", "net", "busybox", "wget", "-qO-", "http://"+name+"/index.html")), "hello")
	}
	same(t, "docker network ls", must(t, w.docker("network", "ls", "--filter", "label=kind=net", "--no-trunc", "--format", `{{.ID}} {{.Name}} {{.Driver}} {{.Label "berth.node"}}`)), id+" net bridge "+home)
	same(t, "the built-in ones, each once", lines(must(t, w.docker("network", "ls", "--filter", "type=builtin", "--format", "{{.Name}}"))), "[bridge host none]")
	contains(t, "docker network inspect", must(t, w.docker("network", "inspect", "net")), `"Name": "server"`, "10.99.1.7/24")

	// Connect and disconnect, on one node and over two.
	other := "host1"
	if home == other {
		other = "host2"
	}
	must(t, w.docker("run", "-d", "--name", "near", "-e", "constraint:node=="+home, "busybox", "sleep", "1000"))
	must(t, w.docker("run", "-d", "--name", "far", "-e", "constraint:node=="+other, "busybox", "sleep", "1000"))
	must(t, w.docker("network", "connect", "--alias", "friend", "net", "near"))
	same(t, "after docker network connect", must(t, w.docker("exec", "near", "wget", "-qO-", "http://site/index.html")), "hello")
	same(t, "in docker ps at once", must(t, w.docker("ps", "--filter", "network=net", "--filter", "name=near", "--format", "{{.Names}}")), "near")
	must(t, w.docker("network", "disconnect", "net", "near"))
	same(t, "after disconnect", must(t, w.docker("ps", "--filter", "network=net", "--filter", "name=near", "-q")), "")
	a := w.api(t, "POST", "/v1.41/networks/net/connect", `{"Container":"far"}`)
	same(t, "status of connecting over two nodes", a.status, http.StatusBadRequest)
	contains(t, "its text", a.message(t), home, other)

	contains(t, "rm of a network in use", fails(t, w.docker("network", "rm", "net")), "has active endpoints")
	must(t, w.docker("rm", "-f", "server"))
	must(t, w.docker("network", "rm", "net"))
	contains(t, "what is gone", fails(t, w.docker("network", "inspect", "net")), "net")
	same(t, "its status", w.api(t, "GET", "/networks/net", "").status, http.StatusNotFound)
	contains(t, "a container in no network", fails(t, w.docker("run", "--network", "none-such", "busybox")), "none-such")
	same(t, "status of removing bridge", w.api(t, "DELETE", "/networks/bridge", "").status, http.StatusForbidden)

	// What nothing has used yet follows the first container.
	for _, node := range []string{"host1", "host2", "host3"} {
		must(t, w.docker("network", "create", "moves"))
		must(t, w.docker("volume", "create", "moves"))
		must(t, w.docker("run", "--rm", "--network", "moves", "-v", "moves:/v", "-e", "constraint:node=="+node, "busybox", "true"))
		same(t, "home of the network", w.networkNode(t, "moves"), node)
		same(t, "home of the volume", w.volumeNode(t, "moves"), node)
		must(t, w.docker("network", "rm", "moves"))
		must(t, w.docker("volume", "rm", "moves"))
	}
	// By node/name, also in docker run.
	must(t, w.docker("network", "create", "host2/placed"))
	same(t, "home of host2/placed", w.networkNode(t, "placed"), "host2")
	must(t, w.docker("run", "--name", "in", "--network", "host2/placed", "busybox", "true"))
	same(t, "node of what is in it", w.nodeOf(t, "in"), "host2")
}

// Containers without ties spread although they are of one project, and networks of many projects are spread.
func TestProjectsSpread(t *testing.T) {
	w := fleet(t)
	homes := map[string]int{}
	for i := range 6 {
		label := fmt.Sprintf("com.docker.compose.project=p%d", i)
		name := fmt.Sprintf("p%d_default", i)
		must(t, w.docker("network", "create", "--label", label, name))
		must(t, w.docker("volume", "create", "--label", label, fmt.Sprintf("p%d_data", i)))
		home := w.networkNode(t, name)
		same(t, "home of the project's volume", w.volumeNode(t, fmt.Sprintf("p%d_data", i)), home)
		must(t, w.docker("create", "--label", label, "--network", name, "busybox"))
		homes[home]++
	}
	same(t, "nodes that six projects are on", len(homes), 3)
	var list []json.RawMessage
	w.get(t, "/networks?filters="+`{"label":{"com.docker.compose.project=p3":true}}`, &list)
	same(t, "networks by label, as Compose asks", len(list), 1)
}

// docker network prune, volume prune, container prune, system prune and system df are for all nodes.
func TestPruneAndUsage(t *testing.T) {
	w := fleet(t)
	for i, node := range []string{"host1", "host2", "host3"} {
		must(t, w.docker(args("run", on(node), "-v /anonymous -v", fmt.Sprintf("kept%d:/v", i), "busybox true")...))
		must(t, w.docker("network", "create", fmt.Sprintf("%s/unused%d", node, i)))
	}
	df := must(t, w.docker("system", "df", "--format", "{{.Type}} {{.TotalCount}} {{.Active}}"))
	contains(t, "docker system df", df, "Containers 3 0", "Local Volumes 6 6")
	contains(t, "docker system df -v", must(t, w.docker("system", "df", "-v")), "kept0", "kept1", "kept2")
	same(t, "docker container prune", strings.Count(must(t, w.docker("container", "prune", "-f")), "\n"), 5) // a head, three, an empty line, the sum
	same(t, "docker network prune", lines(must(t, w.docker("network", "prune", "-f"))), lines("Deleted Networks:\nunused0\nunused1\nunused2"))
	// These engines speak API 1.41, in which volumes with a name are pruned like others.
	contains(t, "docker volume prune", must(t, w.docker("volume", "prune", "-f")), "kept0", "kept1", "kept2", "Total reclaimed space")
	same(t, "volumes", must(t, w.docker("volume", "ls", "-q")), "")
	must(t, w.docker("create", "--name", "idle", "busybox"))
	must(t, w.docker("run", "-d", "--name", "busy", "busybox", "sleep", "1000"))
	contains(t, "docker system prune", must(t, w.docker("system", "prune", "-f", "--volumes")), "Deleted Containers:")
	same(t, "what is left", must(t, w.docker("ps", "-a", "--format", "{{.Names}}")), "busy")
}
