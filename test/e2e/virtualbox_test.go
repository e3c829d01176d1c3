//go:build e2e

package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// TestVirtualBox walks two machines of driver virtualbox through what docker-machine's users did with theirs. VirtualBox is simulated up to the
// hypervisor: what it is told to boot boots in QEMU, with the host-only network as a bridge.
func TestVirtualBox(t *testing.T) {
	bootsMachines(t)
	image := vmImage(t)
	w, err := newWorld("vbox")
	if err != nil {
		t.Fatal(err)
	}
	bin := filepath.Join(w.dir, "bin")
	manage := filepath.Join(bin, "VBoxManage")
	berth := func(args ...string) string { t.Helper(); return must(t, w.command("berth", args...)) }
	without := fails(t, w.command("berth", "create", "-d", "virtualbox", "host1"))
	contains(t, "create without VirtualBox", without, "VBoxManage", "virtualbox.org")
	same(t, "machines after that", berth("ls", "-q"), "")

	must(t, exec.CommandContext(t.Context(), "go", "build", "-o", manage, "../vboxsim"))
	w.env = append(w.env, "PATH="+bin+":"+filepath.Dir(binary)+":"+os.Getenv("PATH"), "VBOXSIM_HOME="+filepath.Join(w.dir, "vbox"), "VBOXSIM_QEMU=virtio")
	t.Cleanup(func() {
		if out, err := w.command("berth", "rm", "-y", "-f", "host1", "host2").CombinedOutput(); err != nil && !strings.Contains(string(out), "does not exist") {
			t.Errorf("%v: %s", err, out)
		}
		if out, err := w.command(manage, "hostonlyif", "remove", "vboxnet0").CombinedOutput(); err != nil {
			t.Errorf("%v: %s", err, out)
		}
	})
	// Debian's kernel for clouds, which the image has, knows virtio alone: interfaces that VirtualBox has too, and disks that it has not.
	for _, name := range []string{"host1", "host2"} {
		patiently(t, w.command("berth", "create", "-d", "virtualbox", "--progress", "plain", "--vm-image", image, "--virtualbox-no-vtx-check", "--virtualbox-no-share",
			"--virtualbox-nat-nictype", "virtio", "--virtualbox-hostonly-nictype", "virtio", "--engine-install-url", "none", name))
	}
	ip := berth("ip", "host1")
	if !regexp.MustCompile(`^192\.168\.59\.\d+$`).MatchString(ip) || ip == berth("ip", "host2") {
		t.Errorf("berth ip = %s", ip)
	}
	same(t, "url", berth("url", "host1"), "tcp://"+ip+":2376")
	same(t, "inspect", berth("inspect", "--format", "{{.Driver.IPAddress}}", "host1"), ip)
	same(t, "ls", berth("ls", "--format", "{{.Name}} {{.DriverName}} {{.State}} {{.URL}}", "--filter", "name=host1"), "host1 virtualbox Running tcp://"+ip+":2376")

	same(t, "exit code of a command there", exitOf(w.command("berth", "ssh", "host1", "exit 3")), "3")
	berth("ssh", "host1", "echo spot > dog.file")
	berth("scp", "host1:dog.file", "host2:dog.file")
	same(t, "the file on the other machine", berth("ssh", "host2", "cat dog.file"), "spot")

	tree, err := busyboxTree()
	if err != nil {
		t.Fatal(err)
	}
	client := func(machine, command string) string {
		t.Helper()
		cmd := w.command("bash", "-c", `eval "$(berth env --shell bash `+machine+`)" && `+command)
		cmd.Stdin = strings.NewReader(string(tree))
		return patiently(t, cmd)
	}
	client("host1", "docker import - busybox:latest")
	same(t, "what a container says", client("host1", "docker run --rm busybox echo hello"), "hello")
	same(t, "the active machine", client("host1", "berth active"), "host1")
	same(t, "images of the other machine", client("host2", "docker images -q"), "")
	client("host1", "docker run -d --name stays --restart always busybox sleep 1000000")

	berth("save", "host1")
	same(t, "status of a saved machine", berth("status", "host1"), "Saved")
	patiently(t, w.command("berth", "start", "host1"))
	same(t, "name of the engine that was saved", client("host1", "docker info --format '{{.Name}}'"), "host1")
	same(t, "the container that was saved", client("host1", "docker inspect --format '{{.State.Running}} {{.RestartCount}}' stays"), "true 0")
	berth("kill", "host2")
	same(t, "status of a killed machine", berth("status", "host2"), "Stopped")
	patiently(t, w.command("berth", "restart", "host1"))
	same(t, "address after a restart", berth("ip", "host1"), ip)
	same(t, "the file after a restart", berth("ssh", "host1", "cat dog.file"), "spot")
	client("host1", "docker ps")
	patiently(t, w.command("berth", "stop", "host1"))
	same(t, "status of a stopped machine", berth("status", "host1"), "Stopped")
	berth("rm", "-y", "host1", "host2")
	same(t, "machines left", must(t, w.command(manage, "list", "vms")), "")
}

// exitOf is a command's exit code.
func exitOf(cmd *exec.Cmd) string {
	_ = cmd.Run() // its state tells
	return strconv.Itoa(cmd.ProcessState.ExitCode())
}
