package api

import (
	"encoding/json"
	"net/url"
	"slices"
	"strings"
)

// filters are the `filters` parameter: values by name.
type filters map[string][]string

// parseFilters is anyFilters, but names that are not in known are refused as engines do.
func parseFilters(q url.Values, known ...string) (filters, error) {
	f, err := anyFilters(q)
	if err != nil {
		return nil, err
	}
	for k := range f {
		if !slices.Contains(known, k) {
			return nil, invalidf("invalid filter '%s'", k)
		}
	}
	return f, nil
}

// anyFilters reads both forms that clients send: {"k":["v"]} and {"k":{"v":true}}.
func anyFilters(q url.Values) (filters, error) {
	raw := q.Get("filters")
	if raw == "" {
		return filters{}, nil
	}
	var fields map[string]json.RawMessage
	if err := json.Unmarshal([]byte(raw), &fields); err != nil {
		return nil, invalidf("invalid filters: %v", err)
	}
	f := filters{}
	for k, v := range fields {
		values, err := filterValues(v)
		if err != nil {
			return nil, invalidf("invalid filter '%s': %v", k, err)
		}
		f[k] = values
	}
	return f, nil
}

func filterValues(raw json.RawMessage) ([]string, error) {
	var list []string
	if err := json.Unmarshal(raw, &list); err == nil {
		return list, nil
	}
	var set map[string]bool
	if err := json.Unmarshal(raw, &set); err != nil {
		return nil, err
	}
	for v, on := range set {
		if on {
			list = append(list, v)
		}
	}
	slices.Sort(list)
	return list, nil
}

// has tells whether a filter was given.
func (f filters) has(name string) bool { return len(f[name]) > 0 }

// any tells whether a filter is absent or one of its values passes test.
func (f filters) any(name string, test func(value string) bool) bool {
	return !f.has(name) || slices.ContainsFunc(f[name], test)
}

// equal is any with equality.
func (f filters) equal(name, value string) bool {
	return f.any(name, func(v string) bool { return v == value })
}

// labels tells whether all of a filter's values hold, each a key or key=value, as engines read `label`.
func (f filters) labels(name string, get func(key string) (string, bool)) bool {
	for _, want := range f[name] {
		k, v, hasValue := strings.Cut(want, "=")
		got, ok := get(k)
		if !ok || hasValue && got != v {
			return false
		}
	}
	return true
}

// boolean reads the value of a filter that is true or false; given says whether there is one.
func (f filters) boolean(name string) (value, given bool, err error) {
	values, given := f[name]
	if !given {
		return false, false, nil
	}
	no := slices.Contains(values, "0") || slices.Contains(values, "false")
	yes := slices.Contains(values, "1") || slices.Contains(values, "true")
	if no == yes {
		return false, true, invalidf("invalid filter '%s=%v'", name, values)
	}
	return yes, true, nil
}

// encode gives the parameter back for a node, without some names.
func (f filters) encode(without ...string) string {
	kept := map[string][]string{}
	for k, v := range f {
		if !slices.Contains(without, k) {
			kept[k] = v
		}
	}
	if len(kept) == 0 {
		return ""
	}
	b, err := json.Marshal(kept)
	if err != nil {
		panic(err) // a map of strings always encodes
	}
	return string(b)
}

// flag reads a boolean query parameter as engines do: absent, "", 0, no, false and none are false.
func flag(q url.Values, name string) bool {
	switch strings.ToLower(strings.TrimSpace(q.Get(name))) {
	case "", "0", "no", "false", "none":
		return false
	}
	return true
}
