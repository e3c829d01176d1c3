package api

import (
	"net/http"
	"strings"
)

// class is how a route is treated. docs/compatibility.md is generated from it.
type class string

const (
	local   class = "local"    // answered by the manager
	owner   class = "owner"    // goes to the node that has the object
	placed  class = "schedule" // goes to the node that the scheduler chooses
	merged  class = "merge"    // all nodes, one answer
	all     class = "all"      // done on every node concerned
	anyNode class = "any"      // any healthy node, the next on a dial error
	refused class = "refuse"   // has no meaning here; says so
)

type handler func(s *Server, w http.ResponseWriter, r *request) error

// route is one line of the table.
type route struct {
	method  string
	pattern string // {name} spans slashes: image names and node/name have them
	class   class
	handle  handler
	note    string // for docs/compatibility.md: what the fleet adds or changes
}

// router finds routes. net/http's ServeMux cannot have a wildcard that spans slashes in the middle, and it redirects paths
// that it finds unclean.
type router struct {
	byHead map[head][]compiled
}

type compiled struct {
	route *route
	parts []string // literal, variable, literal, variable, …, literal
}

func newRouter(table []route) router {
	r := router{map[head][]compiled{}}
	for i := range table {
		c := compiled{route: &table[i], parts: split(table[i].pattern)}
		head := headOf(table[i].method, table[i].pattern)
		r.byHead[head] = append(r.byHead[head], c)
	}
	return r
}

// split cuts "/a/{x}/b" into "/a/", "x", "/b".
func split(pattern string) []string {
	var parts []string
	for {
		before, rest, found := strings.Cut(pattern, "{")
		parts = append(parts, before)
		if !found {
			return parts
		}
		name, after, _ := strings.Cut(rest, "}")
		parts = append(parts, name)
		pattern = after
	}
}

// head is by what the table is looked up.
type head struct{ method, first string }

func headOf(method, path string) head {
	first, _, _ := strings.Cut(strings.TrimPrefix(path, "/"), "/")
	return head{method, first}
}

// match returns the first route of the table that fits; the table has fixed words before wildcards.
func (r *router) match(method, path string) (*route, map[string]string) {
	if trimmed := strings.Trim(path, "/"); len(path) > 1 && (path[0] != '/' || len(path) != len(trimmed)+1) {
		path = "/" + trimmed
	}
	for _, c := range r.byHead[headOf(method, path)] {
		if vars, ok := c.match(path); ok {
			return c.route, vars
		}
	}
	return nil, nil
}

// maxVars is how many variables a pattern may have.
const maxVars = 2

func (c *compiled) match(path string) (map[string]string, bool) {
	if len(c.parts) == 1 {
		return nil, path == c.parts[0]
	}
	rest, ok := strings.CutPrefix(path, c.parts[0])
	if !ok {
		return nil, false
	}
	var values [maxVars]string
	for i := 1; i < len(c.parts); i += 2 {
		literal := c.parts[i+1]
		var value string
		if i+2 == len(c.parts) {
			value, ok = strings.CutSuffix(rest, literal)
		} else {
			// More follows: the variable ends at the last place where the literal stands.
			at := strings.LastIndex(rest, literal)
			if ok = at >= 0; ok {
				value, rest = rest[:at], rest[at+len(literal):]
			}
		}
		if !ok || value == "" {
			return nil, false
		}
		values[i/2] = value
	}
	vars := make(map[string]string, 1) // now that it is known that the route fits
	for i := 1; i < len(c.parts); i += 2 {
		vars[c.parts[i]] = values[i/2]
	}
	return vars, true
}
