package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"berth/internal/dockertest"
	"berth/internal/fleet"
)

// createAs makes a create with headers, and returns its whole answer.
func (f *testFleet) createAs(query string, body any, headers ...string) answer {
	f.t.Helper()
	b, err := json.Marshal(body)
	if err != nil {
		f.t.Fatal(err)
	}
	r, err := http.NewRequestWithContext(f.t.Context(), "POST", f.URL+"/v1.41/containers/create?"+query, bytes.NewReader(b))
	if err != nil {
		f.t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	res, err := f.Client().Do(r)
	if err != nil {
		f.t.Fatal(err)
	}
	defer res.Body.Close()
	var out bytes.Buffer
	if _, err := out.ReadFrom(res.Body); err != nil {
		f.t.Fatal(err)
	}
	return answer{res.StatusCode, res.Header, out.Bytes()}
}

// place is a dry run of a create.
func (f *testFleet) place(query string, body any) Placement {
	f.t.Helper()
	a := f.createAs(query, body, dryRunHeader, "1")
	var p Placement
	a.decode(f.t, &p)
	if p.Status != 0 && p.Status != a.status {
		f.t.Errorf("the answer has status %d and says %d", a.status, p.Status)
	}
	p.Status = a.status
	return p
}

func with(fields ...any) map[string]any {
	body := map[string]any{"Image": "busybox"}
	for i := 0; i < len(fields); i += 2 {
		body[fields[i].(string)] = fields[i+1]
	}
	return body
}

func env(entries ...string) []any { return []any{"Env", entries} }
func host(fields ...any) []any    { return []any{"HostConfig", objectOf(fields)} }
func bindings(port, on string) any {
	return map[string]any{port: []any{map[string]string{"HostPort": on}}}
}
func objectOf(fs []any) (m map[string]any) {
	m = map[string]any{}
	for i := 0; i < len(fs); i += 2 {
		m[fs[i].(string)] = fs[i+1]
	}
	return m
}

// steps are creates that build on each other: what each leaves is what the next finds.
func steps() []struct {
	query string
	body  map[string]any
} {
	type step = struct {
		query string
		body  map[string]any
	}
	return []step{
		{"name=step-a", with()},
		{"name=step-a", with()},
		{"name=step-b", with()},
		{"name=step-c", with()},
		{"name=step-d", with(host("Memory", 1<<30)...)},
		{"name=step-e", with(host("Memory", int64(1)<<50)...)},
		{"name=step-f", with(host("NanoCpus", int64(1_000_000_000))...)},
		{"name=step-g", with(host("PortBindings", bindings("80/tcp", "8080"))...)},
		{"name=step-h", with(host("PortBindings", bindings("80/tcp", "8080"))...)},
		{"name=step-i", with(host("PortBindings", bindings("80/tcp", "8080"))...)},
		{"name=step-j", with(host("PortBindings", bindings("80/tcp", "8080"))...)},
		{"name=step-k", with(env("constraint:node==n2")...)},
		{"name=step-l", with(env("constraint:size==xxl")...)},
		{"name=step-m", with(env("constraint:size==~xxl")...)},
		{"name=step-n", with(env("constraint:size")...)},
		{"name=step-o", with(env("affinity:container==step-k")...)},
		{"name=step-p", with(env("affinity:container!=/step-[a-m]/")...)},
		{"name=step-q", with(host("VolumesFrom", []string{"step-k"})...)},
		{"name=step-r", with(host("VolumesFrom", []string{"nosuch"})...)},
		{"name=step-s", with(host("VolumesFrom", []string{"step-k"}, "Links", []string{"step-a:a", "step-b:b", "step-c:c"})...)},
		{"name=step-t", with(host("NetworkMode", "nosuch")...)},
		{"name=n3/step-u", with()},
		{"name=n9/step-u", with()},
		{"name=*", with()},
		{"name=step-v", with("Image", "nosuch")},
		{"name=step-w", with("Labels", map[string]string{labelSession: "1"})},
		{"name=step-x", with("Labels", map[string]string{labelSession: "1"})},
		{"name=step-y", with(host("Binds", []string{"data:/data"})...)},
		{"name=step-z", with(append(host("Binds", []string{"data:/data"}), env("constraint:node!=/n[123]/")...)...)},
		{"platform=linux/s390x", with()},
	}
}

// TestDryRunAnswersWhatACreateWould compares each dry run with the create that follows it.
func TestDryRunAnswersWhatACreateWould(t *testing.T) {
	f := newFleet(t, 3, func(o *dockertest.Options) { o.Labels = []string{"slot=" + o.Name} })
	seen := map[int]bool{}
	for i, st := range steps() {
		before := f.api.fleet.Snapshot().Containers()
		dry := f.place(st.query, st.body)
		if now := f.api.fleet.Snapshot().Containers(); now != before {
			t.Fatalf("step %d: a dry run made a container", i)
		}
		real := f.createAs(st.query, st.body)
		message := ""
		if real.status != http.StatusCreated {
			message = engineMessage(real.body)
		}
		node := real.header.Get("X-Berth-Node")
		if real.status == http.StatusNotFound {
			node = dry.Node // the real one does not say
		}
		seen[real.status] = true
		want := Placement{Status: real.status, Message: message, Node: node}
		if want.Status == http.StatusCreated {
			want.Status = http.StatusOK
		}
		if got := (Placement{Status: dry.Status, Message: dry.Message, Node: dry.Node}); got.Status != want.Status || got.Message != want.Message || got.Node != want.Node {
			t.Errorf("step %d, %s %v:\n dry run %d %q %q\n create  %d %q %q", i, st.query, st.body,
				got.Status, got.Node, got.Message, want.Status, want.Node, want.Message)
		}
	}
	for _, status := range []int{201, 400, 404, 409, 503} {
		if !seen[status] {
			t.Errorf("no step of this test is answered with %d", status)
		}
	}
}

// TestRehearsalPlacesEachWithThoseBeforeIt compares one rehearsal of all with what really happens.
func TestRehearsalPlacesEachWithThoseBeforeIt(t *testing.T) {
	f := newFleet(t, 3)
	var ask Rehearsal
	for _, name := range []string{"1", "2", "3", "4", "5", "6", "7"} {
		body, err := json.Marshal(with(host("PortBindings", bindings("80/tcp", "80"), "Memory", 64<<20)...))
		if err != nil {
			t.Fatal(err)
		}
		if name > "3" {
			body = []byte(`{"Image":"busybox"}`)
		}
		ask.Requests = append(ask.Requests, RehearsedCreate{Name: "bird-" + name, Body: body})
	}
	dry := f.rehearsed(ask)
	for i, c := range ask.Requests {
		real := f.createAs("name="+c.Name, c.Body)
		if got, want := dry[i].Node, real.header.Get("X-Berth-Node"); got != want || want == "" {
			t.Errorf("%s: rehearsed on %q, created on %q", c.Name, got, want)
		}
	}
}

func (f *testFleet) rehearsed(ask Rehearsal) []Placement {
	f.t.Helper()
	var out struct{ Placements []Placement }
	f.must(200, "POST", "/berth/place", ask).decode(f.t, &out)
	if len(out.Placements) != len(ask.Requests) {
		f.t.Fatalf("%d placements for %d requests", len(out.Placements), len(ask.Requests))
	}
	return out.Placements
}

func raw(v any) json.RawMessage {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return b
}

func TestRehearsedProjectFollowsItsFirstContainer(t *testing.T) {
	f := newFleet(t, 3)
	labels := map[string]string{fleet.LabelProject: "web"}
	ask := Rehearsal{
		Networks: []json.RawMessage{raw(map[string]any{"Name": "web_default", "Labels": labels})},
		Volumes:  []json.RawMessage{raw(map[string]any{"Name": "web_data", "Labels": labels})},
	}
	for _, node := range []string{"n1", "n2", "n3"} {
		ask.Requests = []RehearsedCreate{
			{Name: "web-db-1", Body: raw(with(append(host("NetworkMode", "web_default", "Binds", []string{"web_data:/d"}), env("constraint:node=="+node)...)...))},
			{Name: "web-app-1", Body: raw(with(host("NetworkMode", "web_default")...))},
			{Name: "web-app-1", Body: raw(with(host("NetworkMode", "web_default")...))},
			{Name: "far", Body: raw(with(append(host("NetworkMode", "web_default"), env("constraint:node!="+node)...)...))},
		}
		dry := f.rehearsed(ask)
		if dry[0].Node != node || dry[1].Node != node || dry[2].Status != 409 || dry[3].Status != 503 {
			t.Errorf("on %s: %+v", node, dry)
		}
	}
	if at := f.networksAt() + f.volumesAt(""); at != "" {
		t.Errorf("rehearsals made %s", at)
	}
}

func TestDryRunTellsWhatWouldMove(t *testing.T) {
	f := newFleet(t, 2)
	f.network("front", project+"web")
	home := f.networksAt()
	node := map[string]string{"front@n1": "n2", "front@n2": "n1"}[home]
	p := f.place("name=web", onNetwork("front", "constraint:node=="+node))
	want := fmt.Sprintf("[network front from %s to %s]", strings.TrimPrefix(home, "front@"), node)
	if got := fmt.Sprint(p.Moves); got != want || p.Node != node {
		t.Errorf("dry run = %s on %s, want %s on %s", got, p.Node, want, node)
	}
	if now := f.networksAt(); now != home {
		t.Errorf("the dry run moved the network: %s, was %s", now, home)
	}
	if got := f.run("web", onNetwork("front", "constraint:node=="+node)); got != node {
		t.Errorf("the create after it = %s, want %s", got, node)
	}
}

func TestDryRunSaysWhereTheImageComesFrom(t *testing.T) {
	f := newFleet(t, 2, func(o *dockertest.Options) {
		if o.Name == "n1" {
			o.Images = append(o.Images, "only1")
		}
	})
	for _, tt := range []struct {
		image, node, want string
		status            int
	}{
		{"only1", "n1", ImagePresent, 200},
		{"only1", "n2", ImageCopy, 200},
		{"nosuch", "n2", ImagePull, 404},
	} {
		p := f.place("", with("Image", tt.image, "Env", []string{"constraint:node==" + tt.node}))
		if p.Status != tt.status || p.Image != tt.want || p.Node != tt.node {
			t.Errorf("%s on %s = %d %s on %q, want %d %s", tt.image, tt.node, p.Status, p.Image, p.Node, tt.status, tt.want)
		}
	}
	if p := f.place("", with("Image", "only1")); p.Node != "n1" || p.Decided != "as good as others, and has the image or was asked to pull it" {
		t.Errorf("only1 goes to %s: %s", p.Node, p.Decided)
	}
	if p := f.place("", with("Image", "nosuch")); p.Message != "No such image: nosuch:latest" {
		t.Errorf("message = %q", p.Message)
	}
	var images []map[string]any
	_, b := f.daemons[1].Do("GET", "/images/json", nil)
	if err := json.Unmarshal(b, &images); err != nil || len(images) != 1 {
		t.Errorf("n2 has %d images after dry runs, want 1 (%v)", len(images), err)
	}
}

func TestDryRunJudgesEveryNode(t *testing.T) {
	f := newFleet(t, 3, func(o *dockertest.Options) {
		if o.Name != "n3" {
			o.Labels = []string{"disk=ssd"}
		}
	})
	f.run("old", map[string]any{"Env": []string{"constraint:node==n1"}})
	p := f.place("name=web", with(env("constraint:disk==ssd", "affinity:container!=~old")...))
	var got []string
	for _, v := range p.Nodes {
		got = append(got, fmt.Sprintf("%s fits=%t %s %q %d/%d containers=%d", v.Name, v.Fits, v.Filter, v.Reason, v.Granted, v.Wishes, v.Containers))
	}
	want := []string{
		`n2 fits=true  "" 1/1 containers=0`,
		`n1 fits=true  "" 0/1 containers=1`,
		`n3 fits=false constraint "lacks constraint disk==ssd" 0/0 containers=0`,
	}
	if !slices.Equal(got, want) || p.Decided != "grants most of the soft expressions" {
		t.Errorf("%s\n%s\nwant\n%s", p.Decided, strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestWhatDecides(t *testing.T) {
	f := newFleet(t, 2)
	if got := f.place("name=step-x", with()).Decided; got != "as good as others" {
		t.Errorf("two equal nodes: %q", got)
	}
	f.run("old", map[string]any{"Env": []string{"constraint:node==n1"}, "HostConfig": map[string]any{"Memory": 1 << 30}})
	for want, body := range map[string]map[string]any{
		"fewest containers":  with(),
		"lowest weight":      with(host("Memory", 1<<20)...),
		"no other node fits": with(env("constraint:node==n2")...),
	} {
		if got := f.place("name=step-x", body); got.Decided != want || got.Node != "n2" {
			t.Errorf("%v: %q on %s, want %q on n2", body, got.Decided, got.Node, want)
		}
	}
}

func TestDryRunIsNoCreateByMistake(t *testing.T) {
	f := newFleet(t, 1)
	if a := f.createAs("name=step-x", with(), dryRunHeader, "yes please"); a.status != 400 {
		t.Errorf("create with a header that means nothing = %d %s, want 400", a.status, a.body)
	}
	if n := f.cluster.Snapshot().Containers(); n != 0 {
		t.Errorf("%d containers were made", n)
	}
	if a := f.createAs("name=step-x", with(), dryRunHeader, "0"); a.status != 201 {
		t.Errorf("create with the header 0 = %d %s, want 201", a.status, a.body)
	}
	for body, want := range map[string]string{
		`{}`:                        "Requests: nothing to place",
		`{"Requests":[{}]}`:         "",
		`{"Requests":[{"Body":1}]}`: "",
	} {
		a := f.do("POST", "/berth/place", json.RawMessage(body))
		var out struct {
			Message    string
			Placements []Placement
		}
		a.decode(t, &out)
		if out.Message != want || want == "" && (len(out.Placements) != 1 || out.Placements[0].Status != 400) {
			t.Errorf("%s = %d %s", body, a.status, a.body)
		}
	}
}

// TestRehearsalBeginsWhenNothingIsBetweenTwoNodes, since what is would seem to exist nowhere.
func TestRehearsalBeginsWhenNothingIsBetweenTwoNodes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGroups()
		arrive := g.depart(&young{object: object{fleet.KindVolume, "data"}})
		gone, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := g.copy(gone); !errors.Is(err, context.Canceled) {
			t.Errorf("copy for a client that left = %v, want canceled", err)
		}
		began := make(chan error, 1)
		go func() {
			_, err := g.copy(t.Context())
			began <- err
		}()
		synctest.Wait()
		select {
		case err := <-began:
			t.Fatalf("copy did not wait for the move: %v", err)
		default:
		}
		arrive()
		if err := <-began; err != nil {
			t.Errorf("copy after the move: %v", err)
		}
	})
}
