package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// TestPluginScripts runs the scripts about driver plugins. Both ends of the wire come from test/plugin. The plugin is called ci-test: a
// machine of that driver is not provisioned, as with docker-machine.
func TestPluginScripts(t *testing.T) {
	bin := t.TempDir()
	for program, name := range map[string]string{"./server": "docker-machine-driver-ci-test", "./client": "client"} {
		build := exec.Command("go", "build", "-o", filepath.Join(bin, name), program)
		build.Dir = "../../test/plugin"
		if out, err := build.CombinedOutput(); err != nil {
			t.Fatalf("build %s: %v\n%s", program, err, out)
		}
	}
	testscript.Run(t, testscript.Params{
		Dir:                 filepath.Join("testdata", "plugin"),
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup: func(env *testscript.Env) error {
			home := filepath.Join(env.WorkDir, "home")
			env.Setenv("HOME", home)
			env.Setenv("STORE", filepath.Join(home, ".docker", "machine"))
			env.Setenv("SHELL", "/bin/bash")
			path, err := exec.LookPath("berth")
			if err != nil {
				return err
			}
			env.Setenv("BERTH", path)
			env.Setenv("PEER_DIR", filepath.Join(env.WorkDir, "hosts"))
			env.Setenv("PEER_DIARY", filepath.Join(env.WorkDir, "diary"))
			env.Setenv("PATH", env.Getenv("PATH")+string(filepath.ListSeparator)+bin)
			env.Setenv("GORACE", "atexit_sleep_ms=0") // a race build waits a second before each exit otherwise
			return os.Mkdir(home, 0o700)
		},
	})
}
