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
	if err := s.Remove("berth", ""); err != nil {
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
	if err := s.Remove("berth", ""); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("docker", "context", "inspect", "berth", "--format", "{{.Endpoints.docker.Host}}").CombinedOutput()
	if err != nil || strings.TrimSpace(string(out)) != "tcp://1.2.3.4:5" {
		t.Errorf("the other's context is now %s (%v)", out, err)
	}
}

// Contexts of machines carry certificates, follow what changes, and belong to one store of machines.
func TestAContextHasAnOwner(t *testing.T) {
	t.Setenv("DOCKER_CONFIG", t.TempDir())
	s, err := Open()
	if err != nil {
		t.Fatal(err)
	}
	mine, theirs := t.TempDir(), t.TempDir()
	c := Context{Name: "berth-web1", Host: "tcp://192.0.2.1:2376", CA: []byte("ca"), Cert: []byte("cert"), Key: []byte("key"), Owner: mine}
	if err := s.Put(c); err != nil {
		t.Fatal(err)
	}
	key := filepath.Join(s.tlsDir(c.Name), "docker", "key.pem")
	info, err := os.Stat(key)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("key has %v, %v, want mode 0600", info, err)
	}
	if has, err := s.Has(c.Name, mine); !has || err != nil {
		t.Errorf("Has = %v, %v", has, err)
	}
	other := c
	other.Owner = theirs
	var owned *OwnedError
	if err := s.Put(other); !errors.As(err, &owned) || owned.Owner != mine {
		t.Errorf("put by another owner = %v, want that %s has it", err, mine)
	}
	if err := s.Remove(c.Name, theirs); err != nil {
		t.Fatal(err)
	}
	if has, err := s.Has(c.Name, mine); !has || err != nil {
		t.Errorf("another owner's Remove took it: %v, %v", has, err)
	}
	if names, err := s.Abandoned(); len(names) > 0 || err != nil {
		t.Errorf("Abandoned = %q, %v, want none", names, err)
	}
	if err := os.Remove(mine); err != nil { // from here on it is anybody's
		t.Fatal(err)
	}
	if names, err := s.Abandoned(); len(names) != 1 || names[0] != c.Name || err != nil {
		t.Errorf("Abandoned = %q, %v, want %s", names, err, c.Name)
	}
	other.Host, other.CA = "ssh://root@192.0.2.1", nil
	if err := s.Put(other); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(key); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the key is left though the endpoint has none: %v", err)
	}
}

func TestWhatIsAsItShouldBeIsNotWritten(t *testing.T) {
	t.Setenv("DOCKER_CONFIG", t.TempDir())
	s, err := Open()
	if err != nil {
		t.Fatal(err)
	}
	c := Context{Name: "berth", Host: "unix:///x", CA: []byte("ca"), Cert: []byte("cert"), Key: []byte("key")}
	if err := s.Put(c); err != nil {
		t.Fatal(err)
	}
	stat := func() (infos [2]os.FileInfo) {
		for i, path := range []string{filepath.Join(s.metaDir("berth"), "meta.json"), filepath.Join(s.tlsDir("berth"), "docker", "ca.pem")} {
			info, err := os.Stat(path)
			if err != nil {
				t.Fatal(err)
			}
			infos[i] = info
		}
		return infos
	}
	before := stat()
	if err := s.Put(c); err != nil {
		t.Fatal(err)
	}
	for i, after := range stat() {
		if !os.SameFile(before[i], after) {
			t.Errorf("%s was written again", after.Name())
		}
	}
}

// docker's configuration may be a link into somebody's collection of such files.
func TestUseFollowsALink(t *testing.T) {
	dir, dotfiles := t.TempDir(), t.TempDir()
	t.Setenv("DOCKER_CONFIG", dir)
	s, err := Open()
	if err != nil {
		t.Fatal(err)
	}
	target := filepath.Join(dotfiles, "docker.json")
	if err := os.WriteFile(target, []byte(`{"auths":{}}`), 0o640); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(target, filepath.Join(dir, "config.json")); err != nil {
		t.Fatal(err)
	}
	if err := s.Use("berth"); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(target)
	if err != nil || info.Mode().Perm() != 0o640 {
		t.Errorf("the file linked to: %v, %v", info, err)
	}
	if b, err := os.ReadFile(target); err != nil || !strings.Contains(string(b), `"currentContext": "berth"`) || !strings.Contains(string(b), "auths") {
		t.Errorf("the file linked to holds %s, %v", b, err)
	}
	if name, err := s.Current(); name != "berth" || err != nil {
		t.Errorf("Current = %q, %v", name, err)
	}
}
