package vmimage

import (
	"context"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// notes is a Reporter that remembers.
type notes struct {
	mu    sync.Mutex
	lines []string
	done  int64
	on    func(done int64)
}

func (n *notes) Line(text string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.lines = append(n.lines, text)
}

func (n *notes) Bar(_ string, done, _ int64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.done = done
	if n.on != nil {
		n.on(done)
	}
}

func (n *notes) said(part string) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return strings.Contains(strings.Join(n.lines, "\n"), part)
}

// publisher serves one image and its checksums, and has trouble on demand.
type publisher struct {
	*httptest.Server
	mu      sync.Mutex
	image   []byte
	sums    string
	etag    string
	cut     int64    // answers break off after so many bytes; 0 for never
	cuts    int      // how many answers do
	ranges  []string // that were asked for
	noRange bool
	status  int
}

const imageName = "debian-13-genericcloud-amd64.qcow2"

func publish(t *testing.T, size int) *publisher {
	t.Helper()
	p := &publisher{image: make([]byte, size), etag: `"one"`}
	for i := range p.image {
		p.image[i] = byte(i * 7 >> 3)
	}
	sum := sha512.Sum512(p.image)
	p.sums = strings.Repeat("0", 128) + "  another.qcow2\n" + hex.EncodeToString(sum[:]) + "  " + imageName + "\n"
	p.Server = httptest.NewServer(http.HandlerFunc(p.serve))
	t.Cleanup(p.Close)
	return p
}

func (p *publisher) serve(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case strings.HasSuffix(r.URL.Path, "SUMS"):
		fmt.Fprint(w, p.sums) //nolint:errcheck // a test
		return
	case p.status != 0:
		w.WriteHeader(p.status)
		return
	}
	body := p.image
	w.Header().Set("ETag", p.etag)
	if asked := r.Header.Get("Range"); asked != "" && !p.noRange {
		p.ranges = append(p.ranges, asked)
		if match := r.Header.Get("If-Range"); match == "" || match == p.etag {
			from, err := strconv.Atoi(strings.TrimSuffix(strings.TrimPrefix(asked, "bytes="), "-"))
			if err != nil || from >= len(p.image) {
				w.Header().Set("Content-Range", fmt.Sprintf("bytes */%d", len(p.image)))
				w.WriteHeader(http.StatusRequestedRangeNotSatisfiable)
				return
			}
			body = p.image[from:]
			w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, len(p.image)-1, len(p.image)))
			w.Header().Set("Content-Length", strconv.Itoa(len(body)))
			w.WriteHeader(http.StatusPartialContent)
		}
	}
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	if p.cut > 0 && p.cuts > 0 && int64(len(body)) > p.cut {
		p.cuts--
		_, _ = w.Write(body[:p.cut])
		panic(http.ErrAbortHandler)
	}
	_, _ = w.Write(body)
}

func (p *publisher) source() Source {
	return Source{Name: "debian-13", URL: p.URL + "/" + imageName, Sums: p.URL + "/SHA512SUMS"}
}

func newCache(t *testing.T) *Cache {
	t.Helper()
	return &Cache{Dir: filepath.Join(t.TempDir(), "images"), pace: time.Millisecond}
}

func place(t *testing.T, c *Cache, s Source) (string, *notes, error) {
	t.Helper()
	n := &notes{}
	to := filepath.Join(t.TempDir(), "image.img")
	_, err := c.Place(t.Context(), s, to, n)
	return to, n, err
}

func wantImage(t *testing.T, path string, want []byte) {
	t.Helper()
	got, err := os.ReadFile(path)
	if err != nil || string(got) != string(want) {
		t.Fatalf("the image has %d bytes (%v), want the publisher's %d", len(got), err, len(want))
	}
}

func TestAnImageIsDownloadedOnceAndShared(t *testing.T) {
	p, c := publish(t, 3<<20), newCache(t)
	first, n, err := place(t, c, p.source())
	if err != nil {
		t.Fatal(err)
	}
	wantImage(t, first, p.image)
	if n.done != int64(len(p.image)) {
		t.Errorf("the bar ended at %d of %d", n.done, len(p.image))
	}
	p.Close() // from here on the cache has to do
	second, _, err := place(t, c, p.source())
	if err != nil {
		t.Fatal(err)
	}
	one, err := os.Stat(first)
	two, failed := os.Stat(second)
	if err := errors.Join(err, failed); err != nil || !os.SameFile(one, two) {
		t.Errorf("two machines have two files: %v", err)
	}
	list, err := c.List()
	if err != nil || len(list) != 1 || list[0].Name != "debian-13" || !list[0].Checked || list[0].Users != 2 || list[0].Size != int64(len(p.image)) {
		t.Errorf("list = %+v, %v", list, err)
	}
	if err := c.Remove("debian-13"); err != nil {
		t.Fatal(err)
	}
	wantImage(t, first, p.image) // a machine keeps what it has
	if left, err := filepath.Glob(filepath.Join(c.Dir, "*"+imageEnd)); err != nil || len(left) != 0 {
		t.Errorf("left in the cache: %v, %v", left, err)
	}
	var none *NotFoundError
	if err := c.Remove("debian-13"); !errors.As(err, &none) {
		t.Errorf("a second remove = %v, want NotFoundError", err)
	}
}

