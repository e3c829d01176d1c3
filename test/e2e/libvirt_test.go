//go:build e2e

package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"berth/internal/driver/libvirt/libvirttest"
)

// libvirtd runs a real one, and returns the URI that leads to it and the folder of its pool.
func libvirtd(t *testing.T) (uri, pool string) {
	t.Helper()
	dir, err := os.MkdirTemp(scratch, "lv")
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("sh", "-c", libvirttest.Script, "sh", dir, "/usr/sbin/libvirtd")
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
			t.Error(err)
		}
		kill := time.AfterFunc(10*time.Second, func() { _ = cmd.Process.Kill() })
		defer kill.Stop()
		_ = cmd.Wait() // it was told to end
		if b, err := os.ReadFile(log.Name()); t.Failed() && err == nil {
			t.Logf("libvirtd said:\n%s", b)
		}
	})
	socket := filepath.Join(dir, "libvirt-sock")
	eventually(t, time.Minute, "libvirtd listens", func() bool {
		_, err := os.Stat(socket)
		return err == nil
	})
	return "qemu:///system?socket=" + socket, filepath.Join(dir, "images")
}

// TestVirtualLibvirt walks a machine of driver libvirt through its life, under a real libvirtd.
func TestVirtualLibvirt(t *testing.T) {
	bootsMachines(t)
	image := vmImage(t)
	w, err := newWorld("libvirt")
	if err != nil {
		t.Fatal(err)
	}
	uri, pool := libvirtd(t)
	w.machine = append(w.machine, "vm1")
	t.Cleanup(func() {
		if err := w.down(); err != nil {
			t.Error(err)
		}
		if left := poolFiles(t, pool); left != "" {
			t.Errorf("left in the pool: %s", left)
		}
	})
	patiently(t, w.command("berth", "create", "-d", "libvirt", "--progress", "plain", "--libvirt-uri", uri, "--libvirt-network", "user", "--libvirt-memory", "1024",
		"--vm-image", image, "--engine-install-url", "none", "vm1"))
	same(t, "ls", must(t, w.command("berth", "ls", "--format", "{{.Name}} {{.DriverName}} {{.State}}")), "vm1 libvirt Running")
	address := must(t, w.command("berth", "url", "vm1"))
	w.useMachine(t, "vm1")
	tree, err := busyboxTree()
	if err != nil {
		t.Fatal(err)
	}
	load := w.command("docker", "import", "-", "busybox:latest")
	load.Stdin = strings.NewReader(string(tree))
	patiently(t, load)
	same(t, "what a container says", patiently(t, w.command("docker", "run", "--rm", "busybox", "echo", "hello")), "hello")
	patiently(t, w.command("docker", "run", "-d", "--name", "stays", "--restart", "always", "busybox", "sleep", "1000000"))

	must(t, w.command("berth", "save", "vm1"))
	same(t, "status of a saved machine", must(t, w.command("berth", "status", "vm1")), "Saved")
	patiently(t, w.command("berth", "start", "vm1"))
	same(t, "url of a saved machine", must(t, w.command("berth", "url", "vm1")), address)
	same(t, "the container that was saved", patiently(t, w.command("docker", "inspect", "--format", "{{.State.Running}} {{.RestartCount}}", "stays")), "true 0")
	patiently(t, w.command("berth", "stop", "vm1"))
	same(t, "status of a stopped machine", must(t, w.command("berth", "status", "vm1")), "Stopped")
	patiently(t, w.command("berth", "start", "vm1"))
	same(t, "the container of a machine that was stopped", patiently(t, w.command("docker", "inspect", "--format", "{{.State.Running}}", "stays")), "true")
	must(t, w.command("berth", "kill", "vm1"))
	must(t, w.command("berth", "rm", "-y", "vm1"))
	w.machine = nil
	same(t, "machines left", must(t, w.command("berth", "ls", "-q")), "")
}

// poolFiles are what libvirt's pool holds.
func poolFiles(t *testing.T, dir string) string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return strings.Join(names, " ")
}
