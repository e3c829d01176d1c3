package api

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

// dockerode sends the options of an attach again as a body, which must not become input.
func TestBodyOfAnAttachIsNoInput(t *testing.T) {
	f := newFleet(t, 1)
	f.must(http.StatusCreated, "POST", "/containers/create?name=web", map[string]any{
		"Image": "busybox", "Cmd": []string{"cat"}, "OpenStdin": true, "StdinOnce": true, "AttachStdin": true, "AttachStdout": true, "Tty": true,
	})
	conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", f.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	const body = `{"stream":true,"stdin":true,"stdout":true,"hijack":true}`
	fmt.Fprintf(conn, "POST /v1.41/containers/web/attach?stream=1&stdin=1&stdout=1 HTTP/1.1\r\nHost: docker\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n"+
		"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
	in := bufio.NewReader(conn)
	res, err := http.ReadResponse(in, nil)
	if err != nil || res.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("attach: %v, %v", res, err)
	}
	f.must(http.StatusNoContent, "POST", "/containers/web/start", nil)
	if _, err := io.WriteString(conn, "hello\n"); err != nil {
		t.Fatal(err)
	}
	if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	out, err := io.ReadAll(in)
	if err != nil || !strings.Contains(string(out), "hello") || strings.Contains(string(out), "stream") {
		t.Errorf("the container said %q, %v; want hello alone", out, err)
	}
}
