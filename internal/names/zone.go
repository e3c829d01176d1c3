package names

import (
	"math/rand/v2"
	"strconv"
	"strings"
	"time"

	"github.com/miekg/dns"
)

// Zone answers for the names of one view, in one domain. It is never changed.
type Zone struct {
	origin string // "berth."
	ttl    uint32
	serial uint32
	hosts  map[string][]*Container // by name without the domain, in lower case
	// exists has also the names that only have others below them.
	exists map[string]bool
}

// NewZone makes the zone of a view: NAME for each container, PROJECT.SERVICE and SERVICE.PROJECT for those of Compose. Only those that are
// well have names. Where two things have one name a container's own comes first, then PROJECT.SERVICE.
func NewZone(domain string, ttl time.Duration, serial uint32, v *View) *Zone {
	z := &Zone{origin: dns.CanonicalName(domain), ttl: uint32(ttl / time.Second), serial: serial, hosts: map[string][]*Container{}, exists: map[string]bool{"": true}}
	services, others := map[string][]*Container{}, map[string][]*Container{}
	for i := range v.Containers {
		c := &v.Containers[i]
		if !c.Well() {
			continue
		}
		z.add(c.Name, c)
		if c.Project != "" && c.Service != "" {
			project, service := strings.ToLower(c.Project), strings.ToLower(c.Service)
			services[project+"."+service] = append(services[project+"."+service], c)
			others[service+"."+project] = append(others[service+"."+project], c)
		}
	}
	for _, form := range []map[string][]*Container{services, others} {
		taken := map[string]bool{}
		for name := range form {
			taken[name] = z.hosts[name] != nil
		}
		for name, all := range form {
			for _, c := range all {
				if !taken[name] {
					z.add(name, c)
				}
			}
		}
	}
	return z
}

func (z *Zone) add(name string, c *Container) {
	name = strings.ToLower(name)
	if _, ok := dns.IsDomainName(name + "." + z.origin); !ok {
		return // a part of more than 63 letters cannot be asked for
	}
	z.hosts[name] = append(z.hosts[name], c)
	for below := true; below; _, name, below = strings.Cut(name, ".") {
		z.exists[name] = true
	}
}

// Answer answers one query; nil for what is none.
func (z *Zone) Answer(q *dns.Msg) *dns.Msg {
	if q.Response {
		return nil
	}
	m := new(dns.Msg)
	if q.Opcode != dns.OpcodeQuery || len(q.Question) != 1 {
		code := dns.RcodeFormatError
		if q.Opcode != dns.OpcodeQuery {
			code = dns.RcodeNotImplemented
		}
		return m.SetRcode(q, code)
	}
	m.SetReply(q)
	m.Compress = true
	if opt := q.IsEdns0(); opt != nil {
		m.SetEdns0(ourSize, opt.Do())
		if opt.Version() != 0 {
			m.Rcode = dns.RcodeBadVers
			return m
		}
	}
	z.fill(m, q.Question[0])
	return m
}

// ourSize is the largest answer by UDP: what goes through every network in one piece.
const ourSize = 1232

// Fit cuts an answer to what the client takes by UDP; it asks again by TCP then.
func Fit(q, m *dns.Msg) {
	size := dns.MinMsgSize
	if opt := q.IsEdns0(); opt != nil {
		size = min(max(int(opt.UDPSize()), dns.MinMsgSize), ourSize)
	}
	m.Truncate(size)
}

// fill writes the answer to a question.
func (z *Zone) fill(m *dns.Msg, q dns.Question) {
	name := strings.ToLower(q.Name)
	rel, inside := strings.CutSuffix(name, "."+z.origin)
	if name == z.origin {
		rel, inside = "", true
	}
	if !inside || q.Qclass != dns.ClassINET && q.Qclass != dns.ClassANY || q.Qtype == dns.TypeAXFR || q.Qtype == dns.TypeIXFR {
		m.Rcode = dns.RcodeRefused
		return
	}
	m.Authoritative = true
	port, proto, host, isService := cutService(rel)
	if !isService {
		host = rel
	}
	if rel == "" && q.Qtype == dns.TypeSOA {
		m.Answer = []dns.RR{z.soa(q.Name)}
		return
	}
	var found bool
	if isService {
		found = z.services(m, q, host, port, proto)
	} else {
		found = z.exists[rel]
		z.records(m, q, host)
	}
	if len(m.Answer) > 0 {
		return
	}
	if !found {
		m.Rcode = dns.RcodeNameError
	}
	m.Ns = []dns.RR{z.soa(z.origin)}
}

