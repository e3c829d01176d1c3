package api

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"berth/internal/fleet"
)

// swarmFleet is a fleet whose first engines form a swarm, of which the first is the only manager.
func swarmFleet(t *testing.T, n, members int) *testFleet {
	t.Helper()
	f := newFleet(t, n)
	f.engine(0, "POST", "/swarm/init", map[string]any{})
	var is struct{ JoinTokens struct{ Worker string } }
	if err := json.Unmarshal(f.engine(0, "GET", "/swarm", nil), &is); err != nil {
		t.Fatal(err)
	}
	for i := range members - 1 {
		f.engine(i+1, "POST", "/swarm/join", map[string]any{"JoinToken": is.JoinTokens.Worker})
	}
	for _, n := range f.cluster.Snapshot().Nodes() {
		if err := f.cluster.RefreshInfo(t.Context(), n.ID); err != nil {
			t.Fatal(err)
		}
	}
	return f
}

// engine asks one engine, whose answer has to be good.
func (f *testFleet) engine(i int, method, path string, body any) []byte {
	f.t.Helper()
	status, b := f.daemons[i].Do(method, path, body)
	if status/100 != 2 {
		f.t.Fatalf("n%d: %s %s = %d %s", i+1, method, path, status, b)
	}
	return b
}

// overlayNet makes a network across hosts.
func (f *testFleet) overlayNet(name, subnet string) string {
	f.t.Helper()
	var made struct {
		ID string `json:"Id"`
	}
	f.must(201, "POST", "/networks/create", map[string]any{
		"Name": name, "Driver": "overlay", "IPAM": map[string]any{"Config": []any{map[string]string{"Subnet": subnet}}},
	}).decode(f.t, &made)
	return made.ID
}

// start runs a container on a node in a network.
func (f *testFleet) startOn(node, name, network string) {
	f.t.Helper()
	if got := f.run(name, onNetwork(network, "constraint:node=="+node)); got != node {
		f.t.Fatalf("%s went to %s, want %s", name, got, node)
	}
	f.must(204, "POST", "/containers/"+name+"/start", nil)
}

func TestOverlayNetworkIsOneOfTheFleet(t *testing.T) {
	f := swarmFleet(t, 3, 3)
	id := f.overlayNet("web", "10.50.0.0/24")
	var is struct {
		Attachable bool
		Scope      string
		Containers map[string]struct{ Name, Node string }
	}
	f.must(200, "GET", "/networks/web", nil).decode(t, &is)
	if !is.Attachable || is.Scope != "swarm" {
		t.Errorf("network = %+v, want attachable, of scope swarm", is)
	}
	for i, node := range []string{"n1", "n2", "n3"} {
		f.startOn(node, fmt.Sprintf("c%d", i+1), "web")
	}
	rows := f.networks(`{"type":["custom"]}`)
	if len(rows) != 1 || rows[0].ID != id || rows[0].Labels[fleet.LabelNode] != "" {
		t.Errorf("networks = %+v, want web alone, of no node", rows)
	}
	for filter, want := range map[string]int{`{"dangling":["false"],"type":["custom"]}`: 1, `{"dangling":["true"]}`: 0, `{"scope":["swarm"]}`: 2, `{"driver":["overlay"],"name":["web"]}`: 1} {
		if got := len(f.networks(filter)); got != want {
			t.Errorf("networks by %s: %d, want %d", filter, got, want)
		}
	}
	f.must(200, "GET", "/networks/"+id[:8], nil).decode(t, &is)
	var at []string
	for _, c := range is.Containers {
		at = append(at, c.Name+"@"+c.Node)
	}
	slices.Sort(at)
	if got := strings.Join(at, " "); got != "c1@n1 c2@n2 c3@n3" {
		t.Errorf("containers = %s", got)
	}
	f.fails("DELETE", "/networks/web", nil, 403, "error while removing network: network web id "+id+" has active endpoints: n1/c1, n2/c2, n3/c3")
	f.fails("POST", "/networks/create", map[string]any{"Name": "web"}, 409, "network with name web already exists")
	for _, c := range []string{"c1", "c2", "c3"} {
		f.must(204, "DELETE", "/containers/"+c+"?force=1", nil)
	}
	f.must(204, "DELETE", "/networks/web", nil)
	if got := f.networks(`{"type":["custom"]}`); len(got) != 0 {
		t.Errorf("networks after the removal: %v", got)
	}
	f.must(404, "GET", "/networks/web", nil)
}

