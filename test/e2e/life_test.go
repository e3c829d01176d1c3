//go:build e2e

package e2e

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// The flags of docker run reach the engine as they were given.
func TestRunFlagsPassThrough(t *testing.T) {
	w := fleet(t)
	must(t, w.docker("run", "-d", "--name", "flags", "--restart", "on-failure:3", "--health-cmd", "true", "--health-interval", "1s", "--health-retries", "2",
		"--ulimit", "nofile=1234:2345", "--cap-add", "NET_ADMIN", "--cap-drop", "MKNOD", "--tmpfs", "/scratch:size=1m", "--log-opt", "max-size=1m", "--log-opt", "max-file=2",
		"--hostname", "inside", "--add-host", "far:192.0.2.7", "--dns", "192.0.2.53", "--env", "A=b c", "--label", "role=test", "--workdir", "/tmp", "--user", "0:0",
		"--memory", "64m", "--memory-reservation", "32m", "--cpus", "0.5", "--cpu-shares", "256", "--pids-limit", "50", "--shm-size", "2m", "--sysctl", "net.ipv4.ip_unprivileged_port_start=0",
		"--read-only", "--init", "--stop-signal", "INT", "--stop-timeout", "2", "--security-opt", "no-new-privileges", "--device", "/dev/null:/dev/nothing",
		"--mount", "type=tmpfs,destination=/more", "-v", "named:/named", "-v", "/anonymous", "--expose", "7000", "-p", "127.0.0.1:7001:7001/udp", "--entrypoint", "sleep", "--oom-score-adj", "100", "busybox", "1000"))
	for format, want := range map[string]string{
		"{{json .HostConfig.RestartPolicy}}":          `{"Name":"on-failure","MaximumRetryCount":3}`,
		"{{json .Config.Healthcheck.Test}}":           `["CMD-SHELL","true"]`,
		"{{json .HostConfig.Ulimits}}":                `[{"Name":"nofile","Hard":2345,"Soft":1234}]`,
		"{{json .HostConfig.CapAdd}}":                 `NET_ADMIN`,
		"{{json .HostConfig.CapDrop}}":                `MKNOD`,
		"{{json .HostConfig.Tmpfs}}":                  `{"/scratch":"size=1m"}`,
		"{{json .HostConfig.LogConfig.Config}}":       `{"max-file":"2","max-size":"1m"}`,
		"{{.Config.Hostname}}":                        "inside",
		"{{json .HostConfig.ExtraHosts}}":             `["far:192.0.2.7"]`,
		"{{json .HostConfig.Dns}}":                    `["192.0.2.53"]`,
		"{{json .Config.Env}}":                        `A=b c`,
		"{{json .Config.Labels}}":                     `"role":"test"`,
		"{{.Config.WorkingDir}} {{.Config.User}}":     "/tmp 0:0",
		"{{.HostConfig.Memory}}":                      "67108864",
		"{{.HostConfig.NanoCpus}}":                    "500000000",
		"{{.HostConfig.CpuShares}}":                   "256",
		"{{.HostConfig.PidsLimit}}":                   "50",
		"{{.HostConfig.ShmSize}}":                     "2097152",
		"{{json .HostConfig.Sysctls}}":                "ip_unprivileged_port_start",
		"{{.HostConfig.ReadonlyRootfs}}":              "true",
		"{{.HostConfig.Init}}":                        "true",
		"{{.Config.StopSignal}}":                      "INT",
		"{{.Config.StopTimeout}}":                     "2",
		"{{json .HostConfig.SecurityOpt}}":            "no-new-privileges",
		"{{json .HostConfig.Devices}}":                "/dev/nothing",
		"{{json .HostConfig.Mounts}}":                 `"Target":"/more"`,
		"{{json .HostConfig.Binds}}":                  "named:/named",
		"{{json .Config.ExposedPorts}}":               `"7000/tcp":{}`,
		"{{json .HostConfig.PortBindings}}":           `"7001/udp":[{"HostIp":"127.0.0.1","HostPort":"7001"}]`,
		"{{json .Config.Entrypoint}} {{.Config.Cmd}}": `["sleep"] [1000]`,
		"{{.HostConfig.OomScoreAdj}}":                 "100",
	} {
		contains(t, "docker inspect "+format, must(t, w.docker("inspect", "--format", format, "flags")), want)
	}
	in := must(t, w.docker("exec", "flags", "sh", "-c", "hostname; pwd; ulimit -n; echo $A; grep far /etc/hosts; ls -d /named /anonymous /scratch /more /dev/nothing; touch /no 2>&1 || true"))
	contains(t, "inside", in, "inside\n/tmp\n1234\nb c\n192.0.2.7\tfar\n/anonymous\n/dev/nothing\n/more\n/named\n/scratch\n", "Read-only")
	eventually(t, 5*time.Second, "the health check is seen", func() bool {
		return must(t, w.docker("ps", "-q", "--filter", "health=healthy")) != ""
	})
	contains(t, "docker ps", must(t, w.docker("ps")), "(healthy)", "127.0.0.1:7001->7001/udp")
}