// records answers for a name of containers.
func (z *Zone) records(m *dns.Msg, q dns.Question, host string) {
	all := z.hosts[host]
	switch q.Qtype {
	case dns.TypeA, dns.TypeAAAA:
		m.Answer = z.addresses(q.Name, all, q.Qtype)
		rand.Shuffle(len(m.Answer), func(i, j int) { m.Answer[i], m.Answer[j] = m.Answer[j], m.Answer[i] })
	case dns.TypeSRV:
		for _, c := range all {
			z.srv(m, q.Name, c, func(Port) bool { return true })
		}
	case dns.TypeANY: // RFC 8482: as little as there can be
		if z.exists[host] {
			m.Answer = []dns.RR{&dns.HINFO{Hdr: z.header(q.Name, dns.TypeHINFO), Cpu: "RFC8482"}}
		}
	}
}

// services answers for _port._proto.NAME, and tells whether there is such a name.
func (z *Zone) services(m *dns.Msg, q dns.Question, host string, port uint16, proto string) (found bool) {
	for _, c := range z.hosts[host] {
		match := func(p Port) bool { return p.Proto == proto && (port == 0 || p.Private == port) }
		for _, p := range c.Ports {
			found = found || match(p)
		}
		if port != 0 && (q.Qtype == dns.TypeSRV) {
			z.srv(m, q.Name, c, match)
		}
	}
	return found
}

// srv adds the published ports of a container. The target is the container's own name, whose addresses go along.
func (z *Zone) srv(m *dns.Msg, name string, c *Container, match func(Port) bool) {
	target := strings.ToLower(c.Name) + "." + z.origin
	if len(z.hosts[strings.ToLower(c.Name)]) == 0 {
		return
	}
	seen := map[uint16]bool{}
	for _, p := range c.Ports {
		if !match(p) || seen[p.Public.Port()] {
			continue
		}
		seen[p.Public.Port()] = true
		m.Answer = append(m.Answer, &dns.SRV{Hdr: z.header(name, dns.TypeSRV), Weight: 1, Port: p.Public.Port(), Target: target})
	}
	if len(seen) == 0 {
		return
	}
	for _, kind := range []uint16{dns.TypeA, dns.TypeAAAA} {
		m.Extra = append(z.addresses(target, []*Container{c}, kind), m.Extra...) // OPT stays last
	}
}

func (z *Zone) addresses(name string, all []*Container, kind uint16) (rrs []dns.RR) {
	seen := map[string]bool{}
	for _, c := range all {
		for _, a := range c.Addresses() {
			if a.Is4() != (kind == dns.TypeA) || seen[a.String()] {
				continue
			}
			seen[a.String()] = true
			if a.Is4() {
				rrs = append(rrs, &dns.A{Hdr: z.header(name, kind), A: a.AsSlice()})
			} else {
				rrs = append(rrs, &dns.AAAA{Hdr: z.header(name, kind), AAAA: a.AsSlice()})
			}
		}
	}
	return rrs
}

func (z *Zone) header(name string, kind uint16) dns.RR_Header {
	return dns.RR_Header{Name: name, Rrtype: kind, Class: dns.ClassINET, Ttl: z.ttl}
}

// soa says how long it holds that there is no such name: as long as that there is one.
func (z *Zone) soa(name string) dns.RR {
	return &dns.SOA{
		Hdr: z.header(name, dns.TypeSOA), Ns: "ns." + z.origin, Mbox: "hostmaster." + z.origin, Serial: z.serial, Refresh: 60, Retry: 60, Expire: 60, Minttl: z.ttl,
	}
}

// wellKnown are services that have names. All others are asked for by number.
var wellKnown = map[string]uint16{
	"http": 80, "https": 443, "domain": 53, "ssh": 22, "smtp": 25, "ldap": 389, "mqtt": 1883, "amqp": 5672, "mysql": 3306, "postgresql": 5432, "redis": 6379, "mongodb": 27017,
}

// cutService reads _80._tcp.NAME and _http._tcp.NAME; _tcp.NAME is any port, and has no records. A service of no known port has port 0 and
// no protocol.
func cutService(rel string) (port uint16, proto, host string, ok bool) {
	first, rest, _ := strings.Cut(rel, ".")
	if !strings.HasPrefix(first, "_") {
		return 0, "", "", false
	}
	if first == "_tcp" || first == "_udp" || first == "_sctp" {
		return 0, first[1:], rest, true
	}
	second, host, _ := strings.Cut(rest, ".")
	n, err := strconv.ParseUint(first[1:], 10, 16)
	if err != nil {
		n = uint64(wellKnown[first[1:]])
	}
	if n == 0 || !strings.HasPrefix(second, "_") {
		return 0, "", host, true
	}
	return uint16(n), second[1:], host, true
}