func TestADownloadThatIsCutGoesOn(t *testing.T) {
	p, c := publish(t, 3<<20), newCache(t)
	p.cut, p.cuts = 1<<20, 2
	path, n, err := place(t, c, p.source())
	if err != nil {
		t.Fatal(err)
	}
	wantImage(t, path, p.image)
	if want := fmt.Sprintf("bytes=%d-", 2<<20); len(p.ranges) != 2 || p.ranges[1] != want {
		t.Errorf("ranges = %v, want the second to be %s", p.ranges, want)
	}
	if !n.said("broke off") {
		t.Errorf("it was not said: %v", n.lines)
	}
}

// TestADownloadThatWasBrokenOffGoesOnTheNextTime, say after Ctrl-C.
func TestADownloadThatWasBrokenOffGoesOnTheNextTime(t *testing.T) {
	for name, prepare := range map[string]func(*publisher, *Source){
		"with a checksum":    func(*publisher, *Source) {},
		"by its version":     func(_ *publisher, s *Source) { s.Sums = "" },
		"from another place": func(p *publisher, _ *Source) { p.etag = `"mirror"` },
	} {
		t.Run(name, func(t *testing.T) {
			p, c := publish(t, 8<<20), newCache(t)
			s := p.source()
			if name == "by its version" {
				prepare(p, &s)
			}
			ctx, cancel := context.WithCancel(t.Context())
			n := &notes{on: func(done int64) {
				if done >= 1<<20 {
					cancel()
				}
			}}
			_, err := c.Place(ctx, s, filepath.Join(t.TempDir(), "i"), n)
			var cut *CutError
			if !errors.Is(err, context.Canceled) || !errors.As(err, &cut) || cut.Done == 0 {
				t.Fatalf("place = %v, want a CutError of context.Canceled", err)
			}
			list, err := c.List()
			if err != nil || len(list) != 1 || !list[0].Partial || list[0].Size != cut.Done {
				t.Errorf("list = %+v, %v, want a part of %d bytes", list, err, cut.Done)
			}
			prepare(p, &s)
			path, _, err := place(t, c, s)
			if err != nil {
				t.Fatal(err)
			}
			wantImage(t, path, p.image)
			if want := fmt.Sprintf("bytes=%d-", cut.Done); len(p.ranges) != 1 || p.ranges[0] != want {
				t.Errorf("ranges = %v, want %s", p.ranges, want)
			}
		})
	}
}

// TestAPartOfAnotherVersionIsNotGoneOnWith: the publisher put a new image there meanwhile.
func TestAPartOfAnotherVersionIsNotGoneOnWith(t *testing.T) {
	for name, sums := range map[string]bool{"the checksum tells": true, "the server tells": false} {
		t.Run(name, func(t *testing.T) {
			p, c := publish(t, 4<<20), newCache(t)
			s := p.source()
			if !sums {
				s.Sums = ""
			}
			ctx, cancel := context.WithCancel(t.Context())
			if _, err := c.Place(ctx, s, filepath.Join(t.TempDir(), "i"), &notes{on: func(int64) { cancel() }}); err == nil {
				t.Fatal("nothing broke it off")
			}
			p.image = append([]byte("new"), p.image...)
			sum := sha256.Sum256(p.image)
			p.sums, p.etag = "SHA256 ("+imageName+") = "+hex.EncodeToString(sum[:]), `"two"`
			path, _, err := place(t, c, s)
			if err != nil {
				t.Fatal(err)
			}
			wantImage(t, path, p.image)
		})
	}
}

func TestAServerWithoutRangesIsAskedForAll(t *testing.T) {
	p, c := publish(t, 3<<20), newCache(t)
	p.cut, p.cuts, p.noRange = 1<<20, 1, true
	path, _, err := place(t, c, p.source())
	if err != nil {
		t.Fatal(err)
	}
	wantImage(t, path, p.image)
}