// One container through all that can happen to it; each step shows in the next command.
func TestContainerLife(t *testing.T) {
	w := fleet(t)
	state := func() string { return must(t, w.docker("ps", "-a", "--filter", "name=life", "--format", "{{.State}}")) }
	inspected := func(format string) string { return must(t, w.docker("inspect", "--format", format, "life")) }

	must(t, w.docker("create", "--name", "life", "-m", "32m", "busybox", "sh", "-c", "trap 'exit 5' TERM; while :; do sleep 0.1; done"))
	same(t, "created", state(), "created")
	must(t, w.docker("start", "life"))
	same(t, "started", state(), "running")
	same(t, "start again", do(t, w.docker("start", "life")).code, 0)
	same(t, "status of starting what runs", w.api(t, "POST", "/containers/life/start", "").status, 304)
	must(t, w.docker("pause", "life"))
	same(t, "paused", state(), "paused")
	contains(t, "docker info", must(t, w.docker("info")), "(0 Running, 1 Paused, 0 Stopped)", " Paused: 1")
	must(t, w.docker("unpause", "life"))
	same(t, "unpaused", state(), "running")
	pid := inspected("{{.State.Pid}}")
	must(t, w.docker("restart", "life"))
	if inspected("{{.State.Pid}}") == pid {
		t.Error("docker restart did not restart")
	}
	must(t, w.docker("update", "--memory", "48m", "--memory-swap", "96m", "--restart", "no", "life"))
	same(t, "updated", inspected("{{.HostConfig.Memory}}"), 48<<20)
	must(t, w.docker("rename", "life", "life2"))
	must(t, w.docker("rename", "life2", "life"))
	fails(t, w.docker("inspect", "life2"))
	must(t, w.docker("stop", "life"))
	same(t, "stopped", state()+inspected(" {{.State.ExitCode}}"), "exited 5")
	same(t, "wait for what ended", must(t, w.docker("wait", "life")), "5")
	must(t, w.docker("start", "life"))
	waiting := background(t, w.docker("wait", "life"))
	must(t, w.docker("kill", "life"))
	same(t, "exit code of docker wait", ends(t, waiting), 0)
	same(t, "killed", state()+inspected(" {{.State.ExitCode}}"), "exited 137")
	must(t, w.docker("start", "life"))
	must(t, w.docker("kill", "-s", "TERM", "life"))
	same(t, "killed by TERM", must(t, w.docker("wait", "life")), "5")
	must(t, w.docker("start", "life"))
	contains(t, "rm of what runs", fails(t, w.docker("rm", "life")), "You cannot remove a running container")
	must(t, w.docker("rm", "-f", "life"))
	same(t, "removed", state(), "")
	same(t, "status of removing it again", w.api(t, "DELETE", "/containers/life", "").status, 404)
	contains(t, "inspect of what is gone", fails(t, w.docker("inspect", "life")), "No such object: life")
	contains(t, "start of what is gone", fails(t, w.docker("start", "life")), "No such container: life")
}

