package dockertest

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
)

// TestAnswers holds texts that clients match on; they were seen on Engine 20.10.24 (compare_test.go asks it again).
func TestAnswers(t *testing.T) {
	d := New(t, Options{Images: []string{"busybox"}})
	id := d.AddContainer(Container{Name: "web"})
	d.AddContainer(Container{Name: "idle", State: "created"})
	d.AddContainer(Container{Name: "still", State: "paused"})
	for _, tt := range []struct {
		method, path, body string
		status             int
		message            string
	}{
		{"GET", "/v1.99/info", "", 400, "client version 1.99 is too new. Maximum supported API version is 1.41"},
		{"GET", "/nope", "", 404, "page not found"},
		{"GET", "/v1.41/", "", 404, "page not found"},
		{"PATCH", "/info", "", 404, "page not found"},
		{"GET", "/images/a/b/c", "", 404, "page not found"},
		{"POST", "/containers/create", `{"Image":"nope"}`, 404, "No such image: nope:latest"},
		{"POST", "/containers/create", `{"Image":"nope:1@x"}`, 400, "invalid reference format"},
		{"POST", "/containers/create", `{"Image":"nope"`, 500, "unexpected EOF"},
		{"POST", "/containers/create", `{}`, 400, "Config cannot be empty in order to create a container"},
		{"POST", "/containers/create?name=web", `{"Image":"busybox"}`, 409, `Conflict. The container name "/web" is already in use by container "` + id +
			`". You have to remove (or rename) that container to be able to reuse that name.`},
		{"POST", "/containers/idle/pause", "", 409, "Container " + idOf(t, d, "idle") + " is not running"},
		{"POST", "/containers/still/start", "", 409, "cannot start a paused container, try unpause instead"},
		{"POST", "/containers/web/unpause", "", 500, "Container " + id + " is not paused"},
		{"POST", "/containers/idle/kill", "", 409, "Cannot kill container: idle: Container " + idOf(t, d, "idle") + " is not running"},
		{"POST", "/containers/web/kill?signal=FOO", "", 400, "Invalid signal: FOO"},
		{"DELETE", "/containers/web", "", 409, "You cannot remove a running container " + id +
			". Stop the container before attempting removal or force remove"},
		{"GET", `/containers/json?filters={"foo":["x"]}`, "", 400, "Invalid filter 'foo'"},
		{"GET", `/containers/json?filters=xx`, "", 500, "invalid character 'x' looking for beginning of value"},
		{"POST", "/networks/create", `{"Name":"host"}`, 403, "operation is not permitted on predefined host network "},
		{"DELETE", "/networks/bridge", "", 403, "bridge is a pre-defined network and cannot be removed"},
		{"DELETE", "/volumes/nope", "", 404, "get nope: no such volume"},
		{"GET", "/images/nope/json", "", 404, "no such image: nope: No such image: nope:latest"},
		{"GET", "/services", "", 503, notManager},
	} {
		path, query, _ := strings.Cut(tt.path, "?")
		if k, v, ok := strings.Cut(query, "="); ok {
			path += "?" + k + "=" + url.QueryEscape(v)
		}
		status, answer := d.Do(tt.method, path, []byte(tt.body))
		if got := message(t, answer); status != tt.status || got != tt.message {
			t.Errorf("%s %s %s = %d %q\nwant %d %q", tt.method, tt.path, tt.body, status, got, tt.status, tt.message)
		}
	}
}

func idOf(t *testing.T, d *Daemon, name string) string {
	t.Helper()
	c, ok := d.Find(name)
	if !ok {
		t.Fatalf("no container %s", name)
	}
	return c.ID
}

func TestOldVersionsAreRefusedInPlainText(t *testing.T) {
	d := New(t, Options{MinAPIVersion: "1.24"})
	w := httptest.NewRecorder()
	d.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/v1.20/info", nil))
	want := "client version 1.20 is too old. Minimum supported API version is 1.24, please upgrade your client to a newer version\n"
	if w.Code != 400 || w.Body.String() != want || w.Header().Get("Content-Type") != "text/plain; charset=utf-8" {
		t.Errorf("answer = %d %q %s", w.Code, w.Body, w.Header().Get("Content-Type"))
	}
}

func TestPingHeaders(t *testing.T) {
	for version, builder := range map[string]string{"1.41": "", "1.51": "2"} {
		d := New(t, Options{APIVersion: version})
		w := httptest.NewRecorder()
		d.ServeHTTP(w, httptest.NewRequest(http.MethodHead, "/_ping", nil))
		h := w.Header()
		if w.Code != 200 || h.Get("Api-Version") != version || h.Get("Ostype") != "linux" || h.Get("Builder-Version") != builder || w.Body.Len() != 0 {
			t.Errorf("%s: %d %v %q", version, w.Code, h, w.Body)
		}
	}
}

func TestReferencesToContainers(t *testing.T) {
	d := New(t, Options{})
	id := d.AddContainer(Container{Name: "web"})
	// A name that is a prefix of another's ID wins as a name.
	byName := d.AddContainer(Container{Name: id[:10]})
	for ref, want := range map[string]string{"web": id, id: id, id[:11]: id, id[:10]: byName} {
		var got struct{ ID string }
		if err := json.Unmarshal(mustDo(t, d, 200, "GET", "/containers/"+url.PathEscape(ref)+"/json", nil), &got); err != nil || got.ID != want {
			t.Errorf("%s = %s, %v; want %s", ref, got.ID, err, want)
		}
	}
}

