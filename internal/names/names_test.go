package names

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"berth/internal/fleet"
)

// testRow makes one row of a list. ports are "IP:PUBLIC->PRIVATE/PROTO".
func testRow(name, node, state, status string, labels map[string]string, mode string, ports ...string) map[string]any {
	all := map[string]string{fleet.LabelNode: node}
	for k, v := range labels {
		all[k] = v
	}
	list := []map[string]any{}
	for _, p := range ports {
		from, to, _ := strings.Cut(p, "->")
		at := netip.MustParseAddrPort(from)
		var private uint16
		var proto string
		if _, err := fmt.Sscanf(strings.Replace(to, "/", " ", 1), "%d %s", &private, &proto); err != nil {
			panic(err)
		}
		row := map[string]any{"PrivatePort": private, "Type": proto}
		if at.Port() != 0 {
			row["IP"], row["PublicPort"] = at.Addr().String(), at.Port()
		}
		list = append(list, row)
	}
	return map[string]any{
		"Id": "id-" + name, "Names": []string{"/" + name, "/" + node + "/" + name}, "Image": "img", "State": state, "Status": status,
		"Labels": all, "HostConfig": map[string]any{"NetworkMode": mode}, "Ports": list,
	}
}

func compose(project, service string) map[string]string {
	return map[string]string{fleet.LabelProject: project, "com.docker.compose.service": service}
}

