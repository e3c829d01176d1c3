//go:build e2e

package e2e

import (
	"bytes"
	"context"
	"crypto/sha512"
	"encoding/hex"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// vmEnv turns the tests on that boot a whole virtual machine, which takes minutes where there is no KVM: it is 1, or how long such a test may
// take before it gives up without a verdict, as where somebody else needs the computer. vmImageEnv names an image of an earlier run, or
// where to leave this one's, for those who work on these tests.
const (
	vmEnv      = "BERTH_E2E_VM"
	vmImageEnv = "BERTH_E2E_VM_IMAGE"
)

const vmPatience = 20 * time.Minute

// TestVirtualMachine walks one machine of driver qemu through its life, beside a local one in the same fleet.
func TestVirtualMachine(t *testing.T) {
	bootsMachines(t)
	url := serveImage(t, vmImage(t))
	w, err := newWorld("vm")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := w.down(); err != nil {
			t.Error(err)
		}
	})
	if err := w.up([]string{"host1"}); err != nil {
		t.Fatal(err)
	}
	create := []string{
		"create", "-d", "qemu", "--progress", "plain", "--vm-image", url, "--vm-image-checksum", url[:strings.LastIndex(url, "/")] + "/SHA512SUMS",
		"--qemu-memory", "1024", "--engine-install-url", "none", "--engine-label", "size=vm",
	}
	w.machine = append(w.machine, "vm1")
	said := patiently(t, w.command("berth", append(create, "vm1")...))
	contains(t, "create", said, "emulated in software")
	contains(t, "create, of a download that was cut", said, "going on")
	contains(t, "berth image-cache ls", must(t, w.command("berth", "image-cache", "ls", "--format", "{{.Name}} {{.Checked}} {{.Machines}}")), "cloud.qcow2 yes 1")
	port := regexp.MustCompile(`^tcp://127\.0\.0\.1:(\d+)$`)
	address := must(t, w.command("berth", "url", "vm1"))
	if !port.MatchString(address) {
		t.Errorf("berth url = %s", address)
	}
	// The disk has grown over the image's own 1.9 GB.
	if kb, err := strconv.Atoi(strings.TrimSpace(must(t, w.command("berth", "ssh", "vm1", "df --output=size / | tail -1")))); err != nil || kb < 10<<20 {
		t.Errorf("its file system has %d kB (%v), want most of 20 GB", kb, err)
	}
	scheduleOn(t, w)

	started := must(t, w.docker("inspect", "--format", "{{.State.StartedAt}}", "stays"))
	must(t, w.command("berth", "save", "vm1"))
	same(t, "status of a saved machine", must(t, w.command("berth", "status", "vm1")), "Saved")
	patiently(t, w.command("berth", "start", "vm1"))
	eventually(t, vmPatience, "the fleet has the machine again", func() bool {
		out, err := w.docker("inspect", "--format", "{{.State.Running}} {{.State.StartedAt}}", "stays").Output()
		return err == nil && strings.TrimSpace(string(out)) == "true "+started // it went on, and was not started anew
	})

	patiently(t, w.command("berth", "restart", "vm1"))
	same(t, "url after a restart", must(t, w.command("berth", "url", "vm1")), address)
	patiently(t, w.command("berth", "stop", "vm1"))
	same(t, "status of a stopped machine", must(t, w.command("berth", "status", "vm1")), "Stopped")
	patiently(t, w.command("berth", "start", "vm1"))
	eventually(t, vmPatience, "the container came up with its machine", func() bool {
		out, err := w.docker("inspect", "--format", "{{.State.Running}} {{.State.StartedAt}}", "stays").Output()
		return err == nil && strings.HasPrefix(string(out), "true ") && !strings.Contains(string(out), started)
	})
	must(t, w.command("berth", "kill", "vm1"))
	same(t, "status of a killed machine", must(t, w.command("berth", "status", "vm1")), "Stopped")

	interruptCreate(t, w, append(create, "vm2"))
	must(t, w.command("berth", "rm", "-y", "vm1"))
	w.machine = []string{"host1"}
	same(t, "machines left", must(t, w.command("berth", "ls", "-q")), "host1")
	if out, err := exec.CommandContext(t.Context(), "pgrep", "-a", "qemu-system").Output(); err == nil {
		t.Errorf("QEMUs are left: %s", out)
	}
	must(t, w.command("berth", "image-cache", "rm", "cloud.qcow2"))
}

// scheduleOn runs containers on the machine and beside it.
func scheduleOn(t *testing.T, w *world) {
	t.Helper()
	eventually(t, vmPatience, "the machine is in the fleet", func() bool { return healthy(t, w, "vm1") })
	if err := w.loadImages("busybox:latest"); err != nil {
		t.Fatal(err)
	}
	same(t, "what a container says", patiently(t, w.docker("run", "--rm", "-e", "constraint:size==vm", "busybox", "echo", "hello")), "hello")
	patiently(t, w.docker("run", "-d", "--name", "stays", "--restart", "always", "-e", "constraint:size==vm", "busybox", "sleep", "1000000"))
	patiently(t, w.docker("run", "-d", "--name", "beside", "-e", "affinity:container!=stays", "busybox", "sleep", "1000000"))
	for name, node := range map[string]string{"stays": "vm1", "beside": "host1"} {
		same(t, "node of "+name, must(t, w.docker("inspect", "--format", "{{.Node.Name}}", name)), node)
	}
}