func TestADamagedImageIsThrownAway(t *testing.T) {
	p, c := publish(t, 1<<20), newCache(t)
	good := p.image
	p.image = append([]byte{}, good...)
	p.image[1000]++
	_, _, err := place(t, c, p.source())
	if err == nil || !strings.Contains(err.Error(), "damaged") || !strings.Contains(err.Error(), "thrown away") {
		t.Fatalf("place = %v, want that it is damaged", err)
	}
	if list, err := c.List(); err != nil || len(list) != 0 {
		t.Errorf("list = %v, %v, want nothing", list, err)
	}
	p.image = good
	path, _, err := place(t, c, p.source())
	if err != nil {
		t.Fatal(err)
	}
	wantImage(t, path, good)
}

func TestRefusals(t *testing.T) {
	for name, tt := range map[string]struct {
		spoil func(*publisher, *Source)
		want  string
	}{
		"not there": {func(p *publisher, _ *Source) { p.status = http.StatusNotFound }, "404"},
		"no sums":   {func(_ *publisher, s *Source) { s.Sums = "http://127.0.0.1:1/SUMS" }, "its checksums"},
		"sums of others": {func(p *publisher, _ *Source) {
			p.sums = strings.Repeat("0", 128) + "  other\n" + strings.Repeat("1", 128) + "  more"
		}, "has no sha256 or sha512 of"},
		"only a weak sum":          {func(p *publisher, _ *Source) { p.sums = strings.Repeat("0", 32) + "  " + imageName }, "has no sha256 or sha512 of"},
		"a pinned one of another":  {func(_ *publisher, s *Source) { s.Digest = Digest("sha256:" + strings.Repeat("0", 64)) }, "should be sha256:000000000000"},
		"a disk with too little":   {func(p *publisher, _ *Source) { p.etag = "huge" }, "is full"},
		"a server that is unwell":  {func(p *publisher, _ *Source) { p.status = http.StatusInternalServerError }, "500"},
		"somebody else has a file": {func(_ *publisher, s *Source) { s.URL = "file:///nowhere/at/all"; s.Sums = "" }, "no such file"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p, c := publish(t, 1<<20), newCache(t)
			s := p.source()
			tt.spoil(p, &s)
			if p.etag == "huge" {
				s.URL = huge(t, p.image)
			}
			_, _, err := place(t, c, s)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("place = %v, want it to say %q", err, tt.want)
			}
		})
	}
}

// huge promises more than any disk holds.
func huge(t *testing.T, some []byte) string {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", strconv.FormatInt(1<<60, 10))
		_, _ = w.Write(some)
	}))
	t.Cleanup(s.Close)
	return s.URL + "/" + imageName
}

func TestTwoThatWantOneImageDownloadItOnce(t *testing.T) {
	p, c := publish(t, 4<<20), newCache(t)
	var wg sync.WaitGroup
	failed := make([]error, 4)
	for i := range failed {
		wg.Go(func() { _, _, failed[i] = place(t, c, p.source()) })
	}
	wg.Wait()
	if err := errors.Join(failed...); err != nil {
		t.Fatal(err)
	}
	list, err := c.List()
	if err != nil || len(list) != 1 || list[0].Users != len(failed) {
		t.Errorf("list = %+v, %v", list, err)
	}
}

func TestALocalFileIsCopiedAndCopiedAnewWhenItChanges(t *testing.T) {
	c := newCache(t)
	path := filepath.Join(t.TempDir(), "my image.qcow2")
	write := func(text string, at time.Time) {
		t.Helper()
		if err := errors.Join(os.WriteFile(path, []byte(text), 0o600), os.Chtimes(path, at, at)); err != nil {
			t.Fatal(err)
		}
	}
	now := time.Now()
	write("one", now)
	s, err := Find(path, "", "amd64")
	if err != nil {
		t.Fatal(err)
	}
	first, _, err := place(t, c, s)
	if err != nil {
		t.Fatal(err)
	}
	write("two", now.Add(time.Second))
	second, _, err := place(t, c, s)
	if err != nil {
		t.Fatal(err)
	}
	wantImage(t, first, []byte("one"))
	wantImage(t, second, []byte("two"))
	if _, err := c.Get(t.Context(), s, true, &notes{}); err != nil {
		t.Fatal(err)
	}
}

