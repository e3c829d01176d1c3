package qemu

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"berth/internal/driver/drivertest"
	"berth/internal/machine"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// needQEMU skips tests that run machines where there is nothing to run them with.
func needQEMU(t *testing.T) {
	t.Helper()
	if _, err := findQEMU("x86_64"); err != nil {
		t.Skip(err)
	}
	if _, err := findImageTool(); err != nil {
		t.Skip(err)
	}
}

// guestImage is a disk with the guest.
func guestImage(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "guest.raw")
	if err := os.WriteFile(path, drivertest.Guest(), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// shortDir is a folder whose path leaves room for sockets.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "q")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// values are the flags' defaults, and what a test says.
func values(given map[string]any) map[string]any {
	all := map[string]any{}
	for _, f := range (Driver{}).Flags() {
		all[f.Name] = f.Default
	}
	for name, v := range given {
		all[name] = v
	}
	return all
}

var made int

// spec is a machine with the guest.
func spec(t *testing.T, image string, given map[string]any) machine.Spec {
	t.Helper()
	made++
	all := map[string]any{flagImage: image, flagMemory: leastMemory, flagCPUs: 1, flagDisk: 8, flagAccel: tcg}
	for name, v := range given {
		all[name] = v
	}
	store := shortDir(t)
	dir := filepath.Join(store, "m")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	return machine.Spec{
		Name: fmt.Sprintf("vm%d", made), Dir: dir, CacheDir: filepath.Join(store, "cache"), Values: values(all),
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
		if err := (Driver{}).Remove(ctx, machine.Instance{Name: s.Name, Dir: s.Dir}); err != nil {
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

// console is how much the guest has said.
func console(t *testing.T, i machine.Instance) int {
	t.Helper()
	text, err := os.ReadFile(file(i, serialFile))
	if err != nil {
		t.Fatal(err)
	}
	return strings.Count(string(text), ".")
}

// awaitConsole waits until the guest has said more than that.
func awaitConsole(t *testing.T, i machine.Instance, more int) int {
	t.Helper()
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		if n := console(t, i); n > more {
			return n
		}
	}
	t.Fatalf("the guest says nothing: %s", tail(i, logFile))
	return 0
}
