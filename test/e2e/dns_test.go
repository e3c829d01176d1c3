//go:build e2e

package e2e

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"
)

const dnsAddr, sdAddr = "127.0.0.1:5311", "127.0.0.1:5312"

// lookUp asks berth dns as dig does, and returns the code and the data of the answers, sorted.
func lookUp(t *testing.T, network, name string, kind uint16) string {
	t.Helper()
	c := &dns.Client{Net: network, Timeout: 2 * time.Second}
	m, _, err := c.Exchange(new(dns.Msg).SetQuestion(name, kind).SetEdns0(1232, false), dnsAddr)
	if err != nil {
		return err.Error()
	}
	var all string
	for _, rr := range m.Answer {
		_, rdata, _ := strings.Cut(rr.String(), "\tIN\t")
		all += strings.ReplaceAll(rdata, "\t", " ") + "\n"
	}
	return dns.RcodeToString[m.Rcode] + " " + strings.Join(lines(all), ", ")
}

// The containers of a fleet have names outside of it, and Prometheus finds them.
func TestNamesOutsideOfContainers(t *testing.T) {
	w := fleet(t)
	cmd := w.command("berth", "dns", "-H", "unix://"+w.socket, "--listen", dnsAddr, "--http", sdAddr)
	log, err := os.Create(filepath.Join(t.TempDir(), "dns.log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
			t.Error(err)
		}
		if err := cmd.Wait(); err != nil {
			t.Errorf("berth dns ended with %v", err)
		}
		if b, err := os.ReadFile(log.Name()); t.Failed() && err == nil {
			t.Logf("berth dns said:\n%s", b)
		}
	})
	is := func(network, name string, kind uint16, want string) {
		t.Helper()
		got := ""
		defer func() {
			if got != want {
				t.Logf("the last answer was %q", got)
			}
		}()
		eventually(t, 10*time.Second, fmt.Sprintf("%s %s is %s", name, dns.TypeToString[kind], want), func() bool {
			got = lookUp(t, network, name, kind)
			return got == want
		})
	}
	ip1, ip3 := must(t, w.command("berth", "ip", "host1")), must(t, w.command("berth", "ip", "host3"))
	must(t, w.docker(args("run -d --name named -p 8131:80 --label prometheus.port=80", on("host3"), website("named"))...))
	is("udp", "named.berth.", dns.TypeA, "NOERROR A "+ip3)
	is("tcp", "_80._tcp.named.berth.", dns.TypeSRV, "NOERROR SRV 0 1 8131 named.berth.")
	is("udp", "nosuch.berth.", dns.TypeA, "NXDOMAIN ")
	is("udp", "named.berth.", dns.TypeAAAA, "NOERROR ")
	is("udp", "example.com.", dns.TypeA, "REFUSED ")

	labels := []string{"--label", "com.docker.compose.project=shop", "--label", "com.docker.compose.service=api"}
	must(t, w.docker(args("run -d --name shop1 -p 8132:80", on("host1"), labels, website("x"))...))
	must(t, w.docker(args("run -d --name shop2 -p 8133:80", on("host3"), labels, "--health-cmd false --health-interval 300ms --health-retries 1", website("x"))...))
	eventually(t, 10*time.Second, "one of them is unhealthy", func() bool {
		return must(t, w.docker("inspect", "--format", "{{.State.Health.Status}}", "shop2")) == "unhealthy"
	})
	both := strings.Join(lines("A "+ip1+"\nA "+ip3), ", ")
	is("udp", "shop.api.berth.", dns.TypeA, "NOERROR A "+ip1)
	must(t, w.docker("rm", "-f", "shop2"))
	must(t, w.docker(args("run -d --name shop3 -p 8134:80", on("host3"), labels, "--health-cmd true --health-interval 300ms", website("x"))...))
	is("udp", "shop.api.berth.", dns.TypeA, "NOERROR "+both)
	is("udp", "api.shop.berth.", dns.TypeA, "NOERROR "+both)

	var groups []struct {
		Targets []string
		Labels  map[string]string
	}
	res, err := http.Get("http://" + sdAddr + "/sd")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err == nil {
		err = json.Unmarshal(b, &groups)
	}
	if err != nil || len(groups) != 1 || groups[0].Targets[0] != ip3+":8131" || groups[0].Labels["__meta_docker_container_name"] != "/named" {
		t.Errorf("targets for Prometheus: %s, %v", b, err)
	}

	must(t, w.docker("stop", "-t", "0", "named"))
	is("udp", "named.berth.", dns.TypeA, "NXDOMAIN ")
	must(t, w.docker("rename", "shop1", "other"))
	is("udp", "other.berth.", dns.TypeA, "NOERROR A "+ip1)

	// The manager may be restarted meanwhile.
	if err := w.stopServe(); err != nil {
		t.Fatal(err)
	}
	same(t, "while there is no manager", lookUp(t, "udp", "other.berth.", dns.TypeA), "NOERROR A "+ip1)
	if err := w.startServe(); err != nil {
		t.Fatal(err)
	}
	must(t, w.docker("rename", "other", "again"))
	is("udp", "again.berth.", dns.TypeA, "NOERROR A "+ip1)
}
