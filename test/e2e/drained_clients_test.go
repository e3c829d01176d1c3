//go:build e2e

package e2e

import (
	"strings"
	"testing"
	"time"
)

// Other people's clients see the nodes, steer them, and work on while one is drained.
func TestClientsWithADrainedNode(t *testing.T) {
	w := fleet(t)
	t.Cleanup(func() { must(t, w.docker("node", "update", "--availability", "active", "host2")) })
	// docker-py's own objects: what they send back is all that they were given, and the version of it.
	must(t, w.python(`
nodes = dict((n.attrs['Description']['Hostname'], n) for n in client.nodes.list())
assert sorted(nodes) == ['host1', 'host2', 'host3'], nodes
[n] = client.nodes.list(filters={'name': 'host2'})
assert n.id == nodes['host2'].id and n.attrs['Status']['State'] == 'ready' and n.attrs['Spec']['Role'] == 'worker', n.attrs
assert client.nodes.get(n.id).attrs['Description']['Hostname'] == 'host2'
assert client.nodes.get('host2').id == n.id
assert n.version == n.attrs['Version']['Index']
assert n.update(dict(n.attrs['Spec'], Availability='drain', Labels={'by': 'py'}))
try:
    n.update(dict(n.attrs['Spec'], Availability='active'))
    raise Exception('no error')
except docker.errors.APIError as e:
    assert 'out of sequence' in e.explanation, e
n.reload()
assert n.attrs['Spec']['Availability'] == 'drain' and n.attrs['Spec']['Labels'] == {'by': 'py'}, n.attrs
assert [x.id for x in client.nodes.list(filters={'role': 'manager'})] == []
assert [x.id for x in client.nodes.list(filters={'node.label': 'by=py'})] == [n.id]
try:
    client.nodes.get('nobody')
    raise Exception('no error')
except docker.errors.NotFound:
    pass
assert client.info()['Swarm']['LocalNodeState'] == 'inactive'
assert [c.attrs['Node']['Name'] for c in [client.containers.create('busybox', 'true') for i in range(6)] if (c.reload() or c.attrs['Node']['Name']) == 'host2'] == []
`))
	contains(t, "node ls", must(t, w.docker("node", "ls", "--format", "{{.Hostname}} {{.Status}} {{.Availability}}")), "host2 Ready Drain", "host1 Ready Active")
	same(t, "containers on host2", w.nodes(t, "name=.")["host2"], 0)
	// Compose makes, scales, recreates and removes a project beside it.
	dir := write(t, "docker-compose.yml", project)
	compose := func(args ...string) string {
		t.Helper()
		return must(t, w.compose(dir, append([]string{"-p", "drained"}, args...)...))
	}
	compose("up", "-d", "--scale", "web=3")
	if on := w.nodes(t, "label=com.docker.compose.project=drained"); on["host2"] != 0 || on["host1"]+on["host3"] != 4 {
		t.Errorf("containers by node: %v, want four, and none on host2", on)
	}
	same(t, "compose ps", len(lines(compose("ps", "-q"))), 4)
	home := w.nodeOf(t, "drained_writer_1")
	// The project's own node is drained: it has a network and a volume there, so it stays, and goes on working.
	must(t, w.docker("node", "update", "--availability", "drain", home))
	eventually(t, 20*time.Second, "it is said why the project stays", func() bool {
		return strings.Count(must(t, w.docker("node", "ps", "--no-trunc", home)), "not moved: ") == 4
	})
	same(t, "still there", w.nodes(t, "label=com.docker.compose.project=drained")[home], 4)
	compose("restart", "-t", "0", "writer")
	contains(t, "compose exec", compose("exec", "-T", "web", "wget", "-qO-", "http://localhost/"), "hello")
	contains(t, "compose logs", compose("logs", "--no-color", "writer"), "writer_1")
	compose("down", "-v", "-t", "0")
	must(t, w.docker("node", "update", "--availability", "active", home))
	// Up again, it is placed anew.
	compose("up", "-d")
	same(t, "containers on host2", w.nodes(t, "label=com.docker.compose.project=drained")["host2"], 0)
	compose("down", "-v", "-t", "0")
	must(t, w.docker("node", "update", "--availability", "active", "--label-rm", "by", "host2"))
}