// Names are unique over the fleet, whichever node the second would be on.
func TestNamesAreTaken(t *testing.T) {
	w := fleet(t)
	id := must(t, w.docker("create", "--name", "taken", "-e", "constraint:node==host1", "busybox"))
	for _, node := range []string{"host1", "host2"} {
		r := do(t, w.docker("run", "--name", "taken", "-e", "constraint:node=="+node, "busybox", "true"))
		same(t, "exit code", r.code, 125)
		contains(t, "docker run", r.err, `The container name "/taken" is already in use by container "`+id+`". You have to remove (or rename) that container to be able to reuse that name.`)
	}
	must(t, w.docker("create", "--name", "other", "-e", "constraint:node==host2", "busybox"))
	contains(t, "docker rename", fails(t, w.docker("rename", "other", "taken")), `"/taken" is already in use`)
	same(t, "status of rename", w.api(t, "POST", "/containers/other/rename?name=taken", "").status, 409)
	// A name may be the beginning of an ID: then it is the name that counts.
	must(t, w.docker("create", "--name", id[:6], "-e", "constraint:node==host3", "busybox"))
	same(t, "the name before the ID", w.nodeOf(t, id[:6]), "host3")
	same(t, "the ID still works", w.nodeOf(t, id[:12]), "host1")
	same(t, "a name in front of a node", w.nodeOf(t, "host1/taken"), "host1")
}

// docker ps with all its filters, -n, -l, -s, -q and --format.
func TestPs(t *testing.T) {
	w := fleet(t)
	must(t, w.docker("volume", "create", "psvol"))
	must(t, w.docker("network", "create", "psnet"))
	must(t, w.docker("run", "-d", "--name", "one", "--label", "color=red", "--label", "size", "-p", "8080:80", "--expose", "9000", "web:1", "sleep", "1000"))
	must(t, w.docker("run", "-d", "--name", "two", "--label", "color=blue", "-v", "psvol:/v", "busybox", "sleep", "1000"))
	must(t, w.docker("run", "-d", "--name", "three", "--network", "psnet", "busybox", "sleep", "1000"))
	must(t, w.docker("run", "--name", "four", "busybox", "true"))
	if code := do(t, w.docker("run", "--name", "five", "busybox", "sh", "-c", "exit 7")).code; code != 7 {
		t.Errorf("exit code %d, want 7", code)
	}
	must(t, w.docker("create", "--name", "six", "busybox"))
	must(t, w.docker("pause", "two"))
	id := must(t, w.docker("inspect", "--format", "{{.Id}}", "three"))
	node := w.nodeOf(t, "one")
	var onNode []string
	for _, name := range []string{"one", "two", "three", "four", "five", "six"} {
		if w.nodeOf(t, name) == node {
			onNode = append(onNode, name)
		}
	}
	for filters, want := range map[string]string{
		"":                                     "three two one",
		"-a":                                   "six five four three two one",
		"-n 2":                                 "six five",
		"-l":                                   "six",
		"-a --filter status=exited":            "five four",
		"-a --filter status=created":           "six",
		"--filter status=paused":               "two",
		"--filter status=running":              "three one", // as engines say it, who is paused is not running
		"-a --filter exited=7":                 "five",
		"-a --filter name=t":                   "three two",
		"-a --filter name=^/?one$":             "one",
		"-a --filter id=" + id[:10]:            "three",
		"--filter label=color":                 "two one",
		"--filter label=color=red":             "one",
		"--filter volume=psvol":                "two",
		"--filter volume=/v":                   "two",
		"--filter network=psnet":               "three",
		"--filter ancestor=web:1":              "one",
		"--filter publish=8080":                "one",
		"--filter publish=80-8081":             "one",
		"--filter expose=9000":                 "one",
		"-a --filter before=three":             "two one",
		"-a --filter since=four":               "six five",
		"--filter health=none":                 "three two one",
		"--filter is-task=true":                "",
		"-a --filter node=" + node:             reversed(onNode),
		"-a --filter label=berth.node=" + node: reversed(onNode),
	} {
		got := strings.Join(strings.Fields(must(t, w.docker(args("ps --format {{.Names}}", filters)...))), " ")
		same(t, "docker ps "+filters, got, want)
	}
	contains(t, "an unknown filter", fails(t, w.docker("ps", "--filter", "colour=red")), "invalid filter 'colour'")
	contains(t, "a bad status", fails(t, w.docker("ps", "--filter", "status=asleep")), "asleep")
	same(t, "docker ps -q", must(t, w.docker("ps", "-q", "--no-trunc", "--filter", "network=psnet")), id)
	contains(t, "docker ps -s", must(t, w.docker("ps", "-s", "--filter", "name=one")), "virtual")
	contains(t, "docker ps", must(t, w.docker("ps")), "0.0.0.0:8080->80/tcp", "Up ", "(Paused)", "web:1")
	contains(t, "docker ps of the old client", must(t, w.old("ps", "-a")), "one", "two", "six", "Exited (7)")
}

