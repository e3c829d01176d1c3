package fleet

import (
	"cmp"
	"encoding/binary"
	"slices"
	"sort"
	"strings"
)

// entry says that a node has a container with a key. It names both and holds neither: nodes and containers are replaced far
// more often than they come and go, and an index that names them stays as it is. What it says is to be checked there, since
// a key is a number made of a text.
type entry struct {
	key  uint64
	id   uint64 // beginning of the container's ID
	node Text   // the node's ID
}

func compareEntries(a, b entry) int {
	if a.key != b.key {
		return cmp.Compare(a.key, b.key)
	}
	if a.id != b.id {
		return cmp.Compare(a.id, b.id)
	}
	if a.node == b.node {
		return 0
	}
	return strings.Compare(a.node.Value(), b.node.Value())
}

// beginning is the first bytes of a text as a number of the same order. Texts that begin alike are told apart elsewhere.
func beginning(s string) uint64 {
	var b [8]byte
	copy(b[:], s)
	return binary.BigEndian.Uint64(b[:])
}

// within are the numbers that texts with a prefix begin with.
func within(prefix string) (first, last uint64) {
	first = beginning(prefix)
	if n := len(prefix); n < 8 {
		return first, first | (1<<(64-8*n) - 1)
	}
	return first, first
}

// index is entries in order, on pages that versions share: a change makes the pages anew on which something changed, and the
// list of pages. It costs three words for an entry, where a tree had nodes and keys besides. Equal entries are kept as
// often as they were added. The zero value is empty.
type index struct{ pages [][]entry }

// pageEntries is how many entries a page holds at most: more are copied for nothing, and fewer make the list of pages long.
const pageEntries = 128

// from calls yield for the entries with keys from first to last until it returns false, and for equal ones once.
func (x index) from(first, last uint64, yield func(entry) bool) {
	p := max(0, sort.Search(len(x.pages), func(i int) bool { return x.pages[i][0].key >= first })-1)
	var before entry
	for ; p < len(x.pages); p++ {
		page := x.pages[p]
		for i := sort.Search(len(page), func(i int) bool { return page[i].key >= first }); i < len(page); i++ {
			e := page[i]
			if e.key > last {
				return
			}
			if e != before && !yield(e) {
				return
			}
			before = e
		}
	}
}

// edit returns the index without the entries to drop, which are there, and with those to put. It sorts both.
func (x index) edit(drop, put []entry) index {
	if len(drop) == 0 && len(put) == 0 {
		return x
	}
	slices.SortFunc(drop, compareEntries)
	slices.SortFunc(put, compareEntries)
	pages := x.pages
	if len(pages) == 0 {
		pages = [][]entry{nil}
	}
	next := make([][]entry, 0, len(pages)+len(put)/pageEntries+1)
	for len(drop) > 0 || len(put) > 0 {
		// Pages up to that of the next change are shared.
		at := changes(drop, put)
		p := max(0, sort.Search(len(pages), func(i int) bool { return len(pages[i]) > 0 && compareEntries(pages[i][0], at) > 0 })-1)
		next = append(next, pages[:p]...)
		end := func(es []entry) int { return len(es) }
		if p+1 < len(pages) {
			bound := pages[p+1][0]
			end = func(es []entry) int {
				n, _ := slices.BinarySearchFunc(es, bound, compareEntries)
				return n
			}
		}
		d, n := end(drop), end(put)
		next = appendPages(next, merge(pages[p], drop[:d], put[:n]))
		drop, put, pages = drop[d:], put[n:], pages[p+1:]
	}
	return index{append(next, pages...)}
}

// changes is the first change.
func changes(drop, put []entry) entry {
	if len(drop) == 0 || len(put) > 0 && compareEntries(put[0], drop[0]) < 0 {
		return put[0]
	}
	return drop[0]
}

func merge(page, drop, put []entry) []entry {
	out := make([]entry, 0, len(page)+len(put))
	for _, e := range page {
		for len(put) > 0 && compareEntries(put[0], e) < 0 {
			out, put = append(out, put[0]), put[1:]
		}
		if len(drop) > 0 && drop[0] == e {
			drop = drop[1:]
			continue
		}
		out = append(out, e)
	}
	return append(out, put...)
}

// appendPages appends entries as one page or more, all of one size, or to the last page if both are small.
func appendPages(pages [][]entry, es []entry) [][]entry {
	if len(es) == 0 {
		return pages
	}
	if last := len(pages) - 1; last >= 0 && len(pages[last])+len(es) <= pageEntries/2 {
		pages[last] = slices.Concat(pages[last], es)
		return pages
	}
	for n := (len(es) + pageEntries - 1) / pageEntries; n > 1; n-- {
		cut := len(es) / n
		pages, es = append(pages, slices.Clone(es[:cut])), es[cut:]
	}
	return append(pages, slices.Clip(es))
}
