package dockertest

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"math/big"
	"net"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	apicontainer "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"
)

// get asks for a path over the daemon's network.
func get(ctx context.Context, c *http.Client, path string) (status int, body string, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://daemon"+path, nil)
	if err != nil {
		return 0, "", err
	}
	resp, err := c.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(b), err
}

func TestHangAcceptsAndNeverAnswers(t *testing.T) {
	for _, network := range []string{"tcp", "unix", "mem"} {
		t.Run(network, func(t *testing.T) {
			d := New(t, Options{Network: network})
			c := httpClient(t, d)
			if _, _, err := get(short(t), c, "/_ping"); err != nil {
				t.Fatal(err)
			}
			d.Hang()
			hung, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
			defer cancel()
			if _, _, err := get(hung, c, "/_ping"); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("ping while hung: %v, want a deadline", err)
			}
			conn, err := d.Dial(short(t), "", "")
			if err != nil {
				t.Fatalf("dial while hung: %v", err)
			}
			defer conn.Close()
			d.Resume()
			if status, _, err := get(short(t), c, "/_ping"); status != 200 || err != nil {
				t.Errorf("ping after: %d, %v", status, err)
			}
		})
	}
}

func TestHangSilencesOpenStreams(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := New(nil, Options{Network: "mem"})
		defer d.Close()
		d.AddContainer(Container{Name: "web"})
		cli := dial(t, d)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		stream := cli.Events(ctx, client.EventsListOptions{})
		wait := cli.ContainerWait(ctx, "web", client.ContainerWaitOptions{Condition: apicontainer.WaitConditionNextExit})
		synctest.Wait()
		d.Hang()
		d.Exit("web", 1)
		time.Sleep(time.Hour) // the bubble's clock: costs nothing
		select {
		case e := <-stream.Messages:
			t.Fatalf("%+v came through while hung", e)
		case r := <-wait.Result:
			t.Fatalf("%+v came through while hung", r)
		default:
		}
		d.Resume()
		if r := <-wait.Result; r.StatusCode != 1 {
			t.Errorf("wait = %+v", r)
		}
		for e := range stream.Messages {
			if e.Action == "die" {
				break
			}
		}
	})
}

func TestAClientThatDoesNotReadHoldsNobodyUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := New(nil, Options{Network: "mem", Containers: 50})
		defer d.Close()
		conn, err := d.Dial(t.Context(), "", "")
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if _, err := io.WriteString(conn, "GET /containers/json HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		synctest.Wait() // until the answer, too long for any buffer, is stuck
		if !d.mu.TryLock() {
			t.Fatal("the daemon is locked")
		}
		d.mu.Unlock()
	})
}

func TestCloseEndsAHungDaemon(t *testing.T) {
	d := New(nil, Options{})
	d.AddContainer(Container{Name: "web"})
	conn, err := net.Dial("tcp", d.HostPort())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, "POST /containers/web/attach?stream=1&stdout=1 HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	head := make([]byte, 12)
	if _, err := io.ReadFull(conn, head); err != nil || string(head) != "HTTP/1.1 101" {
		t.Fatalf("attach: %q, %v", head, err)
	}
	d.Hang()
	d.Close()
	d.Close() // harmless
	if _, err := io.ReadAll(conn); err != nil && !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("read after close: %v", err)
	}
	// goleak looks for what is left.
}

func TestRefuseResetsAndKeepsTheAddress(t *testing.T) {
	for _, network := range []string{"tcp", "unix", "mem"} {
		t.Run(network, func(t *testing.T) {
			d := New(t, Options{Network: network})
			addr := d.Addr()
			open, err := d.Dial(short(t), "", "")
			if err != nil {
				t.Fatal(err)
			}
			defer open.Close()
			if _, err := io.WriteString(open, "GET /events HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
				t.Fatal(err)
			}
			if _, err := open.Read(make([]byte, 1)); err != nil {
				t.Fatal(err)
			}
			d.Refuse()
			d.Refuse() // harmless
			if _, err := io.Copy(io.Discard, open); network == "tcp" && !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("open connection: %v, want a reset", err)
			}
			for range 3 {
				if _, err := d.Dial(short(t), "", ""); !errors.Is(err, syscall.ECONNREFUSED) {
					t.Errorf("dial: %v, want refused", err)
				}
			}
			if err := d.Listen(); err != nil {
				t.Fatal(err)
			}
			if d.Addr() != addr {
				t.Errorf("address is now %s, was %s", d.Addr(), addr)
			}
			if status, _, err := get(short(t), httpClient(t, d), "/_ping"); status != 200 || err != nil {
				t.Errorf("ping after: %d, %v", status, err)
			}
		})
	}
}

