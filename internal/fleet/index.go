package fleet

import (
	"cmp"
	"encoding/binary"
	"iter"
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
type index struct{ books []*book }

// book is pages, of which there is at least one. Its first entry stands here too: a search is a wait for memory for each place that it
// looks at.
type book struct {
	first entry
	pages []*page
}

func newBook(pages []*page) *book { return &book{pages[0].entries[0], pages} }

// page is a few entries, at least one. With its count it fills a block of the allocator's.
type page struct {
	count   int
	entries [pageEntries]entry
}

// What is copied for a change is a page of entries, a book of pages, and all books of an index: for a fleet of tens of thousands of
// containers 0.5 and 0.3 and 0.4 KiB.
const pageEntries, bookPages = 21, 48

func newPage(es ...[]entry) *page {
	p := new(page)
	for _, part := range es {
		p.count += copy(p.entries[p.count:], part)
	}
	return p
}

func (p *page) all() []entry { return p.entries[:p.count] }

// from calls yield for the entries with keys from first to last until it returns false, and for equal ones once.
func (x index) from(first, last uint64, yield func(entry) bool) {
	b := max(0, sort.Search(len(x.books), func(i int) bool { return x.books[i].first.key >= first })-1)
	var before entry
	for _, book := range x.books[min(b, len(x.books)):] {
		p := max(0, sort.Search(len(book.pages), func(i int) bool { return book.pages[i].entries[0].key >= first })-1)
		for _, page := range book.pages[p:] {
			es := page.all()
			for _, e := range es[sort.Search(len(es), func(i int) bool { return es[i].key >= first }):] {
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
	if len(x.books) == 0 {
		return index{appendBooks(nil, appendPages(nil, put))}
	}
	next := make([]*book, 0, len(x.books)+1)
	done := 0
	deal(len(x.books), func(i int) entry { return x.books[i].first }, drop, put, func(i int, drop, put []entry) int {
		pages, left := x.books[i].edit(drop, put)
		next = append(next, x.books[done:i]...) // those up to the next change are shared
		next = appendBooks(next, pages)
		done = i + 1
		return left
	})
	return index{append(next, x.books[done:]...)}
}

// edit is the pages of the book after changes like those of the index, which are sorted, and how many of the entries to drop, at the end, were
// not there.
func (b *book) edit(drop, put []entry) (pages []*page, left int) {
	next := make([]*page, 0, len(b.pages)+1)
	done := 0
	left = deal(len(b.pages), func(i int) entry { return b.pages[i].entries[0] }, drop, put, func(i int, drop, put []entry) int {
		var room [2 * pageEntries]entry
		merged, left := merge(room[:0], b.pages[i].all(), drop, put)
		next = append(next, b.pages[done:i]...)
		next = appendPages(next, merged)
		done = i + 1
		return left
	})
	return append(next, b.pages[done:]...), left
}

// deal gives the changes to those of n parts in order that they belong to. Entries that are equal may begin at the end of one part and go on
// in the next: so a part is given what is equal to the beginning of the next, too, and tells how many entries to drop, the last of those that it
// was given, were not there. In the end left were in no part.
func deal(n int, first func(part int) entry, drop, put []entry, to func(part int, drop, put []entry) (left int)) (left int) {
	for part := 0; part < n && (len(drop) > 0 || len(put) > 0); part++ {
		at := changes(drop, put)
		part += max(0, sort.Search(n-part, func(i int) bool { return compareEntries(first(part+i), at) >= 0 })-1)
		d, p := len(drop), len(put)
		if part+1 < n {
			bound := first(part + 1)
			d = sort.Search(d, func(i int) bool { return compareEntries(drop[i], bound) > 0 })
			p = sort.Search(p, func(i int) bool { return compareEntries(put[i], bound) > 0 })
		}
		left := to(part, drop[:d], put[:p])
		drop, put = drop[d-left:], put[p:]
	}
	return len(drop)
}

// changes is the first change.
func changes(drop, put []entry) entry {
	if len(drop) == 0 || len(put) > 0 && compareEntries(put[0], drop[0]) < 0 {
		return put[0]
	}
	return drop[0]
}

// merge appends the entries of a page after changes, and tells how many of those to drop were not there.
func merge(out, page, drop, put []entry) (merged []entry, left int) {
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
	return append(out, put...), len(drop)
}

// appendPages appends entries as one page or more, all of one size, or to the last page if both are few.
func appendPages(pages []*page, es []entry) []*page {
	if len(es) == 0 {
		return pages
	}
	if last := len(pages) - 1; last >= 0 && pages[last].count+len(es) <= pageEntries/2 {
		pages[last] = newPage(pages[last].all(), es)
		return pages
	}
	for cut := range parts(len(es), pageEntries) {
		pages, es = append(pages, newPage(es[:cut])), es[cut:]
	}
	return pages
}

// appendBooks is appendPages of pages in books.
func appendBooks(books []*book, pages []*page) []*book {
	if len(pages) == 0 {
		return books
	}
	if last := len(books) - 1; last >= 0 && len(books[last].pages)+len(pages) <= bookPages/2 {
		books[last] = newBook(slices.Concat(books[last].pages, pages))
		return books
	}
	for cut := range parts(len(pages), bookPages) {
		books, pages = append(books, newBook(pages[:cut:cut])), pages[cut:]
	}
	return books
}

// parts are the sizes of as few parts of n as have no more than limit each.
func parts(n, limit int) iter.Seq[int] {
	return func(yield func(int) bool) {
		for count := (n + limit - 1) / limit; count > 0; count-- {
			if !yield(n / count) {
				return
			}
			n -= n / count
		}
	}
}