func TestOverlaySubnets(t *testing.T) {
	f := swarmFleet(t, 2, 2)
	f.overlayNet("web", "10.50.0.0/24")
	f.must(201, "POST", "/networks/create", map[string]any{"Name": "n2/local", "IPAM": map[string]any{"Config": []any{map[string]string{"Subnet": "10.60.0.0/16"}}}})
	made := 0
	for subnet, want := range map[string]string{
		"10.50.0.128/25": "403 Pool overlaps with other one on this address space: subnet 10.50.0.128/25 overlaps with network web",
		"10.60.7.0/24":   "403 Pool overlaps with other one on this address space: subnet 10.60.7.0/24 overlaps with network local of node n2",
		"10.51.0.0/24":   "201 ",
		"nonsense":       `400 invalid subnet nonsense: netip.ParsePrefix("nonsense"): no '/'`,
	} {
		a := f.do("POST", "/networks/create", map[string]any{"Name": fmt.Sprint("other", made), "Driver": "overlay", "IPAM": map[string]any{"Config": []any{map[string]string{"Subnet": subnet}}}})
		made++
		got := fmt.Sprintf("%d ", a.status)
		if a.status != 201 {
			got += engineMessage(a.body)
		}
		if got != want {
			t.Errorf("subnet %s: %s, want %s", subnet, got, want)
		}
	}
}

func TestOverlayNetworkWithoutASwarm(t *testing.T) {
	f := newFleet(t, 1)
	f.fails("POST", "/networks/create", map[string]any{"Name": "web", "Driver": "overlay"}, 503,
		"overlay networks need Swarm mode beneath, and no node that answers is a manager of one: start berth serve with --overlay, or call berth overlay up")
}

// keptOverlay is an Overlay that is on.
type keptOverlay struct {
	status fleet.OverlayStatus
	asked  []string
}

func (o *keptOverlay) Defaults() (map[string]string, bool) {
	return map[string]string{"encrypted": "", "com.docker.network.driver.mtu": "1400"}, true
}
func (o *keptOverlay) Status() fleet.OverlayStatus { return o.status }
func (o *keptOverlay) Up(_ context.Context, w OverlayWish) error {
	o.asked = append(o.asked, fmt.Sprintf("up %+v", w))
	return nil
}
func (o *keptOverlay) Down(_ context.Context, force bool) error {
	o.asked = append(o.asked, fmt.Sprint("down ", force))
	return nil
}
func (o *keptOverlay) ForceNewCluster(context.Context) error {
	o.asked = append(o.asked, "force")
	return nil
}

