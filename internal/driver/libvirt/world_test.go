//go:build linux

package libvirt

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"berth/internal/driver/drivertest"
	"berth/internal/machine"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// session runs a real libvirtd for the test, as a user that is nobody, and returns the URI that leads to it. Nothing of it stays.
func session(t *testing.T) string {
	t.Helper()
	daemon, err := exec.LookPath("libvirtd")
	if err != nil {
		if daemon, err = exec.LookPath("/usr/sbin/libvirtd"); err != nil {
			t.Skip("libvirtd is not installed (libvirt-daemon, libvirt-daemon-driver-qemu)")
		}
	}
	if _, err := exec.LookPath("qemu-system-x86_64"); err != nil {
		t.Skip(err)
	}
	home, err := os.MkdirTemp("/tmp", "lv") // TMPDIR may be long, for a socket, or closed to nobody
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(home); err != nil {
			t.Error(err)
		}
	})
	config := filepath.Join(home, "config", "libvirt")
	for _, dir := range []string{config, filepath.Join(home, "run"), filepath.Join(home, "data"), filepath.Join(home, "cache")} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	// Else it would start virtlogd, which outlives it.
	if err := os.WriteFile(filepath.Join(config, "qemu.conf"), []byte("stdio_handler = \"file\"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(daemon)
	cmd.Env = append(os.Environ(), "HOME="+home)
	for _, name := range []string{"runtime:run", "config:config", "data:data", "cache:cache"} {
		name, dir, _ := strings.Cut(name, ":")
		env := "XDG_" + strings.ToUpper(name) + "_HOME"
		if name == "runtime" {
			env = "XDG_RUNTIME_DIR"
		}
		cmd.Env = append(cmd.Env, env+"="+filepath.Join(home, dir))
	}
	var log bytes.Buffer
	cmd.Stdout, cmd.Stderr, cmd.Dir = &log, &log, home
	if os.Geteuid() == 0 { // root has no session
		const nobody = 65534
		err := filepath.WalkDir(home, func(path string, _ os.DirEntry, err error) error {
			if err != nil {
				return err
			}
			return os.Chown(path, nobody, nobody)
		})
		if err != nil {
			t.Fatal(err)
		}
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := cmd.Process.Signal(os.Interrupt); err != nil {
			t.Error(err)
		}
		_ = cmd.Wait() // it was told to
		if t.Failed() {
			t.Logf("libvirtd: %s", log.String())
		}
	})
	t.Setenv("XDG_DATA_HOME", filepath.Join(home, "data")) // where its pool called default is
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	socket := filepath.Join(home, "run", "libvirt", "libvirt-sock")
	for end := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
		if _, err := os.Stat(socket); err == nil {
			break
		}
		if time.Now().After(end) {
			t.Fatal("libvirtd does not come up")
		}
	}
	return "qemu:///session?socket=" + socket
}

// guestImage is a disk with drivertest's guest.
func guestImage(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "guest.raw")
	if err := os.WriteFile(path, drivertest.Guest(), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

var made int

// spec is a machine with the guest.
func spec(t *testing.T, uri, image string, given map[string]any) machine.Spec {
	t.Helper()
	made++
	all := map[string]any{}
	for _, f := range (Driver{}).Flags() {
		all[f.Name] = f.Default
	}
	for name, v := range map[string]any{flagURI: uri, flagImage: image, flagMemory: leastMemory, flagCPUs: 1, flagDisk: 8, flagType: typeQEMU} {
		all[name] = v
	}
	for name, v := range given {
		all[name] = v
	}
	store := t.TempDir()
	dir := filepath.Join(store, "m")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	return machine.Spec{
		Name: fmt.Sprintf("vm%d", made), Dir: dir, CacheDir: filepath.Join(store, "cache"), Values: all,
		Progress: func(line string) { t.Log(line) },
	}
}

// running is a machine that runs, and is gone after the test.
func running(t *testing.T, s machine.Spec) machine.Instance {
	t.Helper()
	i, err := Driver{}.Create(t.Context(), s)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := (Driver{}).Remove(ctx, i); err != nil {
			t.Error(err)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	return i
}

func wantState(t *testing.T, i machine.Instance, want machine.State) {
	t.Helper()
	if got, err := (Driver{}).State(t.Context(), i); err != nil || got != want {
		t.Fatalf("state = %s, %v, want %s", got, err, want)
	}
}

// volumes are the names of all in the pool.
func volumes(t *testing.T, uri string) []string {
	t.Helper()
	var names []string
	err := with(t.Context(), uri, askTime, func(c conn) error {
		p, err := c.StoragePoolLookupByName(defaultPool)
		if err != nil {
			return unlessMissing(err)
		}
		all, _, err := c.StoragePoolListAllVolumes(p, 1, 0)
		for _, v := range all {
			names = append(names, v.Name)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}

// fails wants an error that says all that.
func fails(t *testing.T, what string, err error, want ...string) {
	t.Helper()
	for _, w := range want {
		if err == nil || !strings.Contains(err.Error(), w) {
			t.Errorf("%s = %v, want it to say %q", what, err, w)
		}
	}
}
