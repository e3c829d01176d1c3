package dockertest

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
)

// filters is the decoded filters parameter: for each key the values, any of which may match.
type filters map[string][]string

// filters reads the parameter in either form, {"k":["v"]} or {"k":{"v":true}}. A nil allowed accepts every key.
func (r *request) filters(allowed ...string) (filters, error) {
	raw := r.param("filters")
	if raw == "" {
		return filters{}, nil
	}
	f := filters{}
	var sets map[string]map[string]bool
	if err := json.Unmarshal([]byte(raw), &sets); err == nil {
		for k, set := range sets {
			f[k] = slices.Sorted(maps.Keys(set))
		}
	} else if lerr := json.Unmarshal([]byte(raw), &f); lerr != nil {
		if r.daemon.speaks("1.42") {
			return nil, fail(http.StatusBadRequest, "invalid filter")
		}
		return nil, fail(http.StatusInternalServerError, "%s", lerr)
	}
	for _, k := range slices.Sorted(maps.Keys(f)) {
		if len(allowed) > 0 && !slices.Contains(allowed, k) {
			return nil, r.invalidFilter(k)
		}
	}
	return f, nil
}

// invalidFilter is the engine's refusal of a key or of key=value.
func (r *request) invalidFilter(what string) error {
	word := "Invalid"
	if r.daemon.speaks("1.42") {
		word = "invalid"
	}
	return fail(http.StatusBadRequest, "%s filter '%s'", word, what)
}

// has says whether the key was given.
func (f filters) has(key string) bool { return len(f[key]) > 0 }

// any says whether the key is absent or one of its values satisfies ok.
func (f filters) any(key string, ok func(v string) bool) bool {
	return !f.has(key) || slices.ContainsFunc(f[key], ok)
}

// labels says whether all values of "label" (and none of "label!") are among the labels.
func (f filters) labels(have map[string]string) bool {
	for _, want := range f["label"] {
		if !hasLabel(have, want) {
			return false
		}
	}
	return !slices.ContainsFunc(f["label!"], func(v string) bool { return hasLabel(have, v) })
}

func hasLabel(have map[string]string, want string) bool {
	k, v, withValue := strings.Cut(want, "=")
	got, ok := have[k]
	return ok && (!withValue || got == v)
}

// boolean reads a filter such as dangling=true.
func (f filters) boolean(key string) (value, given bool, err error) {
	if !f.has(key) {
		return false, false, nil
	}
	switch v := f[key][0]; strings.ToLower(v) {
	case "1", "true":
		return true, true, nil
	case "0", "false":
		return false, true, nil
	default:
		return false, true, fail(http.StatusBadRequest, "%s", fmt.Sprintf("Invalid filter '%s=%s'", key, v))
	}
}
