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

// index is entries in order, on pages in books, which versions share: a change makes the pages anew on which something changed, their
// books, and the list of books. It costs three words for an entry, where a tree had nodes and keys besides. Equal entries are kept as
// often as they were added. The zero value is empty.
type index struct{ books []book }

// book is pages, none of them empty.
type book [][]entry

// What is copied for a change is a page of entries, a book of pages, and all books of an index, so these are about as long as each other for
// a fleet of tens of thousands of containers.
const pageEntries, bookPages = 32, 32

// from calls yield for the entries with keys from first to last until it returns false, and for equal ones once.
func (x index) from(first, last uint64, yield func(entry) bool) {
	b := max(0, sort.Search(len(x.books), func(i int) bool { return x.books[i][0][0].key >= first })-1)
	var before entry
	for _, pages := range x.books[min(b, len(x.books)):] {
		p := max(0, sort.Search(len(pages), func(i int) bool { return pages[i][0].key >= first })-1)
		for _, page := range pages[p:] {
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
}

// edit returns the index without the entries to drop, which are there, and with those to put. It sorts both.
func (x index) edit(drop, put []entry) index {
	if len(drop) == 0 && len(put) == 0 {
		return x
	}
	slices.SortFunc(drop, compareEntries)
	slices.SortFunc(put, compareEntries)
	books := x.books
	if len(books) == 0 {
		books = []book{{nil}}
	}
	next := make([]book, 0, len(books)+1)
	done := 0
	deal(len(books), func(i int) entry { return books[i][0][0] }, drop, put, func(i int, drop, put []entry) {
		next = append(next, books[done:i]...) // those up to the next change are shared
		next = appendParts(next, books[i].edit(drop, put), bookPages)
		done = i + 1
	})
	return index{append(next, books[done:]...)}
}

// edit is that of the index, whose changes are sorted.
func (b book) edit(drop, put []entry) book {
	next := make(book, 0, len(b)+1)
	done := 0
	deal(len(b), func(i int) entry { return b[i][0] }, drop, put, func(i int, drop, put []entry) {
		next = append(next, b[done:i]...)
		next = appendParts(next, merge(b[i], drop, put), pageEntries)
		done = i + 1
	})
	return append(next, b[done:]...)
}

// deal gives the changes to those of n parts in order that they belong to.
func deal(n int, first func(part int) entry, drop, put []entry, to func(part int, drop, put []entry)) {
	for part := 0; len(drop) > 0 || len(put) > 0; part++ {
		at, before := changes(drop, put), part+1
		part += sort.Search(n-before, func(i int) bool { return compareEntries(first(before+i), at) > 0 })
		d, p := len(drop), len(put)
		if part+1 < n {
			bound := first(part + 1)
			d, _ = slices.BinarySearchFunc(drop, bound, compareEntries)
			p, _ = slices.BinarySearchFunc(put, bound, compareEntries)
		}
		to(part, drop[:d], put[:p])
		drop, put = drop[d:], put[p:]
	}
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

// appendParts appends a page's entries, or a book's pages, as one part or more, all of one size, or to the last part if both are small.
func appendParts[P ~[]E, E any](parts []P, es P, limit int) []P {
	if len(es) == 0 {
		return parts
	}
	if last := len(parts) - 1; last >= 0 && len(parts[last])+len(es) <= limit/2 {
		parts[last] = slices.Concat(parts[last], es)
		return parts
	}
	for n := (len(es) + limit - 1) / limit; n > 1; n-- {
		cut := len(es) / n
		parts, es = append(parts, slices.Clone(es[:cut])), es[cut:]
	}
	return append(parts, slices.Clip(es))
}