func healthy(t *testing.T, w *world, name string) bool {
	t.Helper()
	for _, n := range w.nodeList(t) {
		if n.Name == name {
			return n.State == "Healthy"
		}
	}
	return false
}

// interruptCreate presses Ctrl-C while a machine boots: nothing of it stays.
func interruptCreate(t *testing.T, w *world, create []string) {
	t.Helper()
	cmd := w.command("berth", create...)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var errs bytes.Buffer
	cmd.Stderr = &errs
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	seen := make([]byte, 0, 4096)
	for !bytes.Contains(seen, []byte("to boot")) {
		chunk := make([]byte, 512)
		n, err := out.Read(chunk)
		if err != nil {
			t.Fatalf("create ended: %s %s", seen, errs.Bytes())
		}
		seen = append(seen, chunk[:n]...)
	}
	if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err == nil {
		t.Error("an interrupted create went well")
	}
	if names := must(t, w.command("berth", "ls", "-q")); strings.Contains(names, "vm2") {
		t.Errorf("it is still there: %s\n%s", names, errs.Bytes())
	}
}

// vmDeadline is when a test that boots machines gives up; zero for never.
var vmDeadline time.Time

// bootsMachines skips the test unless it is asked for.
func bootsMachines(t *testing.T) {
	t.Helper()
	switch v := os.Getenv(vmEnv); {
	case v == "" && !nightly():
		t.Skip("it boots virtual machines, for minutes: " + vmEnv + "=1 turns it on")
	case v == "" || v == "1":
		vmDeadline = time.Time{}
	default:
		limit, err := time.ParseDuration(v)
		if err != nil {
			t.Fatalf("%s: %v", vmEnv, err)
		}
		vmDeadline = time.Now().Add(limit)
	}
}

// patiently is must for what may take many minutes where a machine is emulated.
func patiently(t *testing.T, cmd *exec.Cmd) string {
	t.Helper()
	limit := 2 * vmPatience
	if !vmDeadline.IsZero() {
		limit = time.Until(vmDeadline)
	}
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr, cmd.WaitDelay = &out, &errs, time.Second
	began := time.Now()
	if err := cmd.Start(); err != nil {
		t.Fatalf("%s: %v", shown(cmd), err)
	}
	timer := time.AfterFunc(limit, func() { _ = cmd.Process.Signal(syscall.SIGTERM) }) // the failure shows in the error
	defer timer.Stop()
	err := cmd.Wait()
	if err != nil && !vmDeadline.IsZero() && time.Now().After(vmDeadline) {
		t.Skipf("%s=%s is over, in the midst of %s", vmEnv, os.Getenv(vmEnv), shown(cmd))
	}
	if err != nil {
		t.Fatalf("%s: %v\n%s%s", shown(cmd), err, out.Bytes(), errs.Bytes())
	}
	t.Logf("%s: %s", shown(cmd), time.Since(began).Round(time.Second))
	return strings.TrimSpace(out.String())
}

// vmImage is a cloud image of Debian's packages, by way of the network that the suite itself has none of.
func vmImage(t *testing.T) string {
	t.Helper()
	path := os.Getenv(vmImageEnv)
	if path == "" {
		path = filepath.Join(scratch, "cloud.qcow2")
	}
	if _, err := os.Stat(path); err == nil {
		return path
	}
	ctx, cancel := context.WithTimeout(t.Context(), vmPatience)
	defer cancel()
	cmd := exec.CommandContext(ctx, "nsenter", "--net=/proc/self/fd/3", "../vm/image", path)
	cmd.ExtraFiles = []*os.File{outsideNet}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("make the image: %v\n%s", err, out[max(0, len(out)-3000):])
	}
	return path
}

// serveImage publishes an image with its checksum, and breaks its first download off.
func serveImage(t *testing.T, path string) string {
	t.Helper()
	image, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha512.Sum512(image)
	var cut atomic.Bool
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == "/SHA512SUMS":
			fmt.Fprintf(w, "%s  cloud.qcow2\n", hex.EncodeToString(sum[:])) //nolint:errcheck // a test
		case r.Method == http.MethodGet && cut.CompareAndSwap(false, true):
			w.Header().Set("Content-Length", strconv.Itoa(len(image)))
			_, _ = w.Write(image[:len(image)/3])
			panic(http.ErrAbortHandler)
		default:
			http.ServeContent(w, r, "cloud.qcow2", time.Time{}, bytes.NewReader(image))
		}
	}))
	t.Cleanup(s.Close)
	return s.URL + "/cloud.qcow2"
}
