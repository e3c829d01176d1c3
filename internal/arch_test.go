// Package internal_test holds the architecture: which package may import which, and that each one says what it is for.
package internal_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// arrows lists, for every package below internal, the packages of ours it may import. A package that is not listed fails
// the test: a new room is a decision, made here and in ARCHITECTURE.md together.
var arrows = map[string][]string{
	"atomicfile":    {},
	"cert":          {},
	"discovery":     {},
	"election":      {},
	"dockercontext": {},
	"dockertest":    {},
	"files":         {},
	"fleet":         {},
	"hostlock":      {},
	"hostkvm":       {},
	"ingress":       {"fleet"},
	"intents":       {"atomicfile", "fleet"},
	"membership":    {},
	"names":         {"fleet"},
	"enginecall":    {"fleet"},
	"move":          {"enginecall", "fleet", "schedule", "rawjson"},
	"overlay":       {"enginecall", "fleet", "rawjson"},
	"rescue":        {"atomicfile", "enginecall", "fleet", "move", "schedule"},
	"proxy":         {},
	"provision":     {},
	"ssh":           {},
	"term":          {},
	"vmimage":       {"atomicfile"},
	"vmseed":        {},
	"vmlogin":       {},
	"machine":       {"atomicfile", "cert"},

	"discovery/etcd":          {"discovery", "election", "intents"},
	"discovery/zk":            {"discovery", "election", "intents"},
	"discovery/consul":        {"discovery", "election", "intents"},
	"discovery/gossip":        {"discovery"},
	"discovery/discoverytest": {"discovery"},
	"election/electiontest":   {"election"},
	"intents/intentstest":     {"fleet", "intents"},

	"driver/local":      {"machine", "cert"},
	"driver/none":       {"machine"},
	"driver/generic":    {"machine"},
	"driver/plugin":     {"machine"},
	"driver/qemu":       {"hostkvm", "machine", "vmimage", "vmlogin", "vmseed"},
	"driver/virtualbox": {"hostlock", "machine", "vmimage", "vmlogin", "vmseed"},
	"driver/libvirt":    {"hostkvm", "hostlock", "machine", "vmimage", "vmlogin", "vmseed"},
	"driver/drivertest": {"machine"},

	"driver/virtualbox/vboxsim":  {},
	"driver/libvirt/libvirttest": {},

	"rawjson":  {},
	"relay":    {"fleet"},
	"replica":  {"proxy"},
	"schedule": {"fleet"},
	"tracing":  {},
	"metrics":  {"engine", "fleet", "schedule"},
	"engine":   {"fleet", "proxy", "rawjson", "tracing"},
	"cluster":  {"engine", "schedule", "fleet", "proxy", "rawjson", "tracing"},
	"api":      {"fleet", "schedule", "proxy", "rawjson"},
}

// testArrows are additional arrows allowed in _test.go files.
var testArrows = map[string][]string{
	"discovery":        {"membership"},
	"discovery/etcd":   {"cert", "discovery/discoverytest", "election/electiontest", "intents/intentstest"},
	"discovery/zk":     {"discovery/discoverytest", "election/electiontest", "intents/intentstest"},
	"discovery/consul": {"discovery/discoverytest", "election/electiontest", "intents/intentstest"},
	"discovery/gossip": {"discovery/discoverytest"},
	"engine":           {"dockertest"},
	"intents":          {"intents/intentstest"},
	"cluster":          {"dockertest", "intents"},
	"api":              {"dockertest", "cluster", "engine", "intents", "proxy", "tracing"},
	"overlay":          {"cluster", "dockertest", "engine", "proxy", "schedule"},
	"move":             {"api", "cluster", "dockertest", "engine", "intents", "proxy"},
	"rescue":           {"api", "cluster", "dockertest", "engine", "intents", "proxy"},
	"driver/local":     {"driver/drivertest"},
	"driver/none":      {"driver/drivertest"},
	"driver/generic":   {"driver/drivertest", "ssh"},
	"driver/plugin":    {"driver/drivertest"},
	"driver/qemu":      {"driver/drivertest"},

	"driver/virtualbox": {"driver/drivertest", "driver/virtualbox/vboxsim"},
	"driver/libvirt":    {"driver/drivertest", "driver/libvirt/libvirttest"},
}

// forbidden names say nothing about what is inside.
var forbidden = []string{"util", "utils", "common", "helpers", "types", "misc", "lib", "pkg", "base", "shared"}

func TestArrows(t *testing.T) {
	for dir, files := range packages(t) {
		allowed, known := arrows[dir]
		if !known {
			t.Errorf("internal/%s is not in arrows: add it there and to ARCHITECTURE.md", dir)
			continue
		}
		for _, f := range files {
			for _, imp := range f.ast.Imports {
				path, err := strconv.Unquote(imp.Path.Value)
				if err != nil {
					t.Fatal(err)
				}
				target, ours := strings.CutPrefix(path, "berth/internal/")
				if !ours || target == dir {
					continue
				}
				ok := slices.Contains(allowed, target)
				if f.test {
					ok = ok || slices.Contains(testArrows[dir], target)
				}
				if !ok {
					t.Errorf("%s imports %s: not an arrow of internal/%s", f.path, path, dir)
				}
			}
		}
	}
}

func TestEveryPackageSaysWhatItIsFor(t *testing.T) {
	for dir, files := range packages(t) {
		said := false
		for _, f := range files {
			said = said || (!f.test && f.ast.Doc != nil && strings.HasPrefix(f.ast.Doc.Text(), "Package "))
		}
		if !said {
			t.Errorf("internal/%s has no package comment", dir)
		}
	}
}

func TestNames(t *testing.T) {
	for dir := range packages(t) {
		for _, part := range strings.Split(dir, "/") {
			if slices.Contains(forbidden, part) {
				t.Errorf("internal/%s: %q names no idea", dir, part)
			}
		}
	}
}

type file struct {
	path string
	test bool
	ast  *ast.File
}

// packages parses the heads of all Go files below internal, by folder.
func packages(t *testing.T) map[string][]file {
	t.Helper()
	found := map[string][]file{}
	err := filepath.WalkDir(".", func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || filepath.Dir(path) == "." {
			return err
		}
		f, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly|parser.ParseComments)
		if err != nil {
			return err
		}
		dir := filepath.ToSlash(filepath.Dir(path))
		found[dir] = append(found[dir], file{path, strings.HasSuffix(path, "_test.go"), f})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(found) == 0 {
		t.Fatal("no packages found")
	}
	return found
}
