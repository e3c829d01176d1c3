package cluster

import (
	"io"
	"net/http"
	"strings"
	"testing"

	"berth/internal/dockertest"
	"berth/internal/fleet"
)

// What follows a 101 goes both ways, and lasts until it is closed.
func TestDoReturnsStreams(t *testing.T) {
	r := newRig(t, 1)
	id := r.daemons[0].AddContainer(dockertest.Container{Name: "web"})
	r.await(t, "the container is seen", func(s *fleet.Snapshot) bool { return len(s.Named("web")) == 1 })
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://docker/v1.41/containers/"+id+"/exec",
		strings.NewReader(`{"Cmd":["cat"],"AttachStdin":true,"AttachStdout":true}`))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	node := r.Snapshot().Nodes()[0].ID
	res, err := r.Do(t.Context(), node, req)
	if err != nil {
		t.Fatal(err)
	}
	exec, err := answered(res)
	if err != nil {
		t.Fatal(err)
	}
	if req, err = http.NewRequestWithContext(t.Context(), http.MethodPost, "http://docker/v1.41/exec/"+exec+"/start", strings.NewReader(`{}`)); err != nil {
		t.Fatal(err)
	}
	req.Header = http.Header{"Content-Type": {"application/json"}, "Connection": {"Upgrade"}, "Upgrade": {"tcp"}}
	if res, err = r.Do(t.Context(), node, req); err != nil {
		t.Fatal(err)
	}
	stream, ok := res.Body.(io.ReadWriteCloser)
	if res.StatusCode != http.StatusSwitchingProtocols || !ok {
		t.Fatalf("status %d with a body of type %T, want 101 and a stream", res.StatusCode, res.Body)
	}
	for _, text := range []string{"one\n", "two\n"} {
		if _, err := io.WriteString(stream, text); err != nil {
			t.Fatal(err)
		}
		b := make([]byte, 8+len(text)) // of a frame
		if _, err := io.ReadFull(stream, b); err != nil || string(b[8:]) != text {
			t.Fatalf("read %q, %v; want %q", b, err, text)
		}
	}
	if err := stream.Close(); err != nil {
		t.Error(err)
	}
}
