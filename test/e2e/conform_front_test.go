//go:build e2e

package e2e

import (
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"berth/internal/cert"
)

func tlsStrangers(t *testing.T, w *world) {
	addr := net.JoinHostPort("127.0.0.1", freePort(t))
	second := w.secondServe(t, append(serverTLS(t, w), "-H", "tcp://"+addr, "--engine-plain", "unix://"+w.engineSocket(t, "host1"))...)
	second.awaitNodes(t, "host1")
	get := func(config *tls.Config) error {
		transport := &http.Transport{TLSClientConfig: config}
		defer transport.CloseIdleConnections()
		res, err := (&http.Client{Transport: transport, Timeout: 10 * time.Second}).Get("https://" + addr + "/_ping")
		if err == nil {
			res.Body.Close()
		}
		return err
	}
	certs := filepath.Join(w.dir, ".docker", "machine", "certs")
	own, err := tls.LoadX509KeyPair(certs+"/cert.pem", certs+"/key.pem")
	if err != nil {
		t.Fatal(err)
	}
	authority, err := cert.NewAuthority("strangers")
	if err != nil {
		t.Fatal(err)
	}
	foreign, err := cert.NewClient(authority, "stranger")
	if err != nil {
		t.Fatal(err)
	}
	stranger, err := tls.X509KeyPair(foreign.Cert, foreign.Key)
	if err != nil {
		t.Fatal(err)
	}
	if err := get(&tls.Config{InsecureSkipVerify: true, Certificates: []tls.Certificate{own}}); err != nil { //nolint:gosec // the server is not in question
		t.Errorf("a proper client: %v", err)
	}
	for who, config := range map[string]*tls.Config{
		"no certificate":                     {InsecureSkipVerify: true},                                                                                                   //nolint:gosec // as above
		"a certificate of another authority": {InsecureSkipVerify: true, Certificates: []tls.Certificate{stranger}},                                                        //nolint:gosec // as above
		"TLS 1.1":                            {InsecureSkipVerify: true, Certificates: []tls.Certificate{own}, MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11}, //nolint:gosec // that is the point
	} {
		var op *net.OpError
		if err := get(config); !errors.As(err, &op) || op.Op != "remote error" { // that is how net/http tells an alert
			t.Errorf("with %s: %v, want a handshake that fails", who, err)
		}
	}
}

func overSSH(t *testing.T, w *world) {
	if _, err := exec.LookPath("ssh"); err != nil {
		t.Skip("no ssh on this computer")
	}
	sshd := startSSHD(t)
	host, port, err := net.SplitHostPort(sshd.addr)
	if err != nil {
		t.Fatal(err)
	}
	// ssh reads the files of the user's real home, so it is told of the test's.
	dir := t.TempDir()
	wrapper := fmt.Sprintf("#!/bin/sh\nexec ssh -F none -i %s -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR \"$@\"\n", sshd.clientKey)
	wrapper = strings.Replace(wrapper, "exec ssh", "PATH=$REALPATH exec ssh", 1)
	if err := os.WriteFile(filepath.Join(dir, "ssh"), []byte(wrapper), 0o700); err != nil { //nolint:gosec // a program
		t.Fatal(err)
	}
	endpoint := fmt.Sprintf("ssh://root@%s:%s%s", host, port, w.socket)
	path := ""
	for _, kv := range w.env {
		if v, ok := strings.CutPrefix(kv, "PATH="); ok {
			path = v
		}
	}
	client := func(words ...string) *exec.Cmd {
		return with(w.command("docker", append([]string{"-H", endpoint}, words...)...), "PATH="+dir+":"+path, "REALPATH="+path)
	}
	same(t, "input", must(t, feed(client("run", "-i", "--rm", "busybox", "cat"), strings.NewReader("hi\n"))), "hi")
	same(t, "exit code", do(t, client("run", "--rm", "busybox", "sh", "-c", "exit 3")).code, 3)
	w.forget(t, "overssh:1")
	must(t, with(feed(client("build", "-q", "-t", "overssh:1", "-"), strings.NewReader("FROM busybox\nRUN echo built >/built\n")), "DOCKER_BUILDKIT=0"))
	same(t, "what was built", must(t, client("run", "--rm", "overssh:1", "cat", "/built")), "built")
	events := client("events", "--filter", "event=create")
	seen := outputTo(t, events)
	background(t, events)
	eventually(t, 15*time.Second, "an event", func() bool {
		must(t, w.docker("rm", "-f", must(t, w.docker("create", "busybox"))))
		return strings.Contains(seen.String(), "container create")
	})
}

func managerKilled(t *testing.T, w *world) {
	second := w.secondServe(t)
	must(t, second.docker(args("run -d --name lives", on("host2"), "busybox sleep 1000")...))
	a := second.api(t, "POST", "/v1.41/containers/lives/exec", `{"Cmd":["sh","-c","exit 8"],"AttachStdout":true}`)
	var exec struct {
		ID string `json:"Id"`
	}
	a.into(t, &exec)
	same(t, "status of exec start", second.api(t, "POST", "/v1.41/exec/"+exec.ID+"/start", `{"Detach":true}`).status, 200)
	if err := second.serve.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = second.stopServeHard() // it says that it was killed
	if err := second.startServe("--no-context"); err != nil {
		t.Fatal(err)
	}
	var after struct{ ExitCode int }
	eventually(t, 5*time.Second, "the exec has ended", func() bool {
		a := second.api(t, "GET", "/v1.41/exec/"+exec.ID+"/json", "")
		return json.Unmarshal([]byte(a.body), &after) == nil && after.ExitCode == 8
	})
	contains(t, "the name is still taken", fails(t, second.docker(args("create --name lives", on("host1"), "busybox")...)), "already in use")
	same(t, "the container", must(t, second.docker("inspect", "--format", "{{.State.Running}} {{.Node.Name}}", "lives")), "true host2")
}

// mixedFleet has an engine of today and one of Debian's; only nightly runs have the former.
var mixedFleet *world

func mixed(t *testing.T) *world {
	t.Helper()
	if mixedFleet == nil {
		m, err := newWorld("mixed")
		if err != nil {
			t.Fatal(err)
		}
		mixedFleet = m
		for name, engine := range map[string]string{"new": program("BERTH_ENGINE29"), "old": ""} {
			cmd := []string{"create", "-d", "local", "--local-subnet", "10.213.90.0/24", "--engine-insecure-registry", "10.0.0.0/8"}
			if engine != "" {
				cmd = append(cmd, "--local-engine", engine)
			}
			must(t, m.command("berth", append(cmd, name)...))
			m.machine = append(m.machine, name)
		}
		if err := m.startServe(); err != nil {
			t.Fatal(err)
		}
		if err := m.loadImages("busybox:latest"); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() { mixedFleet.sweep(t) })
	return mixedFleet
}
