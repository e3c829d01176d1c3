//go:build e2e

package e2e

import (
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/api/pkg/stdcopy"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"
)

// docker-py, the one that docker-compose 1.29 brings, for the rows of the walkthrough.
func TestDockerPy(t *testing.T) {
	w := fleet(t)
	for name, script := range map[string]string{
		"S5 info": `
i = client.info()
assert i['Nodes'] and len(i['Nodes']) == 3, i
rows = dict((k.strip(), v) for k, v in i['SystemStatus'])
assert rows['Strategy'] == 'spread' and rows['Nodes'] == '3', rows
assert client.version()['ApiVersion'] == '1.41'
assert client.ping()
`,
		"S6 run, logs, list": `
assert client.containers.run('busybox', 'echo Hello Swarm', remove=True) == b'Hello Swarm\n'
c = client.containers.run('busybox', 'echo Hello Swarm', name='hello-swarm', detach=True)
assert c.wait()['StatusCode'] == 0
assert c.logs() == b'Hello Swarm\n'
[x] = client.containers.list(all=True, filters={'name': 'hello-swarm'})
assert x.attrs['Node']['Name'].startswith('host'), x.attrs
try:
    client.containers.run('busybox', 'false', remove=True)
    raise Exception('no error')
except docker.errors.ContainerError as e:
    assert e.exit_status == 1
`,
		"S10 spread": `
for i in range(9):
    client.containers.create('busybox', 'true', labels={'py': 'spread'})
nodes = [c.attrs['Node']['Name'] for c in client.containers.list(all=True, filters={'label': 'py=spread'})]
assert sorted(nodes.count(n) for n in set(nodes)) == [3, 3, 3], nodes
`,
		"S11, S12 rules": `
c = client.containers.create('busybox', 'true', name='pg', environment=['constraint:size==xxl'], mem_limit='64m', cpu_shares=512)
assert client.containers.get('pg').attrs['Node']['Name'] == 'host3'
d = client.containers.create('busybox', 'true', environment=['affinity:container==pg'])
d.reload(); assert d.attrs['Node']['Name'] == 'host3'
try:
    client.containers.create('busybox', 'true', environment=['constraint:size==none'])
    raise Exception('no error')
except docker.errors.APIError as e:
    assert e.status_code == 503 and 'no node fits' in e.explanation, e
`,
		"S14 ports": `
nodes = set()
for i in range(3):
    c = client.containers.run('busybox', 'sleep 1000', detach=True, ports={'80/tcp': 8085})
    c.reload(); nodes.add(c.attrs['Node']['Name'])
assert len(nodes) == 3
try:
    client.containers.create('busybox', 'true', ports={'80/tcp': 8085})
    raise Exception('no error')
except docker.errors.APIError as e:
    assert '8085/tcp' in e.explanation, e
`,
		"S15 dependencies": `
db = client.containers.run('busybox', 'sh -c "echo kept >/data/x; sleep 1000"', name='db', volumes={'pydata': {'bind': '/data'}}, detach=True, environment=['constraint:node==host2'])
time.sleep(0)
assert client.containers.run('busybox', 'sh -c "until cat /data/x; do sleep 0.1; done"', volumes_from=['db'], remove=True) == b'kept\n'
assert client.containers.run('busybox', 'hostname', network_mode='container:db', remove=True).decode().strip() == db.id[:12]
`,
		"exec, a hundred times": `
c = client.containers.run('busybox', 'sleep 1000', detach=True)
for i in range(100):
    code, out = c.exec_run('echo hi')
    assert (code, out) == (0, b'hi\n'), (i, code, out)
code, (out, err) = c.exec_run(['sh', '-c', 'echo o; echo e >&2; exit 3'], demux=True)
assert (code, out, err) == (3, b'o\n', b'e\n'), (code, out, err)
`,
		"attach with input": `
c = client.containers.create('busybox', 'cat', stdin_open=True)
s = c.attach_socket(params={'stdin': 1, 'stdout': 1, 'stream': 1})
c.start()
s._sock.sendall(b'through\n')
data = b''
while b'through\n' not in data:
    data += s._sock.recv(100)
s.close()
c.kill()
`,
		"archives": `
import tarfile
c = client.containers.create('busybox', 'cat /in/file')
b = io.BytesIO(); f = tarfile.open(fileobj=b, mode='w'); i = tarfile.TarInfo('in/file'); i.size = 5; f.addfile(i, io.BytesIO(b'text\n')); f.close()
assert c.put_archive('/', b.getvalue())
stream, stat = c.get_archive('/in/file')
assert stat['size'] == 5, stat
got = tarfile.open(fileobj=io.BytesIO(b''.join(stream))).extractfile('file').read()
assert got == b'text\n', got
c.start(); c.wait(); assert c.logs() == b'text\n'
`,
		"images": `
img, logs = client.images.build(fileobj=io.BytesIO(b'FROM busybox\nCMD echo built\n'), tag='pybuilt:1', rm=True)
for node in ('host1', 'host2', 'host3'):
    assert client.containers.run('pybuilt:1', environment=['constraint:node==' + node], remove=True) == b'built\n', node
data = b''.join(client.images.get('pybuilt:1').save(named=True))
client.images.remove('pybuilt:1')
[x] = client.images.load(data)
assert 'pybuilt:1' in x.tags, x.tags
assert client.images.get('pybuilt:1').history()
client.images.remove('pybuilt:1')
try:
    client.images.get('pybuilt:1')
    raise Exception('no error')
except docker.errors.ImageNotFound:
    pass
`,
		"networks and volumes": `
n = client.networks.create('pynet', driver='bridge')
v = client.volumes.create('pyvol')
c = client.containers.run('busybox', 'sleep 1000', detach=True, network='pynet', volumes={'pyvol': {'bind': '/v'}})
n.reload(); assert [x.id for x in n.containers] == [c.id]
n.disconnect(c); n.connect(c, aliases=['me'])
assert b'PING' in c.exec_run('ping -c 1 me').output
c.remove(force=True); n.remove(); v.remove()
`,
		"events and stats": `
seen = []
events = client.events(decode=True, filters={'type': 'container', 'label': 'py=events'})
def watch():
    for e in events:
        seen.append((e['Action'], e['Actor']['Attributes']['node.name']))
        if e['Action'] == 'destroy': return
t = threading.Thread(target=watch); t.start()
c = client.containers.run('busybox', 'sleep 1000', detach=True, labels={'py': 'events'})
s = c.stats(stream=False)
assert s['memory_stats']['usage'] > 0, s
assert 'sleep' in str(c.top()['Processes'])
c.remove(force=True)
t.join(20); assert not t.is_alive()
events.close()
assert [a for a, n in seen if a in ('create', 'start', 'die', 'destroy')] == ['create', 'start', 'die', 'destroy'], seen
`,
		"errors": `
def status(f):
    try:
        f()
    except docker.errors.APIError as e:
        return e.status_code
assert status(lambda: client.containers.get('nobody')) == 404
client.containers.create('busybox', name='twice')
assert status(lambda: client.containers.create('busybox', name='twice')) == 409
assert status(lambda: client.containers.create('nothing:none')) == 404
assert status(lambda: client.services.list()) == 503
assert status(lambda: client.api.create_container('busybox', environment=['constraint:a>b'])) == 400
`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Cleanup(func() { w.sweep(t) })
			must(t, w.python(script))
		})
	}
}

