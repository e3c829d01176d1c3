package dockercontext

import (
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func TestDockerSeesTheContext(t *testing.T) {
	docker, err := exec.LookPath("docker")
	if err != nil {
		t.Fatalf("the stock docker client is needed (apt-get install docker.io): %v", err)
	}
	dir := t.TempDir()
	t.Setenv("DOCKER_CONFIG", dir)
	t.Setenv("DOCKER_HOST", "")
	s, err := Open()
	if err != nil {
		t.Fatal(err)
	}
	config := `{"auths":{"r.example":{"auth":"eDp5"}},"experimental":"enabled"}`
	if err := os.WriteFile(filepath.Join(dir, "config.json"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	c := Context{Name: "berth", Description: "the fleet", Host: "unix:///run/x.sock"}
	for range 2 { // the second refreshes
		if err := s.Put(c); err != nil {
			t.Fatal(err)
		}
	}
	run := func(args ...string) string {
		t.Helper()
		out, err := exec.Command(docker, args...).CombinedOutput()
		if err != nil {
			t.Fatalf("docker %v: %v: %s", args, err, out)
		}
		return strings.TrimSpace(string(out))
	}
	if got := run("context", "inspect", "berth", "--format", "{{.Endpoints.docker.Host}}"); got != c.Host {
		t.Errorf("docker reads host %q, want %q", got, c.Host)
	}
	if got := run("context", "show"); got != "default" {
		t.Errorf("making a context switched to %q", got)
	}
	if err := s.Use("berth"); err != nil {
		t.Fatal(err)
	}
	if got := run("context", "show"); got != "berth" {
		t.Errorf("docker context show = %q after Use", got)
	}
	var kept map[string]any
	b, err := os.ReadFile(filepath.Join(dir, "config.json"))
	if err != nil || json.Unmarshal(b, &kept) != nil || kept["auths"] == nil || kept["experimental"] != "enabled" {
		t.Errorf("config.json lost something: %s, %v", b, err)
	}
	if err := s.Remove("berth"); err != nil {
		t.Fatal(err)
	}
	if got := run("context", "ls", "-q"); got != "default" {
		t.Errorf("contexts after Remove: %q", got)
	}
	if got := run("context", "show"); got != "default" {
		t.Errorf("in use after Remove: %q", got)
	}
}

func TestForeignContextIsLeftAlone(t *testing.T) {
	t.Setenv("DOCKER_CONFIG", t.TempDir())
	t.Setenv("DOCKER_HOST", "")
	if out, err := exec.Command("docker", "context", "create", "berth", "--docker", "host=tcp://1.2.3.4:5").CombinedOutput(); err != nil {
		t.Fatalf("docker context create: %v: %s", err, out)
	}
	s, err := Open()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Put(Context{Name: "berth", Host: "unix:///x"}); !errors.Is(err, ErrForeign) {
		t.Errorf("Put over another's context: %v, want ErrForeign", err)
	}
	if err := s.Remove("berth"); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("docker", "context", "inspect", "berth", "--format", "{{.Endpoints.docker.Host}}").CombinedOutput()
	if err != nil || strings.TrimSpace(string(out)) != "tcp://1.2.3.4:5" {
		t.Errorf("the other's context is now %s (%v)", out, err)
	}
}
