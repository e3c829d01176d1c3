package dockertest

import (
	"context"
	"encoding/json"
	"net/http"
	"testing"
	"time"

	"github.com/moby/moby/client"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// dial is a client of the daemon over its own network.
func dial(t *testing.T, d *Daemon) *client.Client {
	t.Helper()
	cli, err := client.New(client.WithHost("tcp://daemon:2375"), client.WithDialContext(d.Dial))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := cli.Close(); err != nil {
			t.Error(err)
		}
	})
	return cli
}

// mustDo sends a request past the network and fails the test unless it is answered with status.
func mustDo(t *testing.T, d *Daemon, status int, method, target string, body any) []byte {
	t.Helper()
	got, answer := d.Do(method, target, body)
	if got != status {
		t.Fatalf("%s %s = %d %s, want %d", method, target, got, answer, status)
	}
	return answer
}

// message is the text of an error answer.
func message(t *testing.T, answer []byte) string {
	t.Helper()
	var v struct{ Message string }
	if err := json.Unmarshal(answer, &v); err != nil {
		t.Fatalf("%s: %v", answer, err)
	}
	return v.Message
}

// short is a context for what must not take long.
func short(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// eventually waits until ok, which is asked again and again, or fails the test.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.After(10 * time.Second)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("%s: not within 10 s", what)
		}
	}
}

// httpClient speaks to the daemon without keeping connections.
func httpClient(t *testing.T, d *Daemon) *http.Client {
	t.Helper()
	tr := &http.Transport{DialContext: d.Dial}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr}
}
