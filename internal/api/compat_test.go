package api

import (
	"bytes"
	cmdline "flag"
	"fmt"
	"os"
	"strings"
	"testing"
)

var update = cmdline.Bool("update", false, "write docs/compatibility.md instead of comparing it")

// listedRoutes reads testdata/routes.txt: a method and a pattern a line.
func listedRoutes(t *testing.T) [][2]string {
	t.Helper()
	b, err := os.ReadFile("testdata/routes.txt")
	if err != nil {
		t.Fatal(err)
	}
	var list [][2]string
	for line := range strings.Lines(string(b)) {
		if line = strings.TrimSpace(line); line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		method, pattern, ok := strings.Cut(line, " ")
		if !ok {
			t.Fatalf("testdata/routes.txt: %q is no method and path", line)
		}
		list = append(list, [2]string{method, pattern})
	}
	return list
}

// sample is a path that a pattern matches, with an object that nobody has.
func sample(pattern string) string {
	parts := split(pattern)
	for i := 1; i < len(parts); i += 2 {
		parts[i] = "nosuch"
	}
	return strings.Join(parts, "")
}

func TestTheTableHasEveryRouteOfTheAPIAndNoOther(t *testing.T) {
	r := newRouter(routes())
	listed := map[[2]string]bool{}
	for _, l := range listedRoutes(t) {
		listed[l] = true
		got, _ := r.match(l[0], sample(l[1]))
		switch {
		case got == nil:
			t.Errorf("%s %s is not in the table", l[0], l[1])
		case got.method != l[0] || got.pattern != l[1]:
			t.Errorf("%s %s is taken by %s %s", l[0], l[1], got.method, got.pattern)
		}
	}
	for _, rt := range routes() {
		if !listed[[2]string{rt.method, rt.pattern}] {
			t.Errorf("%s %s is in the table, but not in testdata/routes.txt (or twice in the table)", rt.method, rt.pattern)
		}
		delete(listed, [2]string{rt.method, rt.pattern})
	}
}

func TestEveryRouteAnswersSomethingOfItsOwn(t *testing.T) {
	f := newFleet(t, 2)
	for _, l := range listedRoutes(t) {
		path := sample(l[1])
		if path == "/events" {
			path += "?until=1"
		}
		a := f.do(l[0], path, nil)
		if a.header.Get("X-Berth-Node") != "" || l[1] == "/build/cancel" {
			continue // the daemon's own words, handed through; of the last it knows nothing
		}
		if bytes.Contains(a.body, []byte("page not found")) || a.status >= 500 && a.status != 501 && a.status != 503 {
			t.Errorf("%s %s = %d %s, which is no deliberate answer", l[0], path, a.status, a.body)
		}
	}
}

// TestCompatibilityDoc keeps docs/compatibility.md equal to the table; -update writes it.
func TestCompatibilityDoc(t *testing.T) {
	const path = "../../docs/compatibility.md"
	want := compatibilityDoc(routes(), conformanceChecks(t))
	if *update {
		if err := os.WriteFile(path, want, 0o644); err != nil { //nolint:gosec // a document, to be read by all
			t.Fatal(err)
		}
		return
	}
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s is stale: run go test ./internal/api -run TestCompatibilityDoc -update", path)
	}
}

// compatibilityDoc writes the table of routes and the list of checks for people.
func compatibilityDoc(table []route, checks []conformanceCheck) []byte {
	var b bytes.Buffer
	b.WriteString(docHead)
	rows := map[string]string{}
	var sections []string
	for _, rt := range table {
		section, note := sectionOf(rt.pattern), rt.note
		if _, begun := rows[section]; !begun {
			sections = append(sections, section)
		}
		if note == "" {
			note = "–"
		}
		rows[section] += fmt.Sprintf("| `%s %s` | %s | %s |\n", rt.method, rt.pattern, rt.class, note)
	}
	for _, section := range sections {
		fmt.Fprintf(&b, "\n## %s\n\n| route | treatment | what the fleet adds or changes |\n|---|---|---|\n%s", section, rows[section])
	}
	b.WriteString(checksHead)
	for _, c := range checks {
		pending := c.pending
		if pending == "" {
			pending = "–"
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s |\n", c.number, c.name, c.when, pending)
	}
	return b.Bytes()
}

// conformanceCheck is a line of testdata/conformance.txt, which test/e2e holds to the checks that it runs.
type conformanceCheck struct{ number, name, when, pending string }

func conformanceChecks(t *testing.T) []conformanceCheck {
	t.Helper()
	b, err := os.ReadFile("testdata/conformance.txt")
	if err != nil {
		t.Fatal(err)
	}
	var list []conformanceCheck
	for line := range strings.Lines(string(b)) {
		f := strings.Split(strings.TrimSuffix(line, "\n"), " | ")
		if len(f) != 4 {
			t.Fatalf("testdata/conformance.txt: %q has not four fields", line)
		}
		list = append(list, conformanceCheck{f[0], f[1], f[2], f[3]})
	}
	return list
}

func sectionOf(pattern string) string {
	first, _, _ := strings.Cut(strings.TrimPrefix(pattern, "/"), "/")
	switch first {
	case "containers", "commit", "exec":
		return "Containers and exec"
	case "images", "distribution", "auth", "build", "session", "grpc":
		return "Images and builds"
	case "networks", "volumes":
		return "Networks and volumes"
	case "swarm", "nodes", "services", "tasks", "secrets", "configs":
		return "Swarm mode"
	case "plugins":
		return "Plugins"
	}
	return "System"
}

const checksHead = `
## Conformance checks

A fleet has to behave as one engine does. These are checked with the clients that people use against three real engines by
` + "`make e2e`" + ` (every run). ` + "`make nightly`" + ` builds what Debian does not have (Engine 29, buildx, Compose 5, Testcontainers) and checks
with those too (nightly), and takes the time that the checks ask for. Pending is what another part of berth has to bring first.

| | check | when | pending |
|---|---|---|---|
`

const docHead = `# The Docker Engine API, route by route

<!-- Made from the table of routes: go test ./internal/api -run TestCompatibilityDoc -update -->

What ` + "`berth serve`" + ` does with each route of the Docker Engine API. The endpoint speaks 1.24 and newer; it advertises the newest
version that an engine of the fleet speaks and berth was verified with. Each request goes to its engine in a version that this engine speaks.

| treatment | meaning |
|---|---|
| local | answered by the manager alone |
| owner | handed to the node that has the object; bodies and streams go through as they are |
| schedule | handed to the node that is chosen for it |
| merge | one answer made of those of all nodes |
| all | done on every node that it concerns |
| any | handed to any healthy node; the next one if that cannot be reached |
| refuse | has no meaning for a fleet, and says so |

Wherever an object is named, its name, its ID, a unique beginning of its ID and ` + "`node/name`" + ` will do. An answer that misses nodes names
them in the header ` + "`X-Berth-Partial`" + `; one that came from a single node names that in ` + "`X-Berth-Node`" + `. An object on a node that does
not answer is 503 with the node's name. Any other path or method is 404 ` + "`page not found`" + `.

For programs, ` + "`docker info --format json`" + ` has the table of nodes as pairs in ` + "`SystemStatus`" + `, and ` + "`GET /info`" + ` itself has a list ` + "`Nodes`" + `
of objects, which the docker client does not know and leaves out.
`
