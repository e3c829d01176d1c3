//go:build realengine

package dockertest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// TestSameAsRealEngine sends one script of requests to a fake and to a real Engine 20.10 and compares statuses, content
// types and bodies, with what must differ (IDs, times, addresses) blanked. It needs an engine of its own that has the image
// busybox:latest with sh in it:
//
//	REAL_ENGINE=tcp://10.89.3.11:2375 go test -tags realengine -run SameAsReal ./internal/dockertest
func TestSameAsRealEngine(t *testing.T) {
	defer http.DefaultClient.CloseIdleConnections()
	host := os.Getenv("REAL_ENGINE")
	u, err := url.Parse(host)
	if err != nil || u.Host == "" {
		t.Fatalf("REAL_ENGINE=%q names no engine: %v", host, err)
	}
	d := New(t, Options{Images: []string{"busybox"}, ServerVersion: "20.10.24+dfsg1"})
	for _, line := range strings.Split(strings.TrimSpace(script), "\n") {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		want, got := ask(t, u.Host, line), ask(t, d.HostPort(), line)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-real +fake)\n%s", line, diff)
		}
	}
	compareEvents(t, u.Host, d.HostPort())
}

// script is METHOD path [body], one request a line.
const script = `
DELETE /containers/cmp1?force=1
GET /_ping
HEAD /_ping
GET /v1.99/info
GET /v1.5/info
GET /v1/info
GET /vabc/info
GET /nope
PATCH /info
OPTIONS /x
GET /containers/nope/json
GET /containers//json
GET /containers/json?filters=xx
GET /containers/json?filters={"foo":["x"]}
GET /containers/json?limit=x
GET /containers/json?all=1&filters={"status":["foo"]}
GET /containers/json?all=1&filters={"health":["foo"]}
GET /containers/json?all=1&filters={"before":["foo"]}
GET /containers/json?all=1&filters={"exited":["foo"]}
GET /containers/json?all=1&filters={"name":["["]}
POST /containers/create {"Image":"nope"}
POST /containers/create {"Image":"nope:1@x"}
POST /containers/create {"Image":"nope"
POST /containers/create {}
POST /containers/create null
POST /containers/create?name=x {"Image":"busybox"}
POST /containers/create?name=a_b! {"Image":"busybox"}
POST /containers/create {"Image":"busybox","HostConfig":{"Memory":1000}}
POST /containers/create {"Image":"busybox","HostConfig":{"IpcMode":"container:nope"}}
POST /containers/create {"Image":"busybox","HostConfig":{"Links":["nope:x"]}}
POST /containers/create {"Image":"busybox","HostConfig":{"VolumesFrom":["nope"]}}
POST /containers/create {"Image":"busybox","HostConfig":{"RestartPolicy":{"Name":"foo"}}}
POST /containers/create {"Image":"busybox","HostConfig":{"NanoCpus":99000000000}}
POST /containers/create {"Image":"busybox","NetworkingConfig":{"EndpointsConfig":{"a":{},"b":{}}}}
POST /containers/create?name=cmp1 {"Image":"busybox","Cmd":["sleep","1000"],"Env":["A=b"],"Labels":{"l":"1"},"ExposedPorts":{"80/tcp":{}},"HostConfig":{"PortBindings":{"80/tcp":[{"HostPort":"8080"}]},"Memory":67108864,"Foo":1}}
POST /containers/create?name=cmp1 {"Image":"busybox"}
GET /containers/cmp1/json
GET /containers/json?all=1&filters={"name":["cmp1"]}
POST /containers/cmp1/pause
POST /containers/cmp1/unpause
GET /containers/cmp1/top
POST /containers/cmp1/start
POST /containers/cmp1/start
GET /containers/cmp1/json
GET /containers/json?filters={"name":["cmp1"]}
GET /containers/json?filters={"name":{"cmp1":true}}
GET /networks/bridge
POST /containers/cmp1/pause
POST /containers/cmp1/pause
POST /containers/cmp1/start
POST /containers/cmp1/exec {"Cmd":["true"]}
POST /containers/cmp1/unpause
POST /containers/cmp1/unpause
POST /containers/cmp1/kill?signal=HUP
POST /containers/cmp1/kill?signal=FOO
POST /containers/cmp1/update {"Memory":33554432,"MemorySwap":-1}
POST /containers/cmp1/rename?name=cmp1
POST /containers/cmp1/rename?name=
POST /containers/cmp1/rename?name=!
POST /containers/cmp1/rename?name=cmp2
POST /containers/cmp1/start
POST /containers/cmp2/exec {"Cmd":[]}
POST /containers/cmp2/exec {"Cmd":["sh","-c","echo a; exit 4"],"AttachStdout":true}
POST /exec/nope/start {"Detach":false}
GET /exec/nope/json
POST /exec/nope/resize?h=1&w=1
POST /containers/cmp2/resize?h=1&w=x
POST /containers/cmp2/resize?h=10&w=20
GET /containers/cmp2/logs
GET /containers/cmp2/logs?stdout=1
GET /containers/cmp2/archive
GET /containers/cmp2/archive?path=/nope
PUT /containers/cmp2/archive?path=/nope
GET /containers/cmp2/changes
DELETE /containers/cmp2
POST /networks/bridge/connect {"Container":"cmp2"}
POST /networks/host/connect {"Container":"cmp2"}
POST /networks/nope/connect {"Container":"cmp2"}
POST /networks/bridge/connect {"Container":"nope"}
POST /networks/create {"Name":"cmpnet","CheckDuplicate":true,"Labels":{"a":"b"},"IPAM":{"Config":[{"Subnet":"10.9.0.0/24"}]}}
POST /networks/create {"Name":"cmpnet","CheckDuplicate":true}
POST /networks/create {"Name":"cmpnet2","CheckDuplicate":true,"IPAM":{"Config":[{"Subnet":"10.9.0.0/24"}]}}
POST /networks/create {"Name":""}
POST /networks/create {"Name":"bridge"}
POST /networks/create {"Name":"cmpnet3","Driver":"overlay"}
POST /networks/create
POST /networks/cmpnet/connect {"Container":"cmp2"}
POST /networks/cmpnet/connect {"Container":"cmp2"}
GET /networks/cmpnet
GET /containers/cmp2/json
DELETE /networks/cmpnet
POST /networks/cmpnet/disconnect {"Container":"cmp2"}
POST /networks/cmpnet/disconnect {"Container":"cmp2"}
DELETE /networks/cmpnet
DELETE /networks/cmpnet
DELETE /networks/bridge
POST /containers/cmp2/restart?t=0
POST /containers/cmp2/stop?t=0
POST /containers/cmp2/stop?t=0
POST /containers/cmp2/stop?t=x
GET /containers/cmp2/json
GET /containers/json?all=1&filters={"name":["cmp2"]}
GET /containers/json?all=1&filters={"exited":["137"],"name":["cmp2"]}
POST /containers/cmp2/wait
POST /containers/cmp2/kill
POST /containers/nope/kill
POST /containers/cmp2/exec {"Cmd":["true"]}
DELETE /containers/cmp2?v=1
DELETE /containers/cmp2?v=1
POST /containers/create?name=cmp3 {"Image":"busybox","Cmd":["sh","-c","exit 3"],"HostConfig":{"NetworkMode":"none"}}
POST /containers/cmp3/start
POST /containers/cmp3/wait
GET /containers/cmp3/json
DELETE /containers/cmp3
POST /containers/create?name=cmp4 {"Image":"busybox","Cmd":["nosuchcmd"]}
POST /containers/cmp4/start
GET /containers/cmp4/json
DELETE /containers/cmp4
POST /containers/create?name=cmp5 {"Image":"busybox","Cmd":["true"],"HostConfig":{"NetworkMode":"nonet"}}
POST /containers/cmp5/start
DELETE /containers/cmp5
POST /volumes/create {"Name":"cmpv","Labels":{"a":"b"}}
POST /volumes/create {"Name":"cmpv"}
POST /volumes/create {"Name":"v"}
POST /volumes/create {"Name":"a/b"}
POST /volumes/create
GET /volumes/cmpv
GET /volumes/nope
GET /volumes?filters={"name":["cmpv"]}
GET /volumes?filters={"foo":["x"]}
POST /containers/create?name=cmp6 {"Image":"busybox","Cmd":["sleep","100"],"HostConfig":{"Binds":["cmpv:/data"]}}
POST /containers/cmp6/start
GET /containers/cmp6/json
DELETE /volumes/cmpv
DELETE /containers/cmp6?force=1&v=1
DELETE /volumes/cmpv
DELETE /volumes/cmpv
DELETE /volumes/cmpv?force=1
POST /images/busybox/tag?repo=cmp/img&tag=2
POST /images/nope/tag?repo=x
POST /images/busybox/tag?repo=
GET /images/nope/json
GET /images/nope/get
GET /images/json?filters={"foo":["x"]}
DELETE /images/cmp/img:2
DELETE /images/cmp/img:2
POST /images/create?fromImage=web@x
POST /images/load garbage
POST /build/prune
GET /swarm
GET /nodes
GET /services
GET /secrets/x
POST /swarm/leave
GET /plugins
POST /session
POST /grpc
GET /events?since=x
GET /events?since=5&until=1
GET /events?filters=x
GET /events?until=1
POST /containers/prune?filters={"name":["x"]}
`

