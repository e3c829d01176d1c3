//go:build e2e

package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// S6: run somewhere, read its logs, see where it runs.
func TestRunLogsAndPs(t *testing.T) {
	w := fleet(t)
	must(t, w.docker("run", "-t", "-d", "--name", "hello-swarm", "busybox", "echo", "Hello Swarm"))
	must(t, w.docker("wait", "hello-swarm"))
	if got := strings.TrimSpace(must(t, w.docker("logs", "hello-swarm"))); got != "Hello Swarm" {
		t.Errorf("docker logs = %q", got)
	}
	row := must(t, w.docker("ps", "-a", "-f", "name=hello-swarm", "--format", `{{.Names}} {{.Status}} {{.Label "berth.node"}}`))
	contains(t, "docker ps", row, "hello-swarm Exited (0)", "host")
	contains(t, "docker inspect", must(t, w.docker("inspect", "hello-swarm")), `"Node": {`)
}

// S10: spread evens out.
func TestSpread(t *testing.T) {
	w := fleet(t)
	for i := range 9 {
		must(t, w.docker("run", "-d", "--label", "test=spread", "--name", fmt.Sprintf("s%d", i), "busybox", "sleep", "1000"))
	}
	if got := w.nodes(t, "label=test=spread"); got["host1"] != 3 || got["host2"] != 3 || got["host3"] != 3 {
		t.Errorf("9 containers by node: %v, want 3 each", got)
	}
}

// S14: one port once per node, then a refusal that says why.
func TestPortFilter(t *testing.T) {
	w := fleet(t)
	seen := map[string]bool{}
	for i := range 3 {
		name := fmt.Sprintf("web%d", i)
		must(t, w.docker("run", "-d", "--name", name, "-p", "80:80", "busybox", "sleep", "1000"))
		seen[w.nodeOf(t, name)] = true
	}
	if len(seen) != 3 {
		t.Errorf("three containers with one host port are on %v", seen)
	}
	r := do(t, w.docker("run", "-d", "--name", "web3", "-p", "80:80", "busybox", "sleep", "1000"))
	if r.code != 125 {
		t.Errorf("the fourth exits with %d, want 125", r.code)
	}
	contains(t, "the refusal", r.err, "no node fits web3", "80/tcp", "Unable to find a node that satisfies")
	must(t, w.docker("run", "-d", "--name", "dns", "-p", "80:80/udp", "busybox", "sleep", "1000"))
}

// S10: binpack fills a node before the next, random is random, spread is the default.
func TestStrategies(t *testing.T) {
	w := fleet(t)
	place := func(t *testing.T, strategy string) map[string]int {
		second := w.secondServe(t, "--strategy", strategy)
		contains(t, "docker info", must(t, second.docker("info")), "Strategy: "+strategy)
		for range 9 {
			must(t, second.docker("create", "--label", "test="+strategy, "busybox", "true"))
		}
		return second.nodes(t, "label=test="+strategy)
	}
	if got := place(t, "binpack"); len(got) != 1 {
		t.Errorf("binpack put 9 containers on %v, want one node", got)
	}
	// Nine times the same node by chance: once in 6,561.
	if got := place(t, "random"); len(got) < 2 {
		t.Errorf("random put 9 containers on %v", got)
	}
	contains(t, "a strategy that there is not", fails(t, w.command("berth", "serve", "--no-context", "-H", "unix://"+t.TempDir()+"/s", "--strategy", "tidy")), "strategy", "tidy")
}

