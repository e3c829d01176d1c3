package schedule

import (
	"crypto/sha256"
	"fmt"
	"slices"
	"strings"
	"testing"

	"berth/internal/fleet"
)

// node makes a healthy node of 4 CPUs and 4 GiB from words: label=value is an engine label, anything else a state or a
// container as container makes it.
func node(name string, words ...string) *fleet.Node {
	n := &fleet.Node{
		ID: "ID-" + name + "|10.0.0.1:2376", EngineID: "ID-" + name, Name: name, State: fleet.Healthy, Health: 100,
		CPUs: 4, Memory: 4 << 30, OS: "linux", Arch: "amd64", API: "1.41", MinAPI: "1.24", Labels: map[string]string{},
	}
	for _, w := range words {
		key, value, isLabel := strings.Cut(w, "=")
		switch {
		case w == "unhealthy":
			n.State, n.Health = fleet.Unhealthy, 0
		case w == "pending":
			n.State = fleet.Pending
		case w == "failing":
			n.Health = 0
		case w == "ailing":
			n.Health = 67
		case strings.HasPrefix(w, "+"):
			n.Containers = append(n.Containers, container(name, w[1:]))
		case strings.HasPrefix(w, "image:"):
			ref := strings.TrimPrefix(w, "image:")
			i := &fleet.Image{ID: fmt.Sprintf("sha256:%064x", len(n.Images)+1)}
			if strings.Contains(ref, "@") {
				i.RepoDigests = []string{ref}
			} else {
				i.RepoTags = []string{ref}
			}
			n.Images = append(n.Images, i)
		case isLabel:
			n.Labels[key] = value
		}
	}
	slices.SortFunc(n.Containers, func(a, b *fleet.Container) int { return strings.Compare(a.ID, b.ID) })
	return n.Seal()
}

// container makes a running container from "name,label=value,127.0.0.1:80/tcp,1G,2cpu,host,stopped".
func container(node, text string) *fleet.Container {
	words := strings.Split(text, ",")
	c := &fleet.Container{
		ID: fmt.Sprintf("%x", sha256.Sum256([]byte(node+"/"+words[0]))), Name: words[0], Image: "busybox", State: "running", Inspected: true,
	}
	labels := map[string]string{}
	for _, w := range words[1:] {
		key, value, isLabel := strings.Cut(w, "=")
		var amount int64
		switch {
		case isLabel:
			labels[key] = value
		case w == "host":
			c.NetworkMode = "host"
		case w == "stopped":
			c.State = "exited"
		case strings.Contains(w, "/"):
			p := port(w)
			if c.NetworkMode == "host" {
				c.Exposed = append(c.Exposed, fleet.Port{Proto: p.Proto, Port: p.HostPort})
			} else {
				c.Wanted = append(c.Wanted, p)
			}
		case scan(w, "%dG", &amount):
			c.Memory = amount << 30
		case scan(w, "%dcpu", &amount):
			c.NanoCPUs = amount * 1e9
		}
	}
	c.Labels = fleet.LabelsOf(labels)
	return c
}

func scan(s, format string, to *int64) bool {
	n, err := fmt.Sscanf(s, format, to)
	return n == 1 && err == nil
}

// port reads "127.0.0.1|80/tcp" or "80/tcp".
func port(s string) fleet.Port {
	p := fleet.Port{Port: 80}
	if ip, rest, ok := strings.Cut(s, "|"); ok {
		p.HostIP, s = ip, rest
	}
	number, proto, _ := strings.Cut(s, "/")
	p.Proto = proto
	if _, err := fmt.Sscan(number, &p.HostPort); err != nil {
		panic(err)
	}
	return p
}

func ports(list ...string) []fleet.Port {
	var all []fleet.Port
	for _, s := range list {
		all = append(all, port(s))
	}
	return all
}

func exposed(list ...string) []fleet.Port {
	var all []fleet.Port
	for _, p := range ports(list...) {
		all = append(all, fleet.Port{Proto: p.Proto, Port: p.HostPort})
	}
	return all
}

func snapshot(nodes ...*fleet.Node) *fleet.Snapshot {
	s := &fleet.Snapshot{}
	for _, n := range nodes {
		s = s.Replace(n)
	}
	return s
}

func rules(t testing.TB, env ...string) Rules {
	t.Helper()
	r, rest, _, err := ParseRules(env, nil)
	if err != nil || len(rest) > 0 {
		t.Fatalf("ParseRules(%q) = rest %q, error %v", env, rest, err)
	}
	return r
}

// outcome is the names of the nodes that fit, or the refusal's own line.
func outcome(v View, r *Request, p Policy) string {
	nodes, err := Rank(v, r, p)
	if err != nil {
		line, _, _ := strings.Cut(err.Error(), "\n")
		return line
	}
	var names []string
	for _, n := range nodes {
		names = append(names, n.Name)
	}
	return strings.Join(names, " ")
}
