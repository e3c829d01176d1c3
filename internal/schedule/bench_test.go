package schedule

import (
	"fmt"
	"testing"
	"unique"

	"berth/internal/fleet"
)

// benchFleet is nodes with 50 containers and 20 images each, as a fleet of web services would have them.
func benchFleet(nodes int) *fleet.Snapshot {
	images := make([]*fleet.Image, 20)
	for i := range images {
		images[i] = &fleet.Image{ID: fmt.Sprintf("sha256:%064x", i), RepoTags: []string{fmt.Sprintf("registry.example.com/app%d:1.0", i)}}
	}
	s := &fleet.Snapshot{}
	for i := range nodes {
		s = s.Replace(benchNode(i, images))
	}
	return s
}

func benchNode(i int, images []*fleet.Image) *fleet.Node {
	n := &fleet.Node{
		ID: fmt.Sprintf("%032x|10.0.%d.%d:2376", i, i/256, i%256), EngineID: fmt.Sprintf("%032x", i), Name: fmt.Sprintf("node-%d", i),
		State: fleet.Healthy, Health: 100, CPUs: 64, Memory: 256 << 30, OS: "linux", Arch: "amd64", API: "1.51", Images: images,
		Labels: map[string]string{
			"storagedriver": "overlay2", "kernelversion": "6.1.0", "operatingsystem": "Debian GNU/Linux 12 (bookworm)",
			"ostype": "linux", "zone": fmt.Sprintf("z%d", i%5), "size": []string{"m", "l", "xl"}[i%3],
		},
	}
	for c := range 50 {
		k := i*50 + c
		n.Containers = append(n.Containers, &fleet.Container{
			ID: fmt.Sprintf("%08x%056x", k, k), Name: fmt.Sprintf("app%d-web-%d", k%97, k), Image: "app:1.0", State: "running",
			Labels: fleet.LabelsOf(map[string]string{
				"com.docker.compose.project": fmt.Sprintf("app%d", k%97), "com.docker.compose.service": []string{"web", "db", "cache"}[k%3],
				"com.docker.compose.container-number": fmt.Sprint(k), "com.docker.swarm.id": fmt.Sprintf("%064x", k),
			}),
			Wanted: []fleet.Port{{Proto: "tcp", HostPort: uint16(8000 + c), Port: 80}}, Inspected: true, Memory: 256 << 20, NanoCPUs: 1e8,
		})
	}
	return n.Seal()
}

// BenchmarkPlace is the work of one create, its expressions parsed: at most 50 µs at 1,000 nodes is the goal.
func BenchmarkPlace(b *testing.B) {
	rules := func(env ...string) Rules {
		r, _, _, err := ParseRules(env, nil)
		if err != nil {
			b.Fatal(err)
		}
		return r
	}
	requests := []struct {
		name string
		r    Request
	}{
		{"none", Request{}},
		{"limits", Request{Memory: 1 << 30, NanoCPUs: 1e9}},
		{"ports", Request{Ports: []fleet.Port{{Proto: "tcp", HostPort: 443, Port: 443}}}},
		{"constraint", Request{Rules: rules("constraint:zone==z0")}},
		{"affinity", Request{Rules: rules("affinity:container==app0-web-0")}},
		{"image", Request{Rules: rules("affinity:image==registry.example.com/app3")}},
		{"label", Request{Rules: rules("affinity:com.docker.compose.service!=mail")}},
		{"regex", Request{Rules: rules("constraint:operatingsystem==/(?i)debian/")}},
		{"fewfit", Request{Rules: rules("constraint:node==node-0")}},
		{"noderegex", Request{Rules: rules(`constraint:node==/^node-\d*0$/`)}},
		{"all", Request{
			Memory: 1 << 30, NanoCPUs: 1e9, Ports: []fleet.Port{{Proto: "tcp", HostPort: 443, Port: 443}},
			Rules: rules("constraint:storagedriver==overlay2", "constraint:zone!=z4", "affinity:com.docker.compose.service!=mail"),
		}},
	}
	for _, nodes := range []int{1, 100, 1000, 10000} {
		s := benchFleet(nodes)
		for _, tt := range requests {
			tt.r.Name = "web"
			b.Run(fmt.Sprintf("%s/nodes=%d", tt.name, nodes), func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					if _, err := Place(View{Snapshot: s}, &tt.r, DefaultPolicy()); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
		b.Run(fmt.Sprintf("preferred/nodes=%d", nodes), func(b *testing.B) {
			v := View{Snapshot: s}
			r := &Request{Name: "web"}
			for i, n := range s.Nodes() {
				if r.Prefer = append(r.Prefer, n.ID); i < nodes/2 {
					v.Pending = append(v.Pending, Pending{NodeID: n.ID, Request: &Request{Name: fmt.Sprint("p", i)}, Place: i})
				}
			}
			for b.Loop() {
				if _, err := Place(v, r, DefaultPolicy()); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(fmt.Sprintf("pending64/nodes=%d", nodes), func(b *testing.B) {
			v := View{Snapshot: s}
			for i := range 64 {
				v.Pending = append(v.Pending, Pending{NodeID: s.Nodes()[i%nodes].ID, Request: &Request{Name: fmt.Sprint("p", i)}, Place: i % nodes})
			}
			for b.Loop() {
				if _, err := Place(v, &Request{Name: "web"}, DefaultPolicy()); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkRefuse is a create that no node can take.
func BenchmarkRefuse(b *testing.B) {
	s := benchFleet(1000)
	r := &Request{Name: "web", Memory: 1 << 50}
	for b.Loop() {
		if _, err := Place(View{Snapshot: s}, r, DefaultPolicy()); err == nil {
			b.Fatal("placed")
		}
	}
}

// BenchmarkFirstLabel is what a label affinity costs on a node that changed since the last.
func BenchmarkFirstLabel(b *testing.B) {
	n := benchNode(1, nil)
	key := unique.Make("com.docker.compose.project")
	for b.Loop() {
		fresh := *n
		fresh.Containers = append([]*fleet.Container(nil), n.Containers...)
		fresh.Seal()
		if len(fresh.Facts().LabelValues(key)) == 0 {
			b.Fatal("no values")
		}
	}
}
