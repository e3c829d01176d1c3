package fleet

import "strings"

// Versions are the extremes over the fleet's nodes; "" where no node has said. They are asked for with every request and
// change with few publications, so they are kept and not looked for.
type Versions struct {
	Lowest, Highest string // of the engines, without what distributions put behind a "+"
	API             string // the newest that an engine speaks
}

// Versions returns the extremes of the nodes' versions.
func (s *Snapshot) Versions() Versions { return s.versions }

// count brings the versions from old to n, either of which may be nil. The nodes are already those of the new snapshot.
func (s *Snapshot) count(old, n *Node) {
	switch {
	case old != nil && n != nil && old.Version == n.Version && old.API == n.API:
		return
	case old == nil || old.Version == "" && old.API == "": // it was no extreme
		if n != nil {
			s.versions.add(n)
		}
		return
	}
	s.versions = Versions{}
	for m := range s.byName.all() {
		s.versions.add(m)
	}
}

func (v *Versions) add(n *Node) {
	if is := bareVersion(n.Version); is != "" {
		if v.Lowest == "" || CompareVersions(is, v.Lowest) < 0 {
			v.Lowest = is
		}
		if v.Highest == "" || CompareVersions(is, v.Highest) > 0 {
			v.Highest = is
		}
	}
	if n.API != "" && (v.API == "" || CompareVersions(n.API, v.API) > 0) {
		v.API = n.API
	}
}

func bareVersion(version string) string {
	bare, _, _ := strings.Cut(version, "+")
	return bare
}
