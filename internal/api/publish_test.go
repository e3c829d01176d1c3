package api

import (
	"net/http"
	"strings"
	"testing"

	"berth/internal/fleet"
	"berth/internal/rawjson"
)

// fakeIngress finds one port taken.
type fakeIngress struct {
	taken    fleet.Hindrance
	strict   bool
	claims   []string
	hindered map[string][]fleet.Hindrance
}

func (f *fakeIngress) Strict() bool { return f.strict }
func (f *fakeIngress) Follow()      {}

func (f *fakeIngress) Hindered(id string) []fleet.Hindrance { return f.hindered[id] }

func (f *fakeIngress) Claim(_ *fleet.Node, c *fleet.Container) (func(bool), error) {
	for _, p := range c.Wanted {
		if f.strict && p.HostPort == f.taken.HostPort {
			return nil, &fleet.PortTakenError{Hindrance: f.taken}
		}
	}
	f.claims = append(f.claims, "claim "+c.Name)
	return func(started bool) {
		if started {
			f.claims = append(f.claims, "started "+c.Name)
		} else {
			f.claims = append(f.claims, "not started "+c.Name)
		}
	}, nil
}

func (f *fakeIngress) Conflicts(_ *fleet.Node, ports []fleet.Port, predecessor func(string) bool) []fleet.Hindrance {
	var all []fleet.Hindrance
	for _, p := range ports {
		if p.HostPort == f.taken.HostPort && !predecessor("web") {
			all = append(all, f.taken)
		}
	}
	return all
}

func published(port string, labels map[string]string) map[string]any {
	return map[string]any{
		"Image": "busybox", "Cmd": []string{"sleep", "1000"}, "Labels": labels,
		"HostConfig": map[string]any{"PortBindings": map[string]any{"80/tcp": []any{map[string]string{"HostPort": port}}}},
	}
}

func TestPortsAtTheEndpoint(t *testing.T) {
	f := newFleet(t, 2)
	taken := fleet.Hindrance{Port: fleet.Port{Proto: "tcp", HostIP: "0.0.0.0", HostPort: 8080, Port: 80}, Reason: "it is taken", Elsewhere: "10.9.9.9"}
	in := &fakeIngress{taken: taken, hindered: map[string][]fleet.Hindrance{}}
	f.api.o.Ingress = in

	// A port that is taken: a warning.
	service := map[string]string{fleet.LabelProject: "p", labelService: "s"}
	var made struct{ Warnings []string }
	f.must(http.StatusCreated, "POST", "/containers/create?name=web", published("8080", service)).decode(t, &made)
	if len(made.Warnings) != 1 || !strings.Contains(made.Warnings[0], "Port 8080 does not lead to this container on the endpoint's computer: it is taken. The container is reached at 10.9.9.9") {
		t.Errorf("warnings: %q", made.Warnings)
	}
	f.must(http.StatusNoContent, "POST", "/containers/web/start", nil)
	// Where it is an error: at create, but not for what takes the place of who has it; and at start.
	in.strict = true
	f.fails("POST", "/containers/create?name=other", published("8080", nil), http.StatusConflict, "Bind for 0.0.0.0:8080 failed: port is already allocated: it is taken")
	replacing := map[string]string{fleet.LabelProject: "p", labelService: "s", labelReplaces: "web"}
	f.must(http.StatusCreated, "POST", "/containers/create?name=next", published("8080", replacing))
	f.fails("POST", "/containers/next/start", nil, http.StatusConflict, "Bind for 0.0.0.0:8080 failed: port is already allocated: it is taken")
	f.must(http.StatusCreated, "POST", "/containers/create?name=free", published("8081", nil))
	f.must(http.StatusNoContent, "POST", "/containers/free/start", nil)
	f.must(http.StatusNoContent, "POST", "/containers/free/stop?t=0", nil)
	if got, want := strings.Join(in.claims, ", "), "claim web, started web, claim free, started free"; got != want {
		t.Errorf("claims: %s, want %s", got, want)
	}
}

// What does not answer at the endpoint is shown with the address that does; all else is left as it is.
func TestAddressesThatAnswer(t *testing.T) {
	hindered := []fleet.Hindrance{
		{Port: fleet.Port{Proto: "tcp", HostIP: "", HostPort: 8080, Port: 80}, Elsewhere: "10.9.9.9"},
		{Port: fleet.Port{Proto: "tcp", HostIP: "127.0.0.1", HostPort: 8081, Port: 81}}, // that answers nowhere we know
	}
	row, err := rawjson.Parse([]byte(`{"Ports":[{"IP":"0.0.0.0","PrivatePort":80,"PublicPort":8080,"Type":"tcp","New":1},{"IP":"::","PrivatePort":80,"PublicPort":8080,"Type":"tcp","New":1},` +
		`{"IP":"0.0.0.0","PrivatePort":80,"PublicPort":8080,"Type":"udp"},{"IP":"127.0.0.1","PrivatePort":81,"PublicPort":8081,"Type":"tcp"},{"PrivatePort":90,"Type":"tcp"}],"X":[1e400]}`))
	if err != nil {
		t.Fatal(err)
	}
	if err := showPorts(row, hindered); err != nil {
		t.Fatal(err)
	}
	want := `{"Ports":[{"IP":"10.9.9.9","PrivatePort":80,"PublicPort":8080,"Type":"tcp","New":1},{"IP":"0.0.0.0","PrivatePort":80,"PublicPort":8080,"Type":"udp"},` +
		`{"IP":"127.0.0.1","PrivatePort":81,"PublicPort":8081,"Type":"tcp"},{"PrivatePort":90,"Type":"tcp"}],"X":[1e400]}`
	if got := string(row.Bytes()); got != want {
		t.Errorf("row\n%s, want\n%s", got, want)
	}
	b, err := inspectPorts([]byte(`{"Id":"a","NetworkSettings":{"Ports":{"80/tcp":[{"HostIp":"0.0.0.0","HostPort":"8080"},{"HostIp":"::","HostPort":"8080"}],"81/tcp":null,"90/tcp":[]},"Y":1}}`), hindered)
	want = `{"Id":"a","NetworkSettings":{"Ports":{"80/tcp":[{"HostIp":"10.9.9.9","HostPort":"8080"}],"81/tcp":null,"90/tcp":[]},"Y":1}}`
	if got := strings.TrimSpace(string(b)); err != nil || got != want {
		t.Errorf("inspection\n%s, %v, want\n%s", got, err, want)
	}
}
