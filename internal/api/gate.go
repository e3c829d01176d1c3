package api

import (
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"sync"

	"berth/internal/fleet"
)

// minAPI is the oldest API version that clients may speak.
const minAPI = "1.24"

var versioned = regexp.MustCompile(`^/v([0-9][0-9.]*)(/.*)?$`)

// gate knows the one API version that the endpoint advertises: the newest engine's, but no newer than what we have verified.
// It never goes down while the manager lives, because clients keep what they negotiated.
type gate struct {
	max string

	mu   sync.Mutex
	high string
	seen string // the newest of the fleet that high takes into account
}

// advertised is the newest version that clients may speak.
func (g *gate) advertised(s *fleet.Snapshot) string {
	newest := s.Versions().API
	g.mu.Lock()
	defer g.mu.Unlock()
	if newest != g.seen {
		g.seen = newest
		if newest != "" && fleet.CompareVersions(newest, g.max) > 0 {
			newest = g.max
		}
		if newest != "" && (g.high == "" || fleet.CompareVersions(newest, g.high) > 0) {
			g.high = newest
		}
	}
	if g.high == "" {
		return g.max
	}
	return g.high
}

// pass takes the version off a path and checks it. A path without one speaks the newest. What is newer than all engines but
// verified is let through, since each request is moved into its engine's range anyway: a client may have negotiated it
// before any engine was reached, or with a manager that had a newer engine, and keeps it for its lifetime.
func (g *gate) pass(path string, s *fleet.Snapshot) (version, rest string, err error) {
	newest := g.advertised(s)
	if !strings.HasPrefix(path, "/v") { // spares the expression, which nearly all paths without a version do not match
		return newest, path, nil
	}
	m := cutVersion(path)
	if m == nil {
		return newest, path, nil
	}
	switch {
	case fleet.CompareVersions(m[1], newest) > 0 && fleet.CompareVersions(m[1], g.max) > 0:
		return "", "", invalid(fmt.Sprintf("client version %s is too new. Maximum supported API version is %s", m[1], newest))
	case fleet.CompareVersions(m[1], minAPI) < 0:
		return "", "", &statusError{
			status: http.StatusBadRequest, plain: true,
			message: fmt.Sprintf("client version %s is too old. Minimum supported API version is %s, please upgrade your client to a newer version", m[1], minAPI),
		}
	}
	if m[2] == "" {
		return m[1], "/", nil
	}
	return m[1], m[2], nil
}

// cutVersion matches versioned, and finds in most paths what it would without its cost.
func cutVersion(path string) []string {
	rest := path[len("/v"):]
	i := strings.IndexByte(rest, '/')
	if i > 0 && strings.IndexByte(rest, '\n') < 0 && strings.Trim(rest[:i], "0123456789") == "." && rest[0] != '.' {
		return []string{path, rest[:i], rest[i:]}
	}
	return versioned.FindStringSubmatch(path)
}

// lowestVersion is the lowest engine version of the fleet, the one that we claim to be: tools read features from it.
func lowestVersion(s *fleet.Snapshot) string {
	if lowest := s.Versions().Lowest; lowest != "" {
		return lowest
	}
	return "20.10.0"
}