func TestFind(t *testing.T) {
	here := filepath.Join(t.TempDir(), "mine.img")
	if err := os.WriteFile(here, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct{ ref, checksum, arch, want string }{
		"the default":            {"", "", "amd64", "debian-13 https://cloud.debian.org/images/cloud/trixie/latest/debian-13-genericcloud-amd64.qcow2 https://cloud.debian.org/images/cloud/trixie/latest/SHA512SUMS"},
		"an alias":               {"fedora", "", "arm64", "fedora-44 https://download.fedoraproject.org/pub/fedora/linux/releases/44/Cloud/aarch64/images/Fedora-Cloud-Base-Generic-44-1.7.aarch64.qcow2 https://download.fedoraproject.org/pub/fedora/linux/releases/44/Cloud/aarch64/images/Fedora-Cloud-44-1.7-aarch64-CHECKSUM"},
		"firmware in the name":   {"alpine", "", "arm64", "alpine-3.24 https://dl-cdn.alpinelinux.org/alpine/v3.24/releases/cloud/generic_alpine-3.24.1-aarch64-uefi-cloudinit-r0.qcow2 https://dl-cdn.alpinelinux.org/alpine/v3.24/releases/cloud/generic_alpine-3.24.1-aarch64-uefi-cloudinit-r0.qcow2.sha512"},
		"a URL":                  {"https://example.com/a/b.img?x=1", "", "amd64", "b.img https://example.com/a/b.img?x=1"},
		"a URL and a list":       {"https://example.com/a/b.img", "https://example.com/SUMS", "amd64", "b.img https://example.com/a/b.img https://example.com/SUMS"},
		"a file":                 {here, "", "amd64", "mine.img " + fileURL(here)},
		"an unknown name":        {"debian-99", "", "amd64", "error: neither a file"},
		"a strange architecture": {"debian", "", "riscv64", "error: there is none for riscv64"},
		"a strange scheme":       {"ftp://example.com/x", "", "amd64", "error: want a name"},
		"a folder":               {filepath.Dir(here), "", "amd64", "error: it is no file"},
		"a weak checksum":        {"debian", "md5:00", "amd64", "error: want sha256"},
	} {
		t.Run(name, func(t *testing.T) {
			s, err := Find(tt.ref, tt.checksum, tt.arch)
			got := strings.TrimSpace(s.Name + " " + s.URL + " " + s.Sums)
			if err != nil {
				got = "error: " + err.Error()
			}
			if want, failing := strings.CutPrefix(tt.want, "error: "); failing && (err == nil || !strings.Contains(got, want)) || !failing && got != tt.want {
				t.Errorf("Find(%q) = %s, want %s", tt.ref, got, tt.want)
			}
		})
	}
}

func TestFindDigest(t *testing.T) {
	weak, sha, strong := strings.Repeat("a", 32), strings.Repeat("b", 64), strings.Repeat("c", 128)
	for name, tt := range map[string]struct{ list, want string }{
		"GNU":           {sha + "  x.img\n" + strong + "  y.img", "sha256:" + sha},
		"GNU, binary":   {sha + " *x.img", "sha256:" + sha},
		"GNU, a folder": {sha + "  ./x.img", "sha256:" + sha},
		"BSD, signed":   {"-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA256\n\n# x.img: 12 bytes\nSHA256 (x.img) = " + sha, "sha256:" + sha},
		"a bare sum":    {strong + "\n", "sha512:" + strong},
		"the strongest": {"# MD5\n" + weak + "  x.img\n# SHA1\n" + strings.Repeat("d", 40) + "  x.img\n# SHA512\n" + strong + "  x.img\n", "sha512:" + strong},
		"another's":     {sha + "  y.img\n" + sha + "  x.img.asc", ""},
		"nothing":       {"", ""},
	} {
		t.Run(name, func(t *testing.T) {
			if got, _ := findDigest([]byte(tt.list), "x.img"); string(got) != tt.want {
				t.Errorf("= %q, want %q", got, tt.want)
			}
		})
	}
}

func TestCheckTellsEarly(t *testing.T) {
	p, c := publish(t, 1<<20), newCache(t)
	if size, err := c.Check(t.Context(), p.source()); err != nil || size != 1<<20 {
		t.Errorf("check = %d, %v", size, err)
	}
	p.status = http.StatusNotFound
	if _, err := c.Check(t.Context(), p.source()); err == nil || !strings.Contains(err.Error(), "404") {
		t.Errorf("check of what is not there = %v", err)
	}
	p.Close()
	if _, err := c.Check(t.Context(), p.source()); err == nil || !strings.Contains(err.Error(), "cannot be downloaded") {
		t.Errorf("check without a network = %v", err)
	}
}
