package plugin

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"berth/internal/machine"
)

const servedVariable = "BERTH_TEST_SERVED"

// runAsServed makes the test program one that serves a driver, if a test started it so.
func runAsServed() bool {
	name := os.Getenv(servedVariable)
	if name == "" {
		return false
	}
	drivers := map[string]machine.Driver{"files": files{}, "plain": plain0{}, "itself": itself{}}
	silence := silenceTime
	if os.Getenv("BERTH_TEST_SILENCE") != "" {
		silence = 300 * time.Millisecond
	}
	if err := serve(context.Background(), name, drivers[name], os.Stdout, silence); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	return true
}

// files is a driver of berth's whose hosts are files in their machine's folder.
type files struct{}

func (files) file(i machine.Instance) string { return filepath.Join(i.Dir, "host") }

func (files) Flags() []machine.Flag {
	return []machine.Flag{
		{Name: "files-size", Default: 4, EnvVar: "FILES_SIZE"},
		{Name: "files-tag", Default: []string(nil)},
		{Name: "files-zone", Default: "b"},
		{Name: "files-fast", Default: false},
	}
}

func (files) PreCreateCheck(_ context.Context, spec machine.Spec) error {
	if spec.String("files-zone") == "nowhere" {
		return errors.New("zone nowhere is not known")
	}
	return nil
}

func (d files) Create(ctx context.Context, spec machine.Spec) (machine.Instance, error) {
	i := machine.Instance{Name: spec.Name, Dir: spec.Dir, IPAddress: "192.0.2.5", SSHUser: "jo", SSHPort: 2222}
	i.Raw = fmt.Appendf(nil, `{"Size":%d,"Tags":%d,"Serial":9007199254740993}`, spec.Int("files-size"), len(spec.Strings("files-tag")))
	spec.Progress("making\na file")
	if err := os.WriteFile(d.file(i), []byte("on"), 0o600); err != nil {
		return i, err
	}
	switch spec.String("files-zone") {
	case "panic":
		panic("out of files")
	case "slow":
		<-ctx.Done()
	}
	return i, ctx.Err()
}

func (d files) State(_ context.Context, i machine.Instance) (machine.State, error) {
	data, err := os.ReadFile(d.file(i))
	switch {
	case errors.Is(err, os.ErrNotExist):
		return machine.StateNotFound, nil
	case string(data) == "on":
		return machine.StateRunning, err
	}
	return machine.StateStopped, err
}

func (d files) Remove(_ context.Context, i machine.Instance) error {
	return os.RemoveAll(d.file(i))
}

func (d files) Start(_ context.Context, i machine.Instance) (machine.Instance, error) {
	i.IPAddress = "192.0.2.6"
	return i, os.WriteFile(d.file(i), []byte("on"), 0o600)
}

func (d files) Restart(ctx context.Context, i machine.Instance) (machine.Instance, error) {
	return d.Start(ctx, i)
}

func (d files) Stop(_ context.Context, i machine.Instance) error {
	return os.WriteFile(d.file(i), []byte("off"), 0o600)
}

func (files) Kill(context.Context, machine.Instance) error { panic("no kill here") }

// plain0 is a driver without any optional ability, that cannot tell a state.
type plain0 struct{}

func (plain0) Create(_ context.Context, spec machine.Spec) (machine.Instance, error) {
	return machine.Instance{IPAddress: "2001:db8::1", Raw: json.RawMessage(`{"URL":"tcp://[2001:db8::1]:2376"}`)}, nil
}

func (plain0) State(context.Context, machine.Instance) (machine.State, error) {
	return machine.StateNone, nil
}
func (plain0) Remove(context.Context, machine.Instance) error { return nil }

// itself is a driver that runs its engine itself.
type itself struct{ files }

func (itself) RunEngine(context.Context, machine.Instance, machine.EngineConfig) error { return nil }

// talk lets the client make its calls to a served driver.
func talk(t *testing.T, driver string, calls ...string) string {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	args := append([]string{self, driver}, calls...)
	if calls[0] == "-v0" {
		args = append([]string{"-v0", self, driver}, calls[1:]...)
	}
	cmd := exec.CommandContext(t.Context(), peer(t, "client"), args...)
	cmd.Env = append(os.Environ(), servedVariable+"="+driver)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		t.Fatalf("client: %v: %s\n%s", err, errs.String(), out.String())
	}
	return out.String()
}

func wantTalk(t *testing.T, got string, want ...string) {
	t.Helper()
	if text := strings.Join(want, "\n") + "\n"; got != text {
		t.Errorf("the client heard\n%s\nwant\n%s", got, text)
	}
}