type reply struct {
	Status      int
	ContentType string
	Headers     []string
	Body        any
}

// ask sends one line of the script.
func ask(t *testing.T, host, line string) reply {
	t.Helper()
	fields := strings.SplitN(line, " ", 3)
	body := ""
	if len(fields) > 2 {
		body = fields[2]
	}
	path, query, _ := strings.Cut(fields[1], "?")
	req, err := http.NewRequest(fields[0], "http://"+host+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	var pairs []string
	for kv := range strings.SplitSeq(query, "&") {
		k, v, _ := strings.Cut(kv, "=")
		pairs = append(pairs, k+"="+url.QueryEscape(v))
	}
	if query != "" {
		req.URL.RawQuery = strings.Join(pairs, "&")
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := (&http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}).Do(req)
	if err != nil {
		t.Fatalf("%s %s: %v", host, line, err)
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatalf("%s %s: %v", host, line, err)
	}
	a := reply{Status: resp.StatusCode, ContentType: resp.Header.Get("Content-Type")}
	for k, v := range resp.Header {
		if k != "Date" && k != "Content-Length" {
			a.Headers = append(a.Headers, k+": "+strings.Join(v, ","))
		}
	}
	slices.Sort(a.Headers)
	dec := json.NewDecoder(bytes.NewReader(raw))
	if err := dec.Decode(&a.Body); err != nil {
		a.Body = string(raw)
	}
	a.Body = blank("", a.Body)
	return a
}

var (
	hexLong = regexp.MustCompile(`[0-9a-f]{64}|\b[0-9a-f]{12}\b`)
	times   = regexp.MustCompile(`20\d\d-\d\d-\d\dT[0-9:.]+Z`)
)

// blank takes out of a value what differs from engine to engine.
func blank(key string, v any) any {
	switch v := v.(type) {
	case map[string]any:
		out := map[string]any{}
		for k, e := range v {
			if k == "GraphDriver" || k == "fleet.image" || k == "dockertest.image" || k == "SandboxKey" {
				continue
			}
			out[hexLong.ReplaceAllString(k, "HEX")] = blank(k, e)
		}
		return out
	case []any:
		out := []any{}
		for _, e := range v {
			out = append(out, blank(key, e))
		}
		return out
	case string:
		if key == "STIME" {
			return ""
		}
		v = times.ReplaceAllString(hexLong.ReplaceAllString(v, "HEX"), "TIME")
		v = regexp.MustCompile(`docker-import-\d+`).ReplaceAllString(v, "docker-import")
		v = regexp.MustCompile(`^(\d\d:\d\d|\d{2,5})$`).ReplaceAllString(v, "N")
		return regexp.MustCompile(`(Up|\)) .*`).ReplaceAllString(v, "$1 T")
	case float64:
		switch key {
		case "Created", "Pid":
			return v > 0
		}
	}
	return v
}

// awaitGone is repeated until it is answered with 404.
const awaitGone = `GET /containers/cmpau/json`

// compareEvents plays a life on both and compares what /events remembers of it.
func compareEvents(t *testing.T, hosts ...string) {
	t.Helper()
	var got [2][]string
	for i, host := range hosts {
		since := now(t, host)
		for _, line := range []string{
			`POST /containers/create?name=cmpev {"Image":"busybox","Cmd":["sleep","1000"],"Labels":{"l":"1"},"HostConfig":{"Binds":["cmpevv:/data","/y"]}}`,
			`POST /containers/cmpev/start`, `POST /containers/cmpev/pause`, `POST /containers/cmpev/unpause`, `POST /containers/cmpev/kill?signal=HUP`,
			`POST /containers/cmpev/restart?t=0`, `GET /containers/cmpev/top`, `POST /containers/cmpev/rename?name=cmpev2`,
			`POST /containers/cmpev2/update {"Memory":33554432,"MemorySwap":-1}`, `POST /containers/cmpev2/exec {"Cmd":["sh","-c","exit 4"]}`,
			`POST /containers/cmpev2/resize?h=10&w=20`, `POST /containers/cmpev2/stop?t=0`, `DELETE /containers/cmpev2?v=1`,
			`POST /containers/create?name=cmpau {"Image":"busybox","Cmd":["sleep","1000"],"HostConfig":{"AutoRemove":true,"NetworkMode":"host"}}`,
			`POST /containers/cmpau/start`, `POST /containers/cmpau/kill`, awaitGone, `DELETE /volumes/cmpevv`, `POST /networks/create {"Name":"cmpevn"}`, `DELETE /networks/cmpevn`,
			`POST /images/busybox/tag?repo=cmpev`, `DELETE /images/cmpev`, `POST /networks/prune`, `POST /volumes/prune`,
		} {
			if line == awaitGone {
				for ask(t, host, line).Status != http.StatusNotFound { //nolint:revive // the removal is not awaited by the kill
				}
				continue
			}
			if a := ask(t, host, line); a.Status >= 400 {
				t.Fatalf("%s: %s: %+v", host, line, a)
			}
		}
		got[i] = remembered(t, host, since)
	}
	if diff := cmp.Diff(got[0], got[1]); diff != "" {
		t.Errorf("events (-real +fake)\n%s", diff)
	}
}

func now(t *testing.T, host string) string {
	t.Helper()
	info, ok := ask2(t, host, "/info")["SystemTime"].(string)
	if !ok {
		t.Fatalf("%s: no SystemTime", host)
	}
	return info
}

func ask2(t *testing.T, host, path string) map[string]any {
	t.Helper()
	resp, err := http.Get("http://" + host + path)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var v map[string]any
	if err := json.NewDecoder(resp.Body).Decode(&v); err != nil {
		t.Fatal(err)
	}
	return v
}

func remembered(t *testing.T, host, since string) []string {
	t.Helper()
	at, err := timeOf(since)
	if err != nil {
		t.Fatal(err)
	}
	end, err := timeOf(now(t, host))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.Get("http://" + host + "/events?since=" + at + "&until=" + end)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var out []string
	for dec := json.NewDecoder(resp.Body); ; {
		var v map[string]any
		if err := dec.Decode(&v); err != nil {
			break
		}
		delete(v, "time")
		delete(v, "timeNano")
		raw, err := json.Marshal(blank("", v))
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, string(raw))
	}
	return sortUnmounts(out)
}