func TestListFilters(t *testing.T) {
	d := New(t, Options{})
	d.AddContainer(Container{Name: "web1", Labels: map[string]string{"tier": "front"}, Ports: []string{"8080:80"}})
	d.AddContainer(Container{Name: "web2", State: "paused", Health: "unhealthy"})
	d.AddContainer(Container{Name: "job", State: "exited", ExitCode: 3, Image: "jobs:2", HostConfig: map[string]any{"Binds": []string{"data:/d"}}})
	d.AddContainer(Container{Name: "new", State: "created", NetworkMode: "none"})
	for _, tt := range []struct{ query, want string }{
		{"", "web2 web1"},
		{"all=1", "new job web2 web1"},
		{"limit=2", "new job"},
		{`all=1&filters={"name":["^/web"]}`, "web2 web1"},
		{`filters={"status":["exited","created"]}`, "new job"},
		{`all=1&filters={"exited":["3"]}`, "job"},
		{`all=1&filters={"exited":["0"]}`, ""},
		{`filters={"label":["tier=front"]}`, "web1"},
		{`filters={"label":{"tier":true}}`, "web1"},
		{`filters={"health":["unhealthy"]}`, "web2"},
		{`filters={"publish":["8000-9000"]}`, "web1"},
		{`filters={"expose":["80/tcp"]}`, "web1"},
		{`all=1&filters={"ancestor":["jobs:2"]}`, "job"},
		{`all=1&filters={"ancestor":["unknown"]}`, ""},
		{`all=1&filters={"volume":["data"]}`, "job"},
		{`all=1&filters={"network":["none"]}`, "new"},
		{`all=1&filters={"before":["job"]}`, "web2 web1"},
		{`all=1&filters={"since":["job"]}`, "new"},
		{`all=1&filters={"id":["` + idOf(t, d, "job")[:8] + `"]}`, "job"},
	} {
		query := url.Values{}
		for kv := range strings.SplitSeq(tt.query, "&") {
			if k, v, ok := strings.Cut(kv, "="); ok {
				query.Set(k, v)
			}
		}
		var rows []struct{ Names []string }
		if err := json.Unmarshal(mustDo(t, d, 200, "GET", "/containers/json?"+query.Encode(), nil), &rows); err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, r := range rows {
			names = append(names, strings.TrimPrefix(r.Names[0], "/"))
		}
		if got := strings.Join(names, " "); got != tt.want {
			t.Errorf("%s lists %q, want %q", tt.query, got, tt.want)
		}
	}
}

func TestPortsAreExclusive(t *testing.T) {
	d := New(t, Options{Images: []string{"busybox"}})
	create := func(name, port, binding string) {
		mustDo(t, d, 201, "POST", "/containers/create?name="+name, []byte(`{"Image":"busybox","Cmd":["sleep","9"],"ExposedPorts":{"`+port+`":{}},`+
			`"HostConfig":{"PortBindings":{"`+port+`":[`+binding+`]}}}`))
	}
	create("one", "80/tcp", `{"HostPort":"8080"}`)
	create("two", "80/tcp", `{"HostIp":"127.0.0.1","HostPort":"8080"}`)
	create("udp", "80/udp", `{"HostPort":"8080"}`)
	create("any", "80/tcp", `{}`)
	mustDo(t, d, 204, "POST", "/containers/one/start", nil)
	answer := mustDo(t, d, 500, "POST", "/containers/two/start", nil)
	if got := message(t, answer); !strings.HasPrefix(got, "driver failed programming external connectivity on endpoint two (") ||
		!strings.HasSuffix(got, "): Bind for 127.0.0.1:8080 failed: port is already allocated") {
		t.Errorf("message = %q", got)
	}
	if c, _ := d.Find("two"); c.State != "created" || c.ExitCode != 128 {
		t.Errorf("two is %s (%d), want created (128)", c.State, c.ExitCode)
	}
	mustDo(t, d, 204, "POST", "/containers/udp/start", nil)
	mustDo(t, d, 204, "POST", "/containers/any/start", nil)
	if in := mustDo(t, d, 200, "GET", "/containers/any/json", nil); !strings.Contains(string(in), `"HostPort":"32768"`) {
		t.Errorf("any has no ephemeral port: %s", in)
	}
	mustDo(t, d, 204, "POST", "/containers/one/stop?t=0", nil)
	mustDo(t, d, 204, "POST", "/containers/two/start", nil)
}

func TestUpdateShowsInInspect(t *testing.T) {
	d := New(t, Options{})
	d.AddContainer(Container{Name: "web", Memory: 64 << 20})
	mustDo(t, d, 200, "POST", "/containers/web/update", map[string]any{"Memory": 128 << 20, "MemorySwap": -1})
	var in struct {
		HostConfig struct{ Memory, MemorySwap int64 }
	}
	if err := json.Unmarshal(mustDo(t, d, 200, "GET", "/containers/web/json", nil), &in); err != nil {
		t.Fatal(err)
	}
	if in.HostConfig.Memory != 128<<20 || in.HostConfig.MemorySwap != -1 {
		t.Errorf("HostConfig = %+v", in.HostConfig)
	}
}