// newHost is the JSON that docker-machine begins a machine with.
func newHost(t *testing.T, store, name string) string {
	t.Helper()
	raw, err := json.Marshal(baseConfig{MachineName: name, StorePath: store})
	if err != nil {
		t.Fatal(err)
	}
	return "SetConfigRaw=" + string(raw)
}

func TestServeACreate(t *testing.T) {
	store := t.TempDir()
	wantTalk(t, talk(t, "files",
		"GetVersion", newHost(t, store, "web1"), "DriverName", "GetMachineName", "GetCreateFlags",
		`SetConfigFromFlags={"files-size":8,"files-tag":["a","b"],"files-zone":"c","files-fast":false,"swarm-master":false,"engine-label":["x=y"]}`,
		"PreCreateCheck", "Heartbeat", "Create", "GetConfigRaw",
		"GetState", "GetIP", "GetURL", "GetSSHHostname", "GetSSHPort", "GetSSHUsername", "GetSSHKeyPath", "GetIPv6", "Close"),
		"GetVersion: 1", "SetConfigRaw: ", "DriverName: files", "GetMachineName: web1",
		`GetCreateFlags: files-size int FILES_SIZE 4; files-tag slice  []; files-zone string  "b"; files-fast bool `,
		"SetConfigFromFlags: ", "PreCreateCheck: ", "Heartbeat: ", "Create: ",
		`GetConfigRaw: {"IPAddress":"192.0.2.5","MachineName":"web1","SSHKeyPath":"","SSHPort":2222,"SSHUser":"jo","Serial":9007199254740993,"Size":8,"StorePath":"`+store+`","SwarmDiscovery":"","SwarmHost":"","SwarmMaster":false,"Tags":2}`,
		"GetState: 1", "GetIP: 192.0.2.5", "GetURL: tcp://192.0.2.5:2376", "GetSSHHostname: 192.0.2.5", "GetSSHPort: 2222", "GetSSHUsername: jo", "GetSSHKeyPath: ", "GetIPv6: ",
		"said: making a file", "Close: exit status 0, soon: true")
}

func TestServeALife(t *testing.T) {
	store := t.TempDir()
	host := `SetConfigRaw={"MachineName":"web1","StorePath":"` + store + `","IPAddress":"192.0.2.5","Size":8}`
	wantTalk(t, talk(t, "files", "-v0", "GetVersion", newHost(t, store, "web1"), "Create", "Close"),
		"GetVersion: 1", "SetConfigRaw: ", "Create: ", "said: making a file", "Close: exit status 0, soon: true")
	wantTalk(t, talk(t, "files", host, "Stop", "GetState", "GetURL", "GetIP", "Start", "GetState", "GetIP", "Kill", "Remove", "GetState", "Remove", "Upgrade", "GetConfigRaw", "Close"),
		"SetConfigRaw: ", "Stop: ", "GetState: 4", "GetURL: error: Host is not running", "GetIP: error: Host is not running",
		"Start: ", "GetState: 1", "GetIP: 192.0.2.6", "Kill: error: Panic in the driver: no kill here",
		"Remove: ", "GetState: error: host not found", "Remove: ", "Upgrade: error: rpc: can't find method RPCServerDriver.Upgrade",
		`GetConfigRaw: {"IPAddress":"192.0.2.6","MachineName":"web1","SSHKeyPath":"","SSHPort":0,"SSHUser":"","Size":8,"StorePath":"`+store+`","SwarmDiscovery":"","SwarmHost":"","SwarmMaster":false}`,
		"Close: exit status 0, soon: true")
}

func TestServeRefuses(t *testing.T) {
	store := t.TempDir()
	wantTalk(t, talk(t, "files",
		newHost(t, store, "web1"), `SetConfigFromFlags={"files-size":"8"}`, `SetConfigFromFlags={"files-zone":"nowhere"}`, "PreCreateCheck",
		`SetConfigFromFlags={"files-zone":"panic"}`, "Create", "GetVersion",
		newHost(t, store, "../web1"), "Create", newHost(t, "", "web1"), "Create", "SetConfigRaw=[]", "Close"),
		"SetConfigRaw: ", "SetConfigFromFlags: error: --files-size: want a int, got a string", "SetConfigFromFlags: ", "PreCreateCheck: error: zone nowhere is not known",
		"SetConfigFromFlags: ", "Create: error: Panic in the driver: out of files", "GetVersion: 1",
		"SetConfigRaw: ", `Create: error: Error creating machine: Invalid hostname specified. Allowed hostname chars are: 0-9a-zA-Z . - (got "../web1")`,
		"SetConfigRaw: ", "Create: error: the client did not say where its store is",
		"SetConfigRaw: error: Driver object: json: cannot unmarshal array into Go value of type struct { MachineName string; StorePath string }",
		"said: making a file", "Close: exit status 0, soon: true")
	if left, err := filepath.Glob(filepath.Join(store, "*web1*")); err != nil || len(left) > 0 {
		t.Errorf("made outside of the machines' folder: %v %v", left, err)
	}
}