// sortUnmounts puts neighbouring unmounts in order: the engine's is random.
func sortUnmounts(events []string) []string {
	for i := range events {
		j := i
		for j < len(events) && strings.Contains(events[j], `mount"`) {
			j++
		}
		slices.Sort(events[i:j])
	}
	return events
}

func timeOf(s string) (string, error) {
	at, err := time.Parse(time.RFC3339Nano, s)
	return fmt.Sprintf("%d.%09d", at.Unix(), at.Nanosecond()), err
}

// TestSameStreamsAsRealEngine compares the bytes of hijacked streams, heads included, and of logs.
func TestSameStreamsAsRealEngine(t *testing.T) {
	defer http.DefaultClient.CloseIdleConnections()
	u, err := url.Parse(os.Getenv("REAL_ENGINE"))
	if err != nil || u.Host == "" {
		t.Fatalf("REAL_ENGINE names no engine: %v", err)
	}
	d := New(t, Options{Images: []string{"busybox"}, ServerVersion: "20.10.24+dfsg1"})
	hosts := []string{u.Host, d.HostPort()}
	for _, host := range hosts {
		ask(t, host, `DELETE /containers/cmps?force=1`)
		ask(t, host, `POST /containers/create?name=cmps {"Image":"busybox","Cmd":["cat"],"OpenStdin":true}`)
		ask(t, host, `POST /containers/cmps/start`)
		defer ask(t, host, `DELETE /containers/cmps?force=1`)
	}
	const upgrade = "Connection: Upgrade\r\nUpgrade: tcp\r\n"
	for name, talk := range map[string]func(host string) string{
		"attach, upgraded": func(h string) string {
			return converse(t, h, "/containers/cmps/attach?stream=1&stdin=1&stdout=1&stderr=1", upgrade, "", "hello\n", "hello\n")
		},
		"attach, the old way": func(h string) string {
			return converse(t, h, "/containers/cmps/attach?stream=1&stdin=1&stdout=1&stderr=1", "", "", "hello\n", "hello\n")
		},
		"attach to nothing": func(h string) string {
			return converse(t, h, "/containers/nope/attach?stream=1&stdout=1", upgrade, "", "", "nope\r\n")
		},
		"exec, upgraded": func(h string) string {
			return converse(t, h, "/exec/"+execID(t, h, `["sh","-c","echo a; exit 4"]`)+"/start", upgrade, `{"Detach":false}`, "", "a\n")
		},
		"exec, the old way": func(h string) string {
			return converse(t, h, "/exec/"+execID(t, h, `["echo","a"]`)+"/start", "", `{"Detach":false}`, "", "a\n")
		},
		"exec of nothing": func(h string) string {
			return converse(t, h, "/exec/"+execID(t, h, `["nosuchcmd"]`)+"/start", upgrade, `{"Detach":false}`, "", "unknown\r\n")
		},
		"exec twice": func(h string) string {
			id := execID(t, h, `["true"]`)
			ask(t, h, `POST /exec/`+id+`/start {"Detach":true}`)
			for !strings.Contains(fmt.Sprint(ask(t, h, `GET /exec/`+id+`/json`).Body), "ExitCode:0") {
			}
			return converse(t, h, "/exec/"+id+"/start", upgrade, `{"Detach":false}`, "", "run\r\n")
		},
		"exec with stdin": func(h string) string {
			return converse(t, h, "/exec/"+execID(t, h, `["cat"]`)+"/start", upgrade, `{"Detach":false}`, "in\n", "in\n")
		},
	} {
		if diff := cmp.Diff(talk(hosts[0]), talk(hosts[1])); diff != "" {
			t.Errorf("%s (-real +fake)\n%s", name, diff)
		}
	}
}