func TestNetworksWithoutADriver(t *testing.T) {
	f := swarmFleet(t, 2, 2)
	f.api.o.Overlay = &keptOverlay{}
	cli := func(body string) string {
		t.Helper()
		r, err := http.NewRequestWithContext(t.Context(), "POST", f.URL+"/v1.41/networks/create", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Content-Type", "application/json")
		r.Header.Set("User-Agent", "Docker-Client/28.0 (linux)")
		res, err := f.Client().Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		return res.Status
	}
	f.network("api")
	f.must(201, "POST", "/networks/create", map[string]any{"Name": "apibridge", "Driver": "bridge"})
	f.must(201, "POST", "/networks/create", map[string]any{"Name": "n2/pinned"})
	for name, fields := range map[string]string{"cli": "", "scoped": `,"Scope":"local"`, "optioned": `,"Options":{"com.docker.network.bridge.name":"br7"}`} {
		if got := cli(`{"Name":"` + name + `","Driver":"bridge"` + fields + `}`); got != "201 Created" {
			t.Errorf("create of %s: %s", name, got)
		}
	}
	for name, want := range map[string]string{"api": "overlay", "cli": "overlay", "apibridge": "bridge", "pinned": "bridge", "scoped": "bridge", "optioned": "bridge"} {
		var is struct {
			Driver  string
			Options map[string]string
		}
		f.must(200, "GET", "/networks/"+name, nil).decode(t, &is)
		if is.Driver != want {
			t.Errorf("driver of %s = %s, want %s", name, is.Driver, want)
		}
		if _, encrypted := is.Options["encrypted"]; encrypted != (want == "overlay") || want == "overlay" && is.Options["com.docker.network.driver.mtu"] != "1400" {
			t.Errorf("options of %s = %v", name, is.Options)
		}
	}
}

func TestContainersOnOverlayGoWhereItIs(t *testing.T) {
	f := swarmFleet(t, 3, 2)
	f.overlayNet("web", "10.50.0.0/24")
	if got := f.run("far", onNetwork("web", "constraint:node==n3")); !strings.HasPrefix(got, "503 no node fits far: ") || !strings.Contains(got, "1 has not joined the overlay networks") && !strings.Contains(got, "of 3 has not joined the overlay networks") {
		t.Errorf("on a node outside of the swarm: %s", got)
	}
	nodes := map[string]int{}
	for i := range 6 {
		nodes[f.run(fmt.Sprintf("c%d", i), onNetwork("web"))]++
	}
	if nodes["n1"] != 3 || nodes["n2"] != 3 {
		t.Errorf("six containers by node: %v", nodes)
	}
	a := f.do("POST", "/networks/web/connect", map[string]any{"Container": f.created("other", "n3")})
	if a.status != 400 || !strings.Contains(engineMessage(a.body), "node n3, which takes no part in overlay networks") {
		t.Errorf("connect on a node outside: %d %s", a.status, a.body)
	}
}

func (f *testFleet) created(name, node string) string {
	f.t.Helper()
	if got := f.run(name, map[string]any{"Env": []string{"constraint:node==" + node}}); got != node {
		f.t.Fatalf("%s: %s", name, got)
	}
	return name
}

func TestStartOnANodeThatHasNotHeardOfTheNetwork(t *testing.T) {
	f := swarmFleet(t, 2, 2)
	f.overlayNet("web", "10.50.0.0/24")
	f.run("late", onNetwork("web", "constraint:node==n2"))
	for range 2 {
		f.daemons[1].FailNext("POST", "/containers/", 500, "Could not attach to network web: rpc error: code = NotFound desc = network web not found")
	}
	f.daemons[1].FailNext("POST", "/containers/", 404, "network 8fqg5zehtj72 not found")
	f.must(204, "POST", "/containers/late/start", nil)
	f.run("bad", onNetwork("web", "constraint:node==n2"))
	f.daemons[1].FailNext("POST", "/containers/", 400, "OCI runtime create failed: exec: no such file")
	f.fails("POST", "/containers/bad/start", nil, 400, "OCI runtime create failed: exec: no such file")
	f.daemons[1].FailNext("POST", "/networks/", 500, "could not find network web after successful attachment")
	f.must(200, "POST", "/networks/web/connect", map[string]any{"Container": f.started("joins", "n2")})
}

func (f *testFleet) started(name, node string) string {
	f.t.Helper()
	f.created(name, node)
	f.must(204, "POST", "/containers/"+name+"/start", nil)
	return name
}

// An address that was asked for is marked, and one that another container has is refused at once.
func TestAddressesInOverlayNetworks(t *testing.T) {
	f := swarmFleet(t, 3, 3)
	f.overlayNet("web", "10.50.0.0/24")
	at := func(address string) map[string]any {
		return map[string]any{
			"HostConfig":       map[string]any{"NetworkMode": "web"},
			"NetworkingConfig": map[string]any{"EndpointsConfig": map[string]any{"web": map[string]any{"IPAMConfig": map[string]string{"IPv4Address": address}}}},
		}
	}
	first := f.run("one", at("10.50.0.9"))
	f.must(204, "POST", "/containers/one/start", nil)
	var is struct {
		NetworkSettings struct {
			Networks map[string]struct {
				IPAddress  string
				DriverOpts map[string]string
			}
		}
	}
	f.must(200, "GET", "/containers/one/json", nil).decode(t, &is)
	if got := is.NetworkSettings.Networks["web"]; got.IPAddress != "10.50.0.9" || got.DriverOpts[fleet.OptionAddress] == "" {
		t.Errorf("place of one = %+v", got)
	}
	f.run("two", at("10.50.0.9"))
	held := "Address already in use: 10.50.0.9 in network web is that of one on node " + first
	f.fails("POST", "/containers/two/start", nil, 403, held)
	three := f.started("three", "n3")
	f.fails("POST", "/networks/web/connect", map[string]any{"Container": three, "EndpointConfig": map[string]any{"IPAMConfig": map[string]string{"IPv4Address": "10.50.0.9"}}}, 403, held)
	gone := at("10.50.0.9")
	gone["HostConfig"] = map[string]any{"NetworkMode": "web", "AutoRemove": true}
	f.run("gone", gone)
	f.fails("POST", "/containers/gone/start", nil, 403, held)
	f.must(404, "GET", "/containers/gone/json", nil)
	f.must(200, "POST", "/networks/web/connect", map[string]any{"Container": three, "EndpointConfig": map[string]any{"IPAMConfig": map[string]string{"IPv4Address": "10.50.0.10"}}})
	f.must(200, "POST", "/networks/web/disconnect", map[string]any{"Container": three})
}

func TestPruneTellsOverlayNetworksOnce(t *testing.T) {
	f := swarmFleet(t, 3, 3)
	f.overlayNet("unused", "10.50.0.0/24")
	f.overlayNet("used", "10.51.0.0/24")
	f.startOn("n2", "user", "used")
	f.must(201, "POST", "/networks/create", map[string]any{"Name": "n2/local"})
	var p struct{ NetworksDeleted []string }
	f.must(200, "POST", "/networks/prune", nil).decode(t, &p)
	slices.Sort(p.NetworksDeleted)
	if got := strings.Join(p.NetworksDeleted, " "); got != "local unused" {
		t.Errorf("pruned: %s", got)
	}
}

func TestOverlayRoutes(t *testing.T) {
	f := newFleet(t, 1)
	f.fails("GET", "/berth/overlay", nil, 503, "this endpoint keeps no overlay networks")
	o := &keptOverlay{status: fleet.OverlayStatus{On: true, State: "degraded", Managers: 3, Reachable: 2}}
	f.api.o.Overlay = o
	var s fleet.OverlayStatus
	f.must(200, "GET", "/berth/overlay", nil).decode(t, &s)
	if s.State != "degraded" {
		t.Errorf("status = %+v", s)
	}
	f.must(200, "POST", "/berth/overlay/up", map[string]any{"Settings": true, "MTU": 1400})
	f.must(200, "POST", "/berth/overlay/up", map[string]any{"ForceNewCluster": true})
	f.must(200, "POST", "/berth/overlay/down?force=1", nil)
	want := "[up {Settings:true Encrypted:false MTU:1400 DataInterface: Pool: ForceNewCluster:false} force down true]"
	if got := fmt.Sprint(o.asked); got != want {
		t.Errorf("asked %s, want %s", got, want)
	}
	var info struct {
		SystemStatus [][2]string
		Swarm        struct{ LocalNodeState string }
	}
	f.must(200, "GET", "/info", nil).decode(t, &info)
	if !slices.Contains(info.SystemStatus, [2]string{"Overlay", "degraded, 2 of 3 managers"}) || info.Swarm.LocalNodeState != "inactive" {
		t.Errorf("info = %+v", info)
	}
}