func TestServeADriverWithoutAbilities(t *testing.T) {
	store := t.TempDir()
	wantTalk(t, talk(t, "plain",
		newHost(t, store, "web1"), "GetState", "GetCreateFlags", `SetConfigFromFlags={"url":"x"}`, "PreCreateCheck", "Create",
		"GetState", "GetURL", "GetIP", "GetIPv6", "Start", "Kill", "Close"),
		"SetConfigRaw: ", "GetState: 0", "GetCreateFlags: ", "SetConfigFromFlags: ", "PreCreateCheck: ", "Create: ",
		"GetState: 1", "GetURL: tcp://[2001:db8::1]:2376", "GetIP: 2001:db8::1", "GetIPv6: 2001:db8::1",
		"Start: error: driver plain cannot start, stop, restart or kill a host", "Kill: error: driver plain cannot start, stop, restart or kill a host",
		"Close: exit status 0, soon: true")
}

// docker-machine would go on over SSH, which such a host has not.
func TestServeADriverThatRunsItsEngine(t *testing.T) {
	store := t.TempDir()
	got := talk(t, "itself", newHost(t, store, "web1"), "PreCreateCheck", "Create", "GetSSHHostname", "GetState", "Close")
	why := "error: driver itself starts a host's Docker Engine itself, and its hosts have no SSH; docker-machine would go on to install an engine over SSH. " +
		"Create the machine with berth (berth create -d itself NAME); once it is there, it can be listed, started, stopped and removed from here as well"
	wantTalk(t, got, "SetConfigRaw: ", "PreCreateCheck: "+why, "Create: "+why,
		"GetSSHHostname: error: hosts of driver itself have no SSH", "GetState: error: host not found", "Close: exit status 0, soon: true")
}

// A client that is gone without a word, or says nothing any more, is not waited for.
func TestServeEndsWithItsClient(t *testing.T) {
	t.Setenv("BERTH_TEST_SILENCE", "short")
	for _, way := range []string{"leave", "stall"} {
		wantTalk(t, talk(t, "files", "GetVersion", way), "GetVersion: 1", way+": exit status 1, soon: true")
	}
}

// What is being made for a client that leaves is taken back: nobody else knows of it.
func TestServeUndoesTheCreateOfAClientThatLeft(t *testing.T) {
	t.Setenv("BERTH_TEST_SILENCE", "short")
	store := t.TempDir()
	got := talk(t, "files", newHost(t, store, "web1"), `SetConfigFromFlags={"files-zone":"slow"}`, "Create")
	if !strings.Contains(got, "Create: error: ") { // with an answer or without one
		t.Errorf("the client heard\n%s", got)
	}
	if _, err := os.Stat(filepath.Join(store, "machines", "web1", "host")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the host is still there: %v", err)
	}
}

func TestServeWantsToBeInvited(t *testing.T) {
	t.Setenv(tokenVariable, "")
	err := Serve(t.Context(), "files", files{}, os.Stdout)
	if !errors.Is(err, ErrNotInvited) {
		t.Fatalf("serve = %v, want %v", err, ErrNotInvited)
	}
	wantError(t, err, "This is a Docker Machine plugin binary.", "(API version: 1)")
}

func TestAsked(t *testing.T) {
	for name, tt := range map[string]struct {
		argv0, token, driver, want string
	}{
		"by its name":                {"/usr/bin/docker-machine-driver-local", "", "", "local"},
		"by its name, on Windows":    {"docker-machine-driver-local.exe", "42", "other", "local"},
		"as docker-machine does":     {"/usr/bin/berth", "42", "none", "none"},
		"a variable that is left":    {"berth", "", "none", ""},
		"another token":              {"berth", "41", "none", ""},
		"a token that leads nowhere": {"berth", "42", "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv(tokenVariable, tt.token)
			t.Setenv(nameVariable, tt.driver)
			got, asked := Asked([]string{tt.argv0})
			if asked != (tt.want != "") || asked && got != tt.want {
				t.Errorf("asked for %q %v, want %q", got, asked, tt.want)
			}
		})
	}
}

// Who is not this user, and not root, is not let in; who is, is known by the kernel.
func TestTheOwnerOfAConnection(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	ours, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer ours.Close()
	theirs, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer theirs.Close()
	if !sameUser(theirs) {
		t.Error("our own connection is taken for another user's")
	}
}