func execID(t *testing.T, host, cmd string) string {
	t.Helper()
	resp, err := http.Post("http://"+host+"/containers/cmps/exec", "application/json",
		strings.NewReader(`{"Cmd":`+cmd+`,"AttachStdin":true,"AttachStdout":true,"AttachStderr":true}`))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var v struct{ ID string }
	if err := json.NewDecoder(resp.Body).Decode(&v); err != nil || v.ID == "" {
		t.Fatalf("exec create: %s, %v", resp.Status, err)
	}
	return v.ID
}

// converse posts, reads the head, says something and reads until the answer ends with last; the date is left out.
func converse(t *testing.T, host, path, headers, body, say, last string) string {
	t.Helper()
	conn, err := net.Dial("tcp", host)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if body != "" {
		headers += "Content-Type: application/json\r\n"
	}
	fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: x\r\n%sContent-Length: %d\r\n\r\n%s", path, headers, len(body), body)
	var got []byte
	buf := make([]byte, 4096)
	said := say == ""
	for !said || !bytes.HasSuffix(got, []byte(last)) {
		n, err := conn.Read(buf)
		got = append(got, buf[:n]...)
		if err != nil {
			t.Fatalf("%s: %v after %q", host, err, got)
		}
		if !said && bytes.Contains(got, []byte("\r\n\r\n")) {
			said = true
			io.WriteString(conn, say)
		}
	}
	return hexLong.ReplaceAllString(string(got), "HEX")
}
