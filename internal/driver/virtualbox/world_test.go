package virtualbox

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"berth/internal/driver/virtualbox/vboxsim"
	"berth/internal/machine"
)

// TestMain is VBoxManage when it is called so.
func TestMain(m *testing.M) {
	if strings.HasPrefix(filepath.Base(os.Args[0]), "VBoxManage") {
		os.Exit(vboxsim.Main(os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
	}
	goleak.VerifyTestMain(m)
}

// virtualBox puts a simulated VirtualBox of that version on PATH, with nothing in it. No network of this computer's disturbs it.
func virtualBox(t *testing.T, version string) (home string) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	bin := t.TempDir()
	name := "VBoxManage"
	if runtime.GOOS == "windows" {
		name += ".exe"
	}
	if err := os.Symlink(self, filepath.Join(bin, name)); err != nil {
		t.Skip(err)
	}
	home = t.TempDir()
	t.Setenv("PATH", bin+string(os.PathListSeparator)+os.Getenv("PATH"))
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	t.Setenv("GORACE", "atexit_sleep_ms=0") // a race build waits a second before each exit otherwise
	t.Setenv(vboxsim.HomeEnv, home)
	t.Setenv(vboxsim.VersionEnv, version)
	return home
}

// diskImage is a disk with something at its beginning, and something far from it.
func diskImage(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "disk.raw")
	text := make([]byte, 3<<20)
	copy(text, "boot sector")
	copy(text[2<<20+100:], "far away")
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
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

// spec is a machine that is small and needs no CPU of a kind.
func spec(t *testing.T, image string, given map[string]any) machine.Spec {
	t.Helper()
	made++
	all := map[string]any{flagImage: image, flagMemory: leastMemory, flagDisk: 16, flagNoCheck: true}
	for name, v := range given {
		all[name] = v
	}
	store := t.TempDir()
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
		if err := (Driver{}).Remove(ctx, i); err != nil {
			t.Error(err)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	return i
}

// manage runs the simulated VBoxManage as another program of the user's would.
func manage(t *testing.T, args ...string) string {
	t.Helper()
	m, err := findManager()
	if err != nil {
		t.Fatal(err)
	}
	out, err := m.run(t.Context(), args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func wantState(t *testing.T, i machine.Instance, want machine.State) {
	t.Helper()
	if got, err := (Driver{}).State(t.Context(), i); err != nil || got != want {
		t.Fatalf("state = %s, %v, want %s", got, err, want)
	}
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
