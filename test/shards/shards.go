// Package shards divides the tests of a slow package among several processes of its test binary, and joins what they print.
//
// Which test belongs where depends on the times on record alone, so it is the same on every computer. What -run selects and what is
// passed or failed remains for Go's testing to say: a shard is the same command, told to skip what the others do.
package shards

import (
	"cmp"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Part is what goes to one shard whole: a test, or one of the subtests of a test that is divided.
type Part struct {
	Test, Sub string // as -run takes them
	Seconds   float64
	Shares    string // what is costly to make: all parts that share it go to one shard
}

// Shard is a slice of the tests.
type Shard struct {
	subs    map[string][]string // by test
	Seconds float64
}

// Divide makes at most limit shards, and no more than have worthwhile seconds to do. It gives each part, with those it shares something
// with, to the shard that has least to do yet, the longest first.
func Divide(parts []Part, limit int, worthwhile float64) []Shard {
	total := 0.0
	for _, p := range parts {
		total += p.Seconds
	}
	shards := make([]Shard, max(1, min(limit, int(total/worthwhile))))
	for i := range shards {
		shards[i].subs = map[string][]string{}
	}
	for _, u := range units(parts) {
		s := &shards[idlest(shards)]
		for _, p := range u.parts {
			s.subs[p.Test] = append(s.subs[p.Test], p.Sub)
		}
		s.Seconds += u.seconds
	}
	return shards
}

// unit is parts that go together.
type unit struct {
	parts   []Part
	seconds float64
}

// units are the parts put together, the longest first.
func units(parts []Part) []*unit {
	var all []*unit
	shared := map[string]*unit{}
	for _, p := range parts {
		u := shared[p.Shares]
		if u == nil || p.Shares == "" {
			u = &unit{}
			all = append(all, u)
			shared[p.Shares] = u
		}
		u.parts = append(u.parts, p)
		u.seconds += p.Seconds
	}
	slices.SortStableFunc(all, func(a, b *unit) int { return cmp.Compare(b.seconds, a.seconds) })
	return all
}

func idlest(shards []Shard) (least int) {
	for i, s := range shards {
		if s.Seconds < shards[least].Seconds {
			least = i
		}
	}
	return least
}

// Skip is the pattern for -skip of one of the shards: all that the others do.
func Skip(shards []Shard, own int) string {
	var tests []string
	subs := map[string][]string{}
	for i, s := range shards {
		if i == own {
			continue
		}
		for test, of := range s.subs {
			if shards[own].subs[test] == nil {
				tests = append(tests, test)
			} else {
				subs[test] = append(subs[test], of...)
			}
		}
	}
	var skip []string
	if len(tests) > 0 {
		skip = append(skip, anyOf(tests))
	}
	for _, test := range slices.Sorted(maps.Keys(subs)) {
		skip = append(skip, anyOf([]string{test})+"/"+anyOf(subs[test]))
	}
	return strings.Join(skip, "|")
}

func anyOf(names []string) string {
	slices.Sort(names)
	quoted := make([]string, 0, len(names))
	for _, n := range slices.Compact(names) {
		quoted = append(quoted, regexp.QuoteMeta(n))
	}
	return "^(" + strings.Join(quoted, "|") + ")$"
}

// Times reads a record: a line for each test, with its name as -run takes it and its seconds.
func Times(record string) (map[string]float64, error) {
	times := map[string]float64{}
	for line := range strings.Lines(record) {
		name, seconds, ok := strings.Cut(strings.TrimSpace(line), " ")
		n, err := strconv.ParseFloat(seconds, 64)
		if !ok || err != nil {
			return nil, fmt.Errorf("%q is no test with its seconds", line)
		}
		times[name] = n
	}
	return times, nil
}