func reversed(names []string) string {
	var out []string
	for i := len(names) - 1; i >= 0; i-- {
		out = append(out, names[i])
	}
	return strings.Join(out, " ")
}

// docker logs, whole and in part, and as it comes.
func TestLogs(t *testing.T) {
	w := fleet(t)
	must(t, w.docker("run", "-d", "--name", "talk", "busybox", "sh", "-c", "echo one; echo bad >&2; sleep 1.1; echo two; echo three; while [ ! -e /go ]; do sleep 0.05; done; echo four; sleep 1000"))
	eventually(t, 5*time.Second, "three lines", func() bool { return strings.Contains(do(t, w.docker("logs", "talk")).out, "three") })
	r := do(t, w.docker("logs", "talk"))
	same(t, "standard output", r.out, "one\ntwo\nthree\n")
	same(t, "standard error", r.err, "bad\n")
	same(t, "--tail", must(t, w.docker("logs", "--tail", "2", "talk")), "two\nthree")
	first, _, _ := strings.Cut(must(t, w.docker("logs", "-t", "--tail", "2", "talk")), " ")
	same(t, "--since", must(t, w.docker("logs", "--since", first, "talk")), "two\nthree")
	begin, _, _ := strings.Cut(r.out, "\n")
	first, _, _ = strings.Cut(do(t, w.docker("logs", "-t", "talk")).out, " ")
	same(t, "--until the first", do(t, w.docker("logs", "--until", first, "talk")).out, begin+"\n")
	follow := w.docker("logs", "-f", "--tail", "1", "talk")
	out := outputTo(t, follow)
	background(t, follow)
	eventually(t, 5*time.Second, "the tail", func() bool { return out.String() == "three\n" })
	must(t, w.docker("exec", "talk", "touch", "/go"))
	eventually(t, 2*time.Second, "what is written while docker logs -f runs", func() bool { return out.String() == "three\nfour\n" })
	must(t, w.docker("kill", "talk"))
	same(t, "exit code of docker logs -f after the end", ends(t, follow), 0)
}