func testView(t testing.TB) *View {
	rows := []any{
		testRow("web", "n1", "running", "Up 2 minutes (healthy)", nil, "default", "0.0.0.0:8080->80/tcp", "[::]:8080->80/tcp", "0.0.0.0:8443->443/tcp", "0.0.0.0:0->9000/tcp"),
		testRow("dns", "n6", "running", "Up", nil, "default", "0.0.0.0:5353->53/udp", "0.0.0.0:5354->53/tcp"),
		testRow("shop-api-1", "n1", "running", "Up", compose("shop", "api"), "shop_default", "0.0.0.0:20000->80/tcp"),
		testRow("shop-api-2", "n2", "running", "Up", compose("shop", "api"), "shop_default", "0.0.0.0:20001->80/tcp"),
		testRow("shop-db-1", "n2", "running", "Up", compose("shop", "db"), "shop_default"),
		testRow("api-shop-1", "n2", "running", "Up", compose("api", "shop"), "x", "0.0.0.0:20009->80/tcp"),
		testRow("sick", "n1", "running", "Up 2 minutes (unhealthy)", map[string]string{"prometheus.port": "80"}, "default", "0.0.0.0:81->80/tcp"),
		testRow("young", "n1", "running", "Up 2 seconds (health: starting)", nil, "default", "0.0.0.0:82->80/tcp"),
		testRow("paused", "n1", "paused", "Up (Paused)", nil, "default", "0.0.0.0:83->80/tcp"),
		testRow("away", "n3", "running", "Host Down", nil, "default", "0.0.0.0:84->80/tcp"),
		testRow("private", "n1", "running", "Up", nil, "default", "127.0.0.1:85->80/tcp"),
		testRow("special", "n1", "running", "Up", nil, "default", "192.0.2.77:86->80/tcp"),
		testRow("onhost", "n2", "running", "Up", map[string]string{"prometheus.port": "9100", "prometheus.path": "/m", "a.b/c": "d"}, "host"),
		testRow("Big.Name", "n1", "running", "Up", nil, "default", "0.0.0.0:87->80/tcp"),
		testRow(strings.Repeat("l", 64), "n1", "running", "Up", nil, "default", "0.0.0.0:88->80/tcp"),
	}
	b, err := json.Marshal(rows)
	if err != nil {
		t.Fatal(err)
	}
	v, err := Read(b, map[string]netip.Addr{"n1": netip.MustParseAddr("10.0.0.1"), "n2": netip.MustParseAddr("10.0.0.2"), "n6": netip.MustParseAddr("2001:db8::6")}, netip.Addr{})
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func testZone(t testing.TB) *Zone { return NewZone("berth", 5*time.Second, 7, testView(t)) }

// ask answers as "RCODE rdata, rdata", the answers sorted.
func ask(z *Zone, name string, kind uint16) string {
	m := z.Answer(new(dns.Msg).SetQuestion(name, kind))
	var all []string
	for _, rr := range m.Answer {
		_, rdata, _ := strings.Cut(rr.String(), "\tIN\t")
		all = append(all, strings.ReplaceAll(rdata, "\t", " "))
	}
	slices.Sort(all)
	return strings.TrimSpace(dns.RcodeToString[m.Rcode] + " " + strings.Join(all, ", "))
}

func TestAnswers(t *testing.T) {
	z := testZone(t)
	for _, tt := range []struct {
		name string
		kind uint16
		want string
	}{
		{"web.berth.", dns.TypeA, "NOERROR A 10.0.0.1"},
		{"WeB.BeRtH.", dns.TypeA, "NOERROR A 10.0.0.1"},
		{"web.berth.", dns.TypeAAAA, "NOERROR"},
		{"web.berth.", dns.TypeMX, "NOERROR"},
		{"dns.berth.", dns.TypeAAAA, "NOERROR AAAA 2001:db8::6"},
		{"dns.berth.", dns.TypeA, "NOERROR"},
		{"web.berth.", dns.TypeSRV, "NOERROR SRV 0 1 8080 web.berth., SRV 0 1 8443 web.berth."},
		{"_80._tcp.web.berth.", dns.TypeSRV, "NOERROR SRV 0 1 8080 web.berth."},
		{"_https._tcp.web.berth.", dns.TypeSRV, "NOERROR SRV 0 1 8443 web.berth."},
		{"_80._udp.web.berth.", dns.TypeSRV, "NXDOMAIN"},
		{"_9000._tcp.web.berth.", dns.TypeSRV, "NXDOMAIN"}, // exposed, not published
		{"_nosuch._tcp.web.berth.", dns.TypeSRV, "NXDOMAIN"},
		{"_80._tcp.web.berth.", dns.TypeA, "NOERROR"},
		{"_tcp.web.berth.", dns.TypeSRV, "NOERROR"},
		{"_domain._udp.dns.berth.", dns.TypeSRV, "NOERROR SRV 0 1 5353 dns.berth."},
		{"shop.api.berth.", dns.TypeA, "NOERROR A 10.0.0.1, A 10.0.0.2"},
		{"shop.db.berth.", dns.TypeA, "NOERROR"}, // publishes nothing
		{"db.shop.berth.", dns.TypeA, "NOERROR"},
		{"api.shop.berth.", dns.TypeA, "NOERROR A 10.0.0.2"}, // project api, service shop stands before service api of project shop
		{"_80._tcp.shop.api.berth.", dns.TypeSRV, "NOERROR SRV 0 1 20000 shop-api-1.berth., SRV 0 1 20001 shop-api-2.berth."},
		{"shop.berth.", dns.TypeA, "NOERROR"},
		{"shop-api-2.berth.", dns.TypeA, "NOERROR A 10.0.0.2"},
		{"sick.berth.", dns.TypeA, "NXDOMAIN"},
		{"young.berth.", dns.TypeA, "NXDOMAIN"},
		{"paused.berth.", dns.TypeA, "NXDOMAIN"},
		{"away.berth.", dns.TypeA, "NXDOMAIN"},
		{"private.berth.", dns.TypeA, "NOERROR"},
		{"special.berth.", dns.TypeA, "NOERROR A 192.0.2.77"},
		{"onhost.berth.", dns.TypeA, "NOERROR A 10.0.0.2"},
		{"big.name.berth.", dns.TypeA, "NOERROR A 10.0.0.1"},
		{"name.berth.", dns.TypeA, "NOERROR"},
		{"nosuch.berth.", dns.TypeA, "NXDOMAIN"},
		{"x.web.berth.", dns.TypeA, "NXDOMAIN"},
		{"berth.", dns.TypeSOA, "NOERROR SOA ns.berth. hostmaster.berth. 7 60 60 60 5"},
		{"berth.", dns.TypeA, "NOERROR"},
		{"web.berth.", dns.TypeANY, `NOERROR HINFO "RFC8482" ""`},
		{"example.com.", dns.TypeA, "REFUSED"},
		{"notberth.", dns.TypeA, "REFUSED"},
		{".", dns.TypeNS, "REFUSED"},
		{"berth.", dns.TypeAXFR, "REFUSED"},
	} {
		if got := ask(z, tt.name, tt.kind); got != tt.want {
			t.Errorf("%s %s: %s, want %s", tt.name, dns.TypeToString[tt.kind], got, tt.want)
		}
	}
}

func TestHeadsOfAnswers(t *testing.T) {
	z := testZone(t)
	q := func(name string) *dns.Msg { return new(dns.Msg).SetQuestion(name, dns.TypeA) }
	if m := z.Answer(q("nosuch.berth.")); !m.Authoritative || len(m.Ns) != 1 || m.Ns[0].Header().Rrtype != dns.TypeSOA || m.RecursionAvailable {
		t.Errorf("of a name that does not exist: %v", m)
	}
	if m := z.Answer(new(dns.Msg).SetQuestion("_80._tcp.web.berth.", dns.TypeSRV)); len(m.Extra) != 1 || m.Extra[0].(*dns.A).A.String() != "10.0.0.1" { //nolint:forcetypeassert // the test's
		t.Errorf("with a service: %v", m)
	}
	if m := z.Answer(q("WEB.berth.")); m.Answer[0].Header().Name != "WEB.berth." || m.Answer[0].Header().Ttl != 5 {
		t.Errorf("the case of the question is lost: %v", m)
	}
	if z.Answer(&dns.Msg{MsgHdr: dns.MsgHdr{Response: true}}) != nil {
		t.Error("an answer is answered")
	}
	for what, tt := range map[string]struct {
		q    *dns.Msg
		want int
	}{
		"an update":        {&dns.Msg{MsgHdr: dns.MsgHdr{Opcode: dns.OpcodeUpdate}, Question: q("web.berth.").Question}, dns.RcodeNotImplemented},
		"no question":      {new(dns.Msg), dns.RcodeFormatError},
		"another class":    {&dns.Msg{Question: []dns.Question{{Name: "web.berth.", Qtype: dns.TypeA, Qclass: dns.ClassCHAOS}}}, dns.RcodeRefused},
		"EDNS of tomorrow": {func() *dns.Msg { m := q("web.berth.").SetEdns0(4096, false); m.IsEdns0().SetVersion(1); return m }(), dns.RcodeBadVers},
		"EDNS of today":    {q("web.berth.").SetEdns0(4096, true), dns.RcodeSuccess},
	} {
		m := z.Answer(tt.q)
		if m.Rcode != tt.want {
			t.Errorf("%s is answered %s, want %s", what, dns.RcodeToString[m.Rcode], dns.RcodeToString[tt.want])
		}
		if _, err := m.Pack(); err != nil {
			t.Errorf("%s: %v", what, err)
		}
		if opt := m.IsEdns0(); (opt != nil) != (tt.q.IsEdns0() != nil) || opt != nil && opt.Do() != tt.q.IsEdns0().Do() {
			t.Errorf("%s: EDNS of the answer is %v", what, opt)
		}
	}
}

func TestLargeAnswersAreCut(t *testing.T) {
	v := new(View)
	for i := range 300 {
		addr := netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)})
		v.Containers = append(v.Containers, Container{Name: fmt.Sprintf("many-%d", i), Project: "p", Service: "s", Address: addr, Ports: []Port{{"tcp", 80, netip.AddrPortFrom(addr, 80)}}})
	}
	z := NewZone("fleet.example.com", time.Second, 1, v)
	for size, most := range map[uint16]int{0: 512, 700: 700, 4096: 1232} {
		q := new(dns.Msg).SetQuestion("p.s.fleet.example.com.", dns.TypeA)
		if size > 0 {
			q.SetEdns0(size, false)
		}
		m := z.Answer(q)
		if len(m.Answer) != 300 || m.Truncated {
			t.Fatalf("by TCP: %d answers", len(m.Answer))
		}
		Fit(q, m)
		b, err := m.Pack()
		if err != nil || len(b) > most || !m.Truncated {
			t.Errorf("a client that takes %d bytes gets %d, truncated %v, %v", size, len(b), m.Truncated, err)
		}
	}
}

