package fleet

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// manyNodes is a fleet of nodes with so many containers each.
func manyNodes(nodes, containers int) *Snapshot {
	s := new(Snapshot)
	for i := range nodes {
		n := &Node{ID: fmt.Sprintf("E%05d|a", i), Name: fmt.Sprintf("n%d", i), State: Healthy}
		for j := range containers {
			k := i*containers + j
			n.Containers = append(n.Containers, benchContainer(k))
		}
		slices.SortFunc(n.Containers, func(a, b *Container) int { return strings.Compare(a.ID, b.ID) })
		s = s.Replace(n.Seal())
	}
	return s
}

func benchContainer(k int) *Container {
	return &Container{
		ID: fmt.Sprintf("%08x%056x", k*2654435761%(1<<32), k), Name: fmt.Sprintf("c-%d", k), State: "running",
	}
}

// BenchmarkReplace publishes one node's change in a fleet of 1,000 nodes with 30 containers each.
func BenchmarkReplace(b *testing.B) {
	s := manyNodes(1000, 30)
	n := s.Nodes()[500]
	state := *n
	c := *n.Containers[7]
	c.State = "exited"
	state.Containers = slices.Clone(n.Containers)
	state.Containers[7] = &c
	more := *n
	another := benchContainer(40_000)
	at, _ := slices.BinarySearchFunc(n.Containers, another, func(a, b *Container) int { return strings.Compare(a.ID, b.ID) })
	more.Containers = slices.Insert(slices.Clone(n.Containers), at, another)
	same := *n
	same.Health = 50
	empty := *n
	empty.Containers = nil
	for _, bb := range []struct {
		name string
		to   *Node
	}{{"health", &same}, {"state", &state}, {"create+remove", &more}, {"leave+join", &empty}} {
		b.Run(bb.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				s.Replace(bb.to).Replace(n)
			}
		})
	}
}

func BenchmarkFind(b *testing.B) {
	s := manyNodes(1000, 30)
	n := s.Nodes()[500]
	c := n.Containers[7]
	for _, bb := range []struct{ name, ref string }{{"id", c.ID}, {"prefix", c.ID[:12]}, {"name", c.Name}, {"none", "nobody"}} {
		b.Run(bb.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				_, _ = s.Container(bb.ref)
			}
		})
	}
}
