package discovery

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

const (
	// maxAddrs bounds what a slip like [1:1000000000] can do.
	maxAddrs = 100_000
	maxEntry = 1024
)

var rangePattern = regexp.MustCompile(`\[([0-9]+):([0-9]+)\]`)

// numbered is one range in an entry: the text before it and the numbers that follow.
type numbered struct {
	before   string
	low, num uint64
	width    int // digits to pad to with zeros
}

// expand writes out the ranges [low:high] of an entry, the rightmost turning fastest. A range that is written with
// leading zeros keeps its width: [08:10] is 08, 09, 10. Anything else in brackets stays, such as an IPv6 address.
func expand(entry string, limit int) ([]string, error) {
	if len(entry) > maxEntry {
		return nil, fmt.Errorf("entry %q: longer than %d characters", shorten(entry), maxEntry)
	}
	ranges, tail, err := findRanges(entry, limit)
	if err != nil {
		return nil, fmt.Errorf("entry %q: %w", shorten(withoutPassword(entry)), err)
	}
	heads := []string{""}
	for _, r := range ranges {
		next := make([]string, 0, len(heads)*int(r.num))
		for _, h := range heads {
			for i := range r.num {
				next = append(next, h+r.before+fmt.Sprintf("%0*d", r.width, r.low+i))
			}
		}
		heads = next
	}
	for i := range heads {
		heads[i] += tail
	}
	return heads, nil
}

// findRanges cuts an entry into its ranges and what follows the last one. It refuses more than limit results before any
// of them is made.
func findRanges(entry string, limit int) (ranges []numbered, tail string, err error) {
	end, total := 0, uint64(1)
	for _, m := range rangePattern.FindAllStringSubmatchIndex(entry, -1) {
		r, err := newNumbered(entry[m[2]:m[3]], entry[m[4]:m[5]])
		if err != nil {
			return nil, "", err
		}
		if r.num > maxAddrs { // so that the product below cannot overflow
			return nil, "", errTooMany()
		}
		total *= r.num
		if total > maxAddrs {
			return nil, "", errTooMany()
		}
		r.before, end = entry[end:m[0]], m[1]
		ranges = append(ranges, r)
	}
	if limit < 0 || total > uint64(limit) {
		return nil, "", errTooMany()
	}
	return ranges, entry[end:], nil
}

func newNumbered(low, high string) (numbered, error) {
	lo, errLo := strconv.ParseUint(low, 10, 63)
	hi, errHi := strconv.ParseUint(high, 10, 63)
	if errLo != nil || errHi != nil {
		return numbered{}, fmt.Errorf("range [%s:%s]: the number is too large", shorten(low), shorten(high))
	}
	if lo > hi {
		return numbered{}, fmt.Errorf("range [%s:%s]: it counts downwards", low, high)
	}
	r := numbered{low: lo, num: hi - lo + 1}
	if padded(low) || padded(high) {
		r.width = max(len(low), len(high))
	}
	return r, nil
}

func padded(number string) bool { return len(number) > 1 && strings.HasPrefix(number, "0") }

func errTooMany() error { return fmt.Errorf("more than %d addresses in all", maxAddrs) }