// S11 and S13: constraints by engine label, by the node's facts, exact, glob and regular expression, with == and =.
func TestConstraints(t *testing.T) {
	w := fleet(t)
	id := w.node(t, "host2").ID
	short, _, _ := strings.Cut(id, "|")
	kernel := must(t, w.docker("info", "--format", "{{.KernelVersion}}"))
	for i, tt := range []struct{ rule, node string }{
		{"constraint:size==xxl", "host3"},
		{"constraint:size=xxl", "host3"},
		{"constraint:size!=small", "host3"},
		{"constraint:disk==s*", "host2"},
		{"constraint:zone==/^[a-a]$/", "host1"},
		{"constraint:zone=/(?i)A/", "host1"},
		{"constraint:node==host2", "host2"},
		{"constraint:node=host2", "host2"},
		{"constraint:node==" + id, "host2"},
		{"constraint:node==" + short, "host2"},
		{"constraint:node==/host[13]/", "host1 host3"},
		{"constraint:node!=host[12]", "host1 host2 host3"}, // a glob, not a regular expression: no node has this name
		{"constraint:size==~xxl", "host3"},
		{"constraint:size==~none", "host1 host2 host3"},
		{"constraint:storagedriver==" + must(t, w.docker("info", "--format", "{{.Driver}}")), "host1 host2 host3"},
		{"constraint:kernelversion==" + kernel, "host1 host2 host3"},
		{"constraint:kernelversion==" + kernel[:3] + "*", "host1 host2 host3"},
		{"constraint:operatingsystem==*Debian*", "host1 host2 host3"},
		{"constraint:ostype==linux", "host1 host2 host3"},
	} {
		name := fmt.Sprintf("c%d", i)
		must(t, w.docker("create", "-e", tt.rule, "--name", name, "busybox", "true"))
		if got := w.nodeOf(t, name); !strings.Contains(tt.node, got) {
			t.Errorf("%s put the container on %s, want %s", tt.rule, got, tt.node)
		}
	}
	same(t, "the rule does not reach the container", must(t, w.docker("inspect", "--format", "{{.Config.Env}}", "c0")), "[]")
	contains(t, "the label of classic Swarm", must(t, w.docker("inspect", "--format", "{{json .Config.Labels}}", "c0")), "com.docker.swarm.constraints", "com.docker.swarm.id")
	refusal := fails(t, w.docker("create", "-e", "constraint:size==xxl", "-e", "constraint:zone==a", "busybox"))
	contains(t, "a refusal", refusal, "no node fits", "size==xxl", "zone==a", "Unable to find a node that satisfies the following conditions", "[size==xxl zone==a]")
	// The same as labels, as Compose files have them.
	must(t, w.docker("create", "--label", `com.docker.swarm.constraints=["size==xxl"]`, "--name", "labelled", "busybox"))
	same(t, "node by label", w.nodeOf(t, "labelled"), "host3")
}

// S11: memory and CPUs are reserved, and a container that does not fit is refused.
func TestResources(t *testing.T) {
	w := fleet(t)
	n := w.node(t, "host3")
	must(t, w.docker("create", "--name", "postgres", "-e", "constraint:size==xxl", "-m", "512m", "-c", "512", "busybox"))
	same(t, "node of postgres", w.nodeOf(t, "postgres"), "host3")
	same(t, "its memory and shares", must(t, w.docker("inspect", "--format", "{{.HostConfig.Memory}} {{.HostConfig.CpuShares}}", "postgres")), "536870912 512")
	must(t, w.docker("create", "--name", "half", "--cpus", "0.5", "-e", "constraint:node==host3", "busybox"))
	must(t, w.docker("create", "--name", "quota", "--cpu-quota", "25000", "-e", "constraint:node==host3", "busybox"))
	now := w.node(t, "host3")
	same(t, "reserved memory", now.ReservedMemory, 512<<20)
	same(t, "reserved CPUs", now.ReservedNanoCPUs, 750_000_000)
	contains(t, "docker info", must(t, w.docker("info")), "Reserved CPUs: 0.75 / ", "Reserved Memory: 512MiB / ")
	tooMuch := fmt.Sprint(n.Memory*2) + "b"
	r := do(t, w.docker("run", "-d", "-m", tooMuch, "busybox", "true"))
	same(t, "exit code", r.code, 125)
	contains(t, "the refusal", r.err, "no node fits", "memory", "no resources available to schedule container")
	lacks(t, "the refusal", r.err, "Unable to find image")
	contains(t, "too many CPUs", fails(t, w.docker("create", "--cpus", fmt.Sprint(n.CPUs), "-e", "constraint:node==host3", "busybox")), "CPU")
	must(t, w.docker("update", "-m", "256m", "--memory-swap", "-1", "postgres"))
	same(t, "reserved memory after docker update", w.node(t, "host3").ReservedMemory, 256<<20)
	must(t, w.docker("rm", "postgres", "half", "quota"))
	same(t, "reserved after docker rm", w.node(t, "host3").ReservedNanoCPUs+w.node(t, "host3").ReservedMemory, 0)
}