// moby's own client in Go, with its strict reading of answers.
func TestGoClient(t *testing.T) {
	w := fleet(t)
	c, err := client.New(client.WithHost("unix://" + w.socket))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ctx := t.Context()
	info, err := c.Info(ctx, client.InfoOptions{})
	if err != nil {
		t.Fatal(err)
	}
	same(t, "Swarm", info.Info.Swarm.LocalNodeState, "inactive")
	for i := range 20 {
		created, err := c.ContainerCreate(ctx, client.ContainerCreateOptions{
			Name:   fmt.Sprintf("go%d", i),
			Config: &container.Config{Image: "busybox", Cmd: []string{"sh", "-c", "cat; exit 2"}, OpenStdin: true, StdinOnce: true, AttachStdin: true, AttachStdout: true},
		})
		if err != nil {
			t.Fatal(err)
		}
		attached, err := c.ContainerAttach(ctx, created.ID, client.ContainerAttachOptions{Stream: true, Stdin: true, Stdout: true, Stderr: true})
		if err != nil {
			t.Fatal(err)
		}
		waiting := c.ContainerWait(ctx, created.ID, client.ContainerWaitOptions{Condition: container.WaitConditionNextExit})
		if _, err := c.ContainerStart(ctx, created.ID, client.ContainerStartOptions{}); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(attached.Conn, "hello\n"); err != nil {
			t.Fatal(err)
		}
		if err := attached.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		var out, errs strings.Builder
		if _, err := stdcopy.StdCopy(&out, &errs, attached.Reader); err != nil {
			t.Fatal(err)
		}
		attached.Close()
		same(t, "what came back", out.String(), "hello\n")
		select {
		case res := <-waiting.Result:
			same(t, "exit code", res.StatusCode, 2)
		case err := <-waiting.Error:
			t.Fatal(err)
		case <-time.After(20 * time.Second):
			t.Fatal("wait does not end")
		}
		got, err := c.ContainerInspect(ctx, fmt.Sprintf("go%d", i), client.ContainerInspectOptions{})
		if err != nil || got.Container.State.ExitCode != 2 {
			t.Fatalf("inspect: %v", err)
		}
		if _, err := c.ContainerRemove(ctx, created.ID, client.ContainerRemoveOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	list, err := c.ContainerList(ctx, client.ContainerListOptions{All: true})
	if err != nil {
		t.Fatal(err)
	}
	same(t, "containers left", len(list.Items), 0)
	for what, ask := range map[string]func() error{
		"images":   func() error { _, err := c.ImageList(ctx, client.ImageListOptions{}); return err },
		"networks": func() error { _, err := c.NetworkList(ctx, client.NetworkListOptions{}); return err },
		"volumes":  func() error { _, err := c.VolumeList(ctx, client.VolumeListOptions{}); return err },
		"usage":    func() error { _, err := c.DiskUsage(ctx, client.DiskUsageOptions{}); return err },
		"version":  func() error { _, err := c.ServerVersion(ctx, client.ServerVersionOptions{}); return err },
	} {
		if err := ask(); err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// Debian's docker 20.10, whose answers come from an API of its own time.
func TestOldClient(t *testing.T) {
	w := fleet(t)
	contains(t, "docker --version", must(t, w.command(oldClient, "--version")), "20.10")
	must(t, w.old("run", "-d", "--name", "old", "-p", "8090:80", "-v", "oldvol:/v", "--label", "age=old", "busybox", "sh", "-c", "echo said; sleep 1000"))
	eventually(t, 5*time.Second, "docker logs", func() bool { return do(t, w.old("logs", "old")).out == "said\n" })
	contains(t, "docker ps", must(t, w.old("ps")), "old", "0.0.0.0:8090->80/tcp")
	same(t, "docker exec", must(t, w.old("exec", "old", "echo", "hi")), "hi")
	same(t, "docker inspect", must(t, w.old("inspect", "--format", "{{.Node.Name}}", "old")), w.nodeOf(t, "old"))
	same(t, "docker stats", must(t, w.old("stats", "--no-stream", "--format", "{{.Name}}", "old")), "old")
	same(t, "docker cp", must(t, w.sh(oldClient+` -H unix://`+w.socket+` cp old:/etc/passwd - | tar xO`)), "root:x:0:0:root:/:/bin/sh")
	contains(t, "docker images", must(t, w.old("images")), "busybox")
	contains(t, "docker network ls", must(t, w.old("network", "ls")), "bridge", "host", "none")
	contains(t, "docker system df", must(t, w.old("system", "df")), "Containers", "Local Volumes")
	must(t, w.old("stop", "-t", "0", "old"))
	must(t, w.old("commit", "old", "olded:1"))
	must(t, w.old("rmi", "olded:1"))
	must(t, w.old("rm", "-v", "old"))
	must(t, w.old("volume", "rm", "oldvol"))
	contains(t, "a refusal", fails(t, w.old("run", "-e", "constraint:size==none", "busybox")), "no node fits")
	contains(t, "what is not there", fails(t, w.old("inspect", "nobody")), "No such object: nobody")
	same(t, "curl", must(t, w.command("curl", "-s", "--unix-socket", w.socket, "http://x/_ping")), "OK")
	contains(t, "curl -I", must(t, w.command("curl", "-sI", "--unix-socket", w.socket, "http://x/_ping")), "200 OK", "Api-Version: 1.41")
}
