package fleet

import (
	"fmt"
	"math"
	"slices"
	"testing"
	"unique"

	"pgregory.net/rapid"
)

func (x index) pages() (all [][]entry) {
	for _, b := range x.books {
		for _, p := range b.pages {
			all = append(all, p.all())
		}
	}
	return all
}

// The index is a sorted list on pages: whatever is put and dropped, reading it gives what the list gives, older versions
// stay as they were, and its pages are neither empty, nor too large, nor many small ones in a row.
func TestIndexIsASortedListOnPages(t *testing.T) {
	nodes := []Text{unique.Make("a"), unique.Make("b"), unique.Make("c")}
	rapid.Check(t, func(t *rapid.T) {
		wide := rapid.SampledFrom([]uint64{3, 50, 5000}).Draw(t, "keys")
		draw := rapid.Custom(func(t *rapid.T) entry {
			return entry{rapid.Uint64Range(0, wide).Draw(t, "key"), rapid.Uint64Range(0, 2).Draw(t, "id"), rapid.SampledFrom(nodes).Draw(t, "node")}
		})
		var list []entry
		var x index
		for range rapid.IntRange(1, 6).Draw(t, "steps") {
			before, was := x, slices.Clone(list)
			var drop []entry
			list = slices.DeleteFunc(list, func(e entry) bool {
				gone := rapid.IntRange(0, 3).Draw(t, "gone") == 0
				if gone {
					drop = append(drop, e)
				}
				return gone
			})
			put := rapid.SliceOfN(draw, 0, 3*pageEntries*bookPages/8).Draw(t, "put")
			list = append(list, put...)
			slices.SortFunc(list, compareEntries)
			x = x.edit(drop, put)
			if got := slices.Concat(x.pages()...); !slices.Equal(got, list) {
				t.Fatalf("holds %v, want %v", got, list)
			}
			if got := slices.Concat(before.pages()...); !slices.Equal(got, was) {
				t.Fatalf("the version before became %v, want %v", got, was)
			}
			for _, page := range x.pages() {
				if len(page) == 0 || len(page) > pageEntries {
					t.Fatalf("a page of %d entries", len(page))
				}
			}
			for _, b := range x.books {
				if n := len(b.pages); n == 0 || n > bookPages {
					t.Fatalf("a book of %d pages", n)
				}
			}
			first := rapid.Uint64Range(0, wide+1).Draw(t, "first")
			last := rapid.Uint64Range(first, wide+2).Draw(t, "last")
			var got []entry
			x.from(first, last, func(e entry) bool { got = append(got, e); return true })
			want := slices.DeleteFunc(slices.Compact(slices.Clone(list)), func(e entry) bool { return e.key < first || e.key > last })
			if !slices.Equal(got, want) {
				t.Fatalf("from %d to %d are %v, want %v", first, last, got, want)
			}
		}
	})
}

// An index that a fleet grew into and shrank from, a container at a time, keeps few pages.
func TestIndexStaysDense(t *testing.T) {
	var x index
	node := unique.Make("n")
	at := func(i int) []entry { return []entry{{uint64(i) * 2654435761 % (1 << 32), 0, node}} }
	const many = 20_000
	for i := range many {
		x = x.edit(nil, at(i))
	}
	if n := len(x.pages()); n > 2*many/pageEntries+1 {
		t.Errorf("%d entries are on %d pages", many, n)
	}
	for i := range many - 100 {
		x = x.edit(at(i), nil)
	}
	if n := len(x.pages()); n > 20 {
		t.Errorf("100 entries are on %d pages", n)
	}
	for i := many - 100; i < many; i++ {
		x = x.edit(at(i), nil)
	}
	if len(x.pages()) != 0 {
		t.Errorf("no entry is on %d pages", len(x.pages()))
	}
}

func TestWithinCoversWhatBeginsSo(t *testing.T) {
	for prefix, want := range map[string]string{"": "0 ffffffffffffffff", "a": "6100000000000000 61ffffffffffffff", "abcdefghij": "6162636465666768 6162636465666768"} {
		first, last := within(prefix)
		if got := fmt.Sprintf("%x %x", first, last); got != want {
			t.Errorf("within(%q) = %s, want %s", prefix, got, want)
		}
	}
	if _, last := within(""); last != math.MaxUint64 {
		t.Error("not everything begins with nothing")
	}
}