// top, stats, diff, port, commit, export.
func TestLookInside(t *testing.T) {
	w := fleet(t)
	must(t, w.docker("run", "-d", "--name", "look", "-p", "8080:80", "-p", "5353:53/udp", "busybox", "sh", "-c", "echo hi >/new; sleep 1000"))
	contains(t, "docker top", must(t, w.docker("top", "look")), "PID", "sleep 1000")
	contains(t, "docker top -o", must(t, w.docker("top", "look", "-o", "pid,comm")), "COMMAND")
	stats := must(t, w.docker("stats", "--no-stream", "--format", "{{.Name}} {{.PIDs}}", "look"))
	same(t, "docker stats", stats, "look 1")
	streaming := w.docker("stats", "--format", "{{.Name}} {{.MemUsage}}")
	out := outputTo(t, streaming)
	background(t, streaming)
	eventually(t, 10*time.Second, "docker stats twice", func() bool { return strings.Count(out.String(), "look ") >= 2 })
	eventually(t, 5*time.Second, "the new file", func() bool { return strings.Contains(must(t, w.docker("diff", "look")), "A /new") })
	ports := func(words ...string) []string { // clients write IPv6 addresses in two ways
		return lines(strings.ReplaceAll(must(t, w.docker(append([]string{"port", "look"}, words...)...)), "[::]", "::"))
	}
	same(t, "docker port", ports(), "[53/udp -> 0.0.0.0:5353 53/udp -> :::5353 80/tcp -> 0.0.0.0:8080 80/tcp -> :::8080]")
	same(t, "docker port 80", ports("80"), "[0.0.0.0:8080 :::8080]")
	// What is committed on one node runs on another.
	must(t, w.docker("commit", "-m", "seen", "-c", "ENV X=y", "look", "looked:1"))
	t.Cleanup(func() { must(t, w.docker("rmi", "-f", "looked:1")) })
	for _, node := range []string{"host1", "host2", "host3"} {
		same(t, "the committed image on "+node, must(t, w.docker(args("run --rm", on(node), "looked:1 cat /new")...)), "hi")
	}
	file := filepath.Join(t.TempDir(), "export.tar")
	must(t, w.docker("export", "-o", file, "look"))
	contains(t, "docker export", tarNames(t, file), "new", "bin/busybox")
}

func tarNames(t *testing.T, file string) string {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var names []string
	for r := tar.NewReader(f); ; {
		h, err := r.Next()
		if err == io.EOF {
			return strings.Join(names, "\n")
		}
		if err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		names = append(names, h.Name)
	}
}

// docker cp: a file, a folder and a tar stream, in and out.
func TestCp(t *testing.T) {
	w := fleet(t)
	must(t, w.docker("create", "--name", "box", "busybox", "sleep", "1000"))
	dir := write(t, "file", "some text\n")
	if err := os.MkdirAll(filepath.Join(dir, "tree", "deep"), 0o755); err != nil {
		t.Fatal(err)
	}
	big := bytes.Repeat([]byte("0123456789abcdef"), 1<<18) // 4 MiB
	if err := os.WriteFile(filepath.Join(dir, "tree", "deep", "big"), big, 0o640); err != nil {
		t.Fatal(err)
	}
	must(t, w.docker("cp", filepath.Join(dir, "file"), "box:/tmp/copied"))
	must(t, w.docker("cp", filepath.Join(dir, "tree"), "box:/tmp"))
	must(t, w.docker("start", "box"))
	same(t, "the file inside", must(t, w.docker("exec", "box", "cat", "/tmp/copied")), "some text")
	same(t, "the big file's mode and size", must(t, w.docker("exec", "box", "stat", "-c", "%a %s", "/tmp/tree/deep/big")), fmt.Sprint("640 ", len(big)))
	must(t, w.docker("cp", "box:/tmp/copied", filepath.Join(dir, "back")))
	must(t, w.docker("cp", "box:/tmp/tree", filepath.Join(dir, "tree2")))
	got, err := os.ReadFile(filepath.Join(dir, "tree2", "deep", "big"))
	if err != nil || !bytes.Equal(got, big) {
		t.Errorf("the big file came back with %d bytes: %v", len(got), err)
	}
	same(t, "the file back", must(t, w.command("cat", filepath.Join(dir, "back"))), "some text")
	// A tar stream through standard input and output.
	same(t, "tar in", must(t, w.at(`cd `+dir+`; tar c file | docker cp - box:/var; docker exec box cat /var/file`)), "some text")
	same(t, "tar out", must(t, w.at(`docker cp box:/tmp/tree - | tar t | grep deep/big`)), "tree/deep/big")
	contains(t, "what is not there", fails(t, w.docker("cp", "box:/none", dir)), "/none") // clients have words of their own
	a := w.api(t, "GET", "/containers/box/archive?path=/none", "")
	same(t, "its status", a.status, 404)
	contains(t, "the engine's words", a.message(t), "Could not find the file /none in container")
	contains(t, "into nothing", fails(t, w.docker("cp", filepath.Join(dir, "file"), "box:/none/deeper/")), "no such directory")
}