func TestASingleEngine(t *testing.T) {
	row := testRow("web", "", "running", "Up", nil, "default", "0.0.0.0:8080->80/tcp")
	delete(row["Labels"].(map[string]string), fleet.LabelNode) //nolint:forcetypeassert // testRow's
	b, _ := json.Marshal([]any{row})
	v, err := Read(b, nil, netip.MustParseAddr("127.0.0.1"))
	if err != nil {
		t.Fatal(err)
	}
	if got := ask(NewZone("x.", 0, 1, v), "web.x.", dns.TypeA); got != "NOERROR A 127.0.0.1" {
		t.Error(got)
	}
	if _, err := Read([]byte("{"), nil, netip.Addr{}); err == nil {
		t.Error("nonsense is a list")
	}
}

func TestTargets(t *testing.T) {
	v := testView(t)
	show := func(groups []Group) string {
		var all []string
		for _, g := range groups {
			all = append(all, g.Labels["__meta_docker_container_name"]+"="+strings.Join(g.Targets, ","))
		}
		return strings.Join(all, " ")
	}
	if got, want := show(v.Targets(false)), "/onhost=10.0.0.2:9100 /sick=10.0.0.1:81"; got != want {
		t.Errorf("asked for: %s, want %s", got, want)
	}
	all := show(v.Targets(true))
	for _, want := range []string{"/web=10.0.0.1:8080", "/web=10.0.0.1:8443", "/dns=[2001:db8::6]:5354", "/sick=10.0.0.1:81", "/special=192.0.2.77:86"} {
		if !strings.Contains(all, want) {
			t.Errorf("all lack %s: %s", want, all)
		}
	}
	g := v.Targets(false)[0]
	for k, want := range map[string]string{
		"__meta_docker_container_id": "id-onhost", "__meta_docker_container_label_a_b_c": "d", "__metrics_path__": "/m", "__meta_berth_node": "n2",
		"__meta_docker_port_private": "9100", "__meta_docker_container_network_mode": "host",
	} {
		if g.Labels[k] != want {
			t.Errorf("%s = %q, want %q", k, g.Labels[k], want)
		}
	}
	if b, _ := json.Marshal(new(View).Targets(true)); string(b) != "[]" {
		t.Errorf("no targets are %s", b)
	}
	off := View{Containers: []Container{{Name: "off", Labels: map[string]string{"prometheus.scrape": "false"}, Ports: []Port{{"tcp", 80, netip.MustParseAddrPort("10.0.0.1:80")}}}}}
	if got := off.Targets(true); len(got) != 0 {
		t.Errorf("what is not to be scraped is: %v", got)
	}
}

func FuzzAnswer(f *testing.F) {
	for _, name := range []string{"web.berth.", "_80._tcp.shop.api.berth.", "berth.", "example.com."} {
		b, err := new(dns.Msg).SetQuestion(name, dns.TypeSRV).SetEdns0(1232, true).Pack()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	z := testZone(f)
	f.Fuzz(func(t *testing.T, b []byte) {
		q := new(dns.Msg)
		if q.Unpack(b) != nil {
			return
		}
		m := z.Answer(q)
		if m == nil {
			return
		}
		if !m.Response || m.Id != q.Id {
			t.Errorf("%v is no answer to %v", m, q)
		}
		if m.Rcode == dns.RcodeSuccess && len(q.Question) == 1 && !strings.HasSuffix(dns.CanonicalName(q.Question[0].Name), "berth.") {
			t.Errorf("a name of another zone is answered: %v", m)
		}
		Fit(q, m)
		if packed, err := m.Pack(); err == nil && len(packed) > ourSize {
			t.Errorf("%d bytes by UDP", len(packed))
		}
	})
}
