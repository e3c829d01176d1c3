package generic

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"berth/internal/driver/drivertest"
	"berth/internal/machine"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// values are the flags' defaults, and what a test says.
func values(given map[string]any) map[string]any {
	all := map[string]any{}
	for _, f := range New(nil).Flags() {
		all[f.Name] = f.Default
	}
	for name, v := range given {
		all[name] = v
	}
	return all
}

func spec(t *testing.T, given map[string]any) machine.Spec {
	t.Helper()
	return machine.Spec{Name: "web1", Dir: t.TempDir(), Values: values(given), Progress: func(string) {}}
}

// listen is a host whose sshd accepts.
func listen(t *testing.T, address string) int {
	t.Helper()
	l, err := net.Listen("tcp", address+":0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() }) //nolint:errcheck // the end of the test
	return l.Addr().(*net.TCPAddr).Port
}

func TestDriver(t *testing.T) {
	hosts := 1
	drivertest.Run(t, func(t *testing.T) drivertest.Subject {
		hosts++
		address := fmt.Sprintf("127.0.0.%d", hosts)
		return drivertest.Subject{Driver: New(nil), Spec: machine.Spec{
			Name: fmt.Sprintf("host%d", hosts), Dir: t.TempDir(), Progress: func(line string) { t.Log(line) },
			Values: values(map[string]any{flagAddress: address, flagPort: listen(t, address)}),
		}}
	})
}

func TestTheKeyIsCopied(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"id_ed25519", "key.pem", ".hidden"} {
		t.Run(name, func(t *testing.T) {
			key := filepath.Join(dir, name)
			for path, content := range map[string]string{key: "private", key + ".pub": "public"} {
				if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			s := spec(t, map[string]any{flagAddress: "192.0.2.1", flagKey: key, flagUser: "deb", flagPort: 2222, flagEngine: 2399})
			i, err := New(nil).Create(t.Context(), s)
			if err != nil {
				t.Fatal(err)
			}
			if filepath.Dir(i.SSHKeyPath) != s.Dir || filepath.Base(i.SSHKeyPath) == "key.pem" || strings.HasPrefix(filepath.Base(i.SSHKeyPath), ".") {
				t.Errorf("the copy is %s", i.SSHKeyPath)
			}
			for path, want := range map[string]string{i.SSHKeyPath: "private", i.SSHKeyPath + ".pub": "public"} {
				content, err := os.ReadFile(path)
				info, failed := os.Stat(path)
				if err := errors.Join(err, failed); err != nil || string(content) != want || info.Mode().Perm() != 0o600 {
					t.Errorf("%s = %q, %v, want %q with mode 0600", path, content, err, want)
				}
			}
			if i.IPAddress != "192.0.2.1" || i.SSHUser != "deb" || i.SSHPort != 2222 || i.EnginePort != 2399 || !strings.Contains(string(i.Raw), key) {
				t.Errorf("instance = %+v", i)
			}
		})
	}
}

func TestPreCreateCheck(t *testing.T) {
	for name, tt := range map[string]struct {
		given map[string]any
		want  string // "" for none
	}{
		"no address":       {nil, "--generic-ip-address"},
		"an address":       {map[string]any{flagAddress: "192.0.2.1"}, ""},
		"a name":           {map[string]any{flagAddress: "web-1.example.com"}, ""},
		"IPv6":             {map[string]any{flagAddress: "[2001:db8::1]"}, ""},
		"an option":        {map[string]any{flagAddress: "-oProxyCommand=x"}, "neither an IP address nor a host's name"},
		"a shell word":     {map[string]any{flagAddress: "a;reboot"}, "neither"},
		"a user as option": {map[string]any{flagAddress: "a", flagUser: "-l"}, "no user's name"},
		"no user":          {map[string]any{flagAddress: "a", flagUser: ""}, "no user's name"},
		"port 0":           {map[string]any{flagAddress: "a", flagPort: 0}, "--generic-ssh-port"},
		"a high port":      {map[string]any{flagAddress: "a", flagEngine: 70000}, "--generic-engine-port"},
		"no such key":      {map[string]any{flagAddress: "a", flagKey: "/nowhere/id"}, "SSH key does not exist"},
		"a folder as key":  {map[string]any{flagAddress: "a", flagKey: "/"}, "it is a folder"},
	} {
		t.Run(name, func(t *testing.T) {
			err := New(nil).PreCreateCheck(t.Context(), spec(t, tt.given))
			switch {
			case tt.want == "" && err != nil:
				t.Error(err)
			case tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)):
				t.Errorf("= %v, want it to say %q", err, tt.want)
			}
		})
	}
}

func TestAHostThatDoesNotAnswerIsStopped(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	i := machine.Instance{IPAddress: "127.0.0.1", SSHPort: l.Addr().(*net.TCPAddr).Port}
	if state, err := New(nil).State(t.Context(), i); state != machine.StateRunning || err != nil {
		t.Errorf("with an sshd = %s, %v", state, err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if state, err := New(nil).State(t.Context(), i); state != machine.StateStopped || err != nil {
		t.Errorf("without = %s, %v, want Stopped", state, err)
	}
}

// booting is a host that is told to restart.
type booting struct {
	boot   int
	asked  int
	away   int   // questions it does not answer once it was asked
	refuse error // of the command to restart
	never  bool
}

func (b *booting) Run(_ context.Context, _ machine.Instance, command string) (string, error) {
	if command == restartCommand {
		b.asked++
		if b.refuse != nil {
			return "", b.refuse
		}
		if !b.never {
			b.boot++
		}
		return "", errors.New("the connection broke") // as it may
	}
	if b.asked > 0 && b.away > 0 {
		b.away--
		return "", errors.New("connection refused")
	}
	return fmt.Sprintf("boot %d\n", b.boot), nil
}

func TestRestartWaitsForTheNextBoot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &booting{away: 40}
		if _, err := New(b).Restart(t.Context(), machine.Instance{IPAddress: "192.0.2.1"}); err != nil || b.asked != 1 {
			t.Errorf("restart = %v, asked %d times", err, b.asked)
		}
		if b.away > 0 {
			t.Error("it returned while the host was away")
		}
	})
}

func TestARestartThatDoesNotHappenIsAnError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		refused := &booting{refuse: errors.New("sudo: a password is required")}
		_, err := New(refused).Restart(t.Context(), machine.Instance{})
		if !errors.Is(err, refused.refuse) {
			t.Errorf("a refused one = %v", err)
		}
		began := time.Now()
		_, err = New(&booting{away: 1 << 30}).Restart(t.Context(), machine.Instance{})
		if err == nil || !strings.Contains(err.Error(), "not back") || time.Since(began) < restartTime {
			t.Errorf("one without an end = %v after %s", err, time.Since(began))
		}
	})
}
