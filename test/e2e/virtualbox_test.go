//go:build e2e

package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestVirtualBox walks a machine of driver virtualbox through its life. VirtualBox is simulated up to the hypervisor: what it is told to
// boot boots in QEMU, with the host-only network as a bridge.
func TestVirtualBox(t *testing.T) {
	if os.Getenv(vmEnv) == "" && !nightly() {
		t.Skip("it boots a virtual machine, for minutes: " + vmEnv + "=1 turns it on")
	}
	image := vmImage(t)
	w, err := newWorld("vbox")
	if err != nil {
		t.Fatal(err)
	}
	bin := filepath.Join(w.dir, "bin")
	manage := filepath.Join(bin, "VBoxManage")
	must(t, exec.CommandContext(t.Context(), "go", "build", "-o", manage, "../vboxsim"))
	w.env = append(w.env, "PATH="+bin+":"+filepath.Dir(binary)+":"+os.Getenv("PATH"), "VBOXSIM_HOME="+filepath.Join(w.dir, "vbox"), "VBOXSIM_QEMU=virtio")
	t.Cleanup(func() {
		if out, err := w.command("berth", "rm", "-y", "-f", "host1").CombinedOutput(); err != nil && !strings.Contains(string(out), "does not exist") {
			t.Errorf("%v: %s", err, out)
		}
		if out, err := w.command(manage, "hostonlyif", "remove", "vboxnet0").CombinedOutput(); err != nil {
			t.Errorf("%v: %s", err, out)
		}
	})
	// Debian's kernel for clouds, which the image has, knows virtio alone: interfaces that VirtualBox has too, and disks that it has not.
	patiently(t, w.command("berth", "create", "-d", "virtualbox", "--progress", "plain", "--vm-image", image, "--virtualbox-no-vtx-check", "--virtualbox-no-share",
		"--virtualbox-nat-nictype", "virtio", "--virtualbox-hostonly-nictype", "virtio", "--engine-install-url", "none", "host1"))
	ip := must(t, w.command("berth", "ip", "host1"))
	if !regexp.MustCompile(`^192\.168\.59\.\d+$`).MatchString(ip) {
		t.Errorf("berth ip = %s", ip)
	}
	same(t, "url", must(t, w.command("berth", "url", "host1")), "tcp://"+ip+":2376")
	must(t, w.command("berth", "ssh", "host1", "echo spot > dog.file"))
	same(t, "the file", must(t, w.command("berth", "ssh", "host1", "cat dog.file")), "spot")
	must(t, w.command("berth", "scp", "host1:dog.file", filepath.Join(w.dir, "dog.file")))
	const server = `eval "$(berth env --shell bash host1)" && docker info --format '{{.Name}}'`
	same(t, "name of the engine", must(t, w.command("bash", "-c", server)), "host1")

	must(t, w.command("berth", "save", "host1"))
	same(t, "status of a saved machine", must(t, w.command("berth", "status", "host1")), "Saved")
	patiently(t, w.command("berth", "start", "host1"))
	same(t, "name of the engine that was saved", must(t, w.command("bash", "-c", server)), "host1")
	patiently(t, w.command("berth", "restart", "host1"))
	same(t, "address after a restart", must(t, w.command("berth", "ip", "host1")), ip)
	same(t, "the file after a restart", must(t, w.command("berth", "ssh", "host1", "cat dog.file")), "spot")
	patiently(t, w.command("berth", "stop", "host1"))
	same(t, "status of a stopped machine", must(t, w.command("berth", "status", "host1")), "Stopped")
	must(t, w.command("berth", "rm", "-y", "host1"))
	same(t, "machines left", must(t, w.command(manage, "list", "vms")), "")
}