func TestRestartForgetsEvents(t *testing.T) {
	d := New(t, Options{})
	d.AddContainer(Container{Name: "web"})
	if err := d.Restart(); err != nil {
		t.Fatal(err)
	}
	if e := d.Events(); len(e) != 0 {
		t.Errorf("%d events survived", len(e))
	}
	if c, ok := d.Find("web"); !ok || c.State != "running" {
		t.Errorf("web is %+v", c)
	}
}

func TestFailNextStrikesOnce(t *testing.T) {
	d := New(t, Options{})
	d.AddContainer(Container{Name: "web"})
	d.FailNext("POST", "/containers/web/stop", 500, "disk on fire")
	if got := message(t, mustDo(t, d, 500, "POST", "/v1.41/containers/web/stop", nil)); got != "disk on fire" {
		t.Errorf("message = %q", got)
	}
	if c, _ := d.Find("web"); c.State != "running" {
		t.Errorf("web is %s after the failure", c.State)
	}
	mustDo(t, d, 204, "POST", "/containers/web/stop", nil)
}

func TestDropNextBeforeAndAfterTheEffect(t *testing.T) {
	for name, tt := range map[string]struct {
		after bool
		state string
	}{
		"before": {false, "running"},
		"after":  {true, "exited"},
	} {
		t.Run(name, func(t *testing.T) {
			d := New(t, Options{})
			d.AddContainer(Container{Name: "web"})
			d.DropNext("POST", "/containers/web/stop", tt.after)
			_, err := dial(t, d).ContainerStop(short(t), "web", client.ContainerStopOptions{})
			if err == nil {
				t.Error("stop was answered")
			}
			if c, _ := d.Find("web"); c.State != tt.state {
				t.Errorf("web is %s, want %s", c.State, tt.state)
			}
		})
	}
}

func TestHoldNextWaitsForTheTest(t *testing.T) {
	d := New(t, Options{})
	d.AddContainer(Container{Name: "web"})
	reached, release := d.HoldNext("POST", "/containers/web/kill")
	done := make(chan error, 1)
	cli := dial(t, d)
	go func() {
		_, err := cli.ContainerKill(t.Context(), "web", client.ContainerKillOptions{})
		done <- err
	}()
	<-reached
	if c, _ := d.Find("web"); c.State != "running" {
		t.Errorf("web is %s while held", c.State)
	}
	release()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if c, _ := d.Find("web"); c.State != "exited" {
		t.Errorf("web is %s after the release", c.State)
	}
}

func TestDelay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := New(nil, Options{Network: "mem"})
		defer d.Close()
		c := httpClient(t, d)
		d.Delay(3 * time.Second)
		begin := time.Now()
		if status, _, err := get(t.Context(), c, "/_ping"); status != 200 || err != nil {
			t.Errorf("ping: %d, %v", status, err)
		}
		if took := time.Since(begin); took != 3*time.Second {
			t.Errorf("ping took %s, want 3s", took)
		}
		c.CloseIdleConnections()
	})
}

func TestRequestsAreLoggedAndCounted(t *testing.T) {
	d := New(t, Options{})
	quiet := New(t, Options{NoRequestLog: true})
	for _, d := range []*Daemon{d, quiet} {
		mustDo(t, d, 200, "GET", "/v1.41/containers/json?all=1", nil)
		mustDo(t, d, 404, "GET", "/containers/x/json", nil)
		if d.RequestCount() != 2 {
			t.Errorf("count = %d, want 2", d.RequestCount())
		}
	}
	got := d.Requests()
	if len(got) != 2 || got[0] != (Request{"GET", "/containers/json"}) || got[1] != (Request{"GET", "/containers/x/json"}) {
		t.Errorf("log = %+v", got)
	}
	d.ResetRequests()
	if len(d.Requests()) != 0 || d.RequestCount() != 0 || len(quiet.Requests()) != 0 {
		t.Error("the log is not empty")
	}
}

func TestTLS(t *testing.T) {
	cert, pool := selfSigned(t)
	d := New(t, Options{TLS: &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12}})
	tr := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, ServerName: "daemon", MinVersion: tls.VersionTLS12}}
	defer tr.CloseIdleConnections()
	resp, err := (&http.Client{Transport: tr}).Get("https://" + d.HostPort() + "/_ping")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if b, err := io.ReadAll(resp.Body); err != nil || string(b) != "OK" {
		t.Errorf("ping = %q, %v", b, err)
	}
	if resp, err := http.Get("http://" + d.HostPort() + "/_ping"); err == nil {
		resp.Body.Close()
		if resp.StatusCode == http.StatusOK {
			t.Error("plain text was answered")
		}
	}
	if !strings.HasPrefix(d.Addr(), "tcp://127.0.0.1:") {
		t.Errorf("address = %s", d.Addr())
	}
}

func selfSigned(t *testing.T) (tls.Certificate, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{"daemon"}, NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(leaf)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, pool
}