// S12: affinities to images, containers and container labels; hard and soft; the single =.
func TestAffinities(t *testing.T) {
	w := fleet(t)
	// nginx is on host2 only: what is put there by itself stays there until somebody needs it elsewhere.
	must(t, w.sh(`eval "$(berth env host2)"; docker tag busybox nginx:1; docker tag busybox nginx`))
	eventually(t, 5*time.Second, "the tag is seen", func() bool { return do(t, w.docker("image", "inspect", "nginx:1")).code == 0 })
	t.Cleanup(func() { must(t, w.docker("rmi", "nginx:1", "nginx")) })
	must(t, w.docker("create", "--name", "front", "--label", "tier=front", "-e", "constraint:node==host1", "busybox"))
	id := must(t, w.docker("inspect", "--format", "{{.Id}}", "front"))
	for i, tt := range []struct{ rule, node string }{
		{"affinity:image==nginx", "host2"},
		{"affinity:image=nginx", "host2"},
		{"affinity:image==nginx:1", "host2"},
		{"affinity:image!=nginx", "host1 host3"},
		{"affinity:image==~nginx", "host2"},
		{"affinity:image=~nginx", "host2"},
		{"affinity:image==~redis", "host1 host2 host3"},
		{"affinity:container==front", "host1"},
		{"affinity:container=front", "host1"},
		{"affinity:container==" + id, "host1"},
		{"affinity:container==fr*", "host1"},
		{"affinity:container!=front", "host2 host3"},
		{"affinity:container!=~front", "host2 host3"},
		{"affinity:tier==front", "host1"},
		{"affinity:tier!=front", "host2 host3"},
		{"affinity:tier==/^(front|back)$/", "host1"},
	} {
		name := fmt.Sprintf("a%d", i)
		must(t, w.docker("create", "-e", tt.rule, "--name", name, "busybox", "true"))
		if got := w.nodeOf(t, name); !strings.Contains(tt.node, got) {
			t.Errorf("%s put the container on %s, want %s", tt.rule, got, tt.node)
		}
	}
	contains(t, "a refusal", fails(t, w.docker("create", "-e", "affinity:image==redis", "busybox")), "no node fits", "image==redis")
	contains(t, "a refusal", fails(t, w.docker("create", "-e", "affinity:container==nobody", "busybox")), "no node fits", "container==nobody")
	// Three that avoid each other are on three nodes, and a fourth is refused.
	for i := range 3 {
		must(t, w.docker("create", "--label", "alone=yes", "-e", "affinity:alone!=yes", "--name", fmt.Sprintf("alone%d", i), "busybox"))
	}
	same(t, "nodes of those that avoid each other", len(w.nodes(t, "label=alone=yes")), 3)
	fails(t, w.docker("create", "--label", "alone=yes", "-e", "affinity:alone!=yes", "busybox"))
}

// S15: a container is where the containers are that it depends on.
func TestDependencies(t *testing.T) {
	w := fleet(t)
	must(t, w.docker("run", "-d", "--name", "db", "-v", "/data", "-e", "constraint:node==host2", "busybox", "sh", "-c", "echo kept >/data/file; sleep 1000"))
	for range 3 { // so that host2 is the fullest
		must(t, w.docker("create", "-e", "constraint:node==host2", "busybox"))
	}
	same(t, "--link", must(t, w.docker("run", "--rm", "--name", "linked", "--link", "db:database", "busybox", "grep", "-c", "database", "/etc/hosts")), "1")
	same(t, "--volumes-from", must(t, w.docker("run", "--rm", "--volumes-from", "db", "busybox", "cat", "/data/file")), "kept")
	hostname := must(t, w.docker("exec", "db", "hostname"))
	same(t, "--net container", must(t, w.docker("run", "--rm", "--net", "container:db", "busybox", "hostname")), hostname)
	same(t, "--ipc and --pid container", must(t, w.docker("run", "--rm", "--pid", "container:db", "--ipc", "shareable", "busybox", "sh", "-c", "ps | grep -c '[s]leep 1000'")), "1")
	for _, dep := range [][]string{{"--link", "db"}, {"--volumes-from", "db:ro"}, {"--net", "container:db"}, {"--link", "host2/db:x"}} {
		id := must(t, w.docker(args("create", dep, "busybox")...))
		same(t, strings.Join(dep, " "), w.nodeOf(t, id), "host2")
	}
	must(t, w.docker("create", "--name", "far", "-v", "/v", "-e", "constraint:node==host3", "busybox"))
	contains(t, "two dependencies on two nodes", fails(t, w.docker("create", "--volumes-from", "db", "--volumes-from", "far", "busybox")), "no node")
	contains(t, "a dependency on nobody", fails(t, w.docker("create", "--link", "nobody:x", "busybox")), "nobody")
}

// A node can be named in front of a container's name, or in a header.
func TestNodeByNameAndHeader(t *testing.T) {
	w := fleet(t)
	must(t, w.docker("create", "--name", "host3/there", "busybox"))
	same(t, "node/name", w.nodeOf(t, "there"), "host3")
	same(t, "node/name finds it", must(t, w.docker("inspect", "--format", "{{.Node.Name}}", "host3/there")), "host3")
	contains(t, "node/name of another node", fails(t, w.docker("inspect", "host1/there")), "No such object: host1/there")
	a := w.api(t, "POST", "/v1.41/containers/create?name=headed", `{"Image":"busybox"}`, "X-Berth-Node", "host2")
	same(t, "status", a.status, 201)
	same(t, "node by header", w.nodeOf(t, "headed"), "host2")
	contains(t, "a node that is not", fails(t, w.docker("create", "--name", "host9/xyz", "busybox")), "host9")
}
