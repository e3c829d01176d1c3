package move

import (
	"archive/tar"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"path"
	"slices"
	"strings"
)

// digest is the sums of a tar's entries by name: type, mode, owner, size, link, extended attributes, time and content.
type digest struct{ entries map[string][sha256.Size]byte }

func newDigest() *digest { return &digest{map[string][sha256.Size]byte{}} }

// pump reads a stream to its end for two readers. The second may stop at any time: an engine does not read what stands behind
// the end of an archive. An error of the source is passed on to both, so that neither takes what was cut for the whole.
func pump(source io.Reader, first, second *io.PipeWriter) error {
	buf := make([]byte, 64<<10)
	reading := true
	for {
		n, err := source.Read(buf)
		if _, failed := first.Write(buf[:n]); failed != nil {
			second.CloseWithError(failed) //nolint:errcheck // never fails
			return failed
		}
		if reading {
			_, stopped := second.Write(buf[:n])
			reading = stopped == nil
		}
		if err != nil {
			first.CloseWithError(err)  //nolint:errcheck // never fails
			second.CloseWithError(err) //nolint:errcheck // never fails
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
	}
}

// read digests a tar to its end.
func (d *digest) read(r io.Reader) error {
	t := tar.NewReader(r)
	for {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			_, err = io.Copy(io.Discard, r) // padding behind the end
			return err
		}
		if err != nil {
			return err
		}
		content := sha256.New()
		if _, err := io.Copy(content, t); err != nil {
			return err
		}
		d.entries[path.Clean("/"+h.Name)] = sha256.Sum256([]byte(describe(h) + hex.EncodeToString(content.Sum(nil))))
	}
}

// describe is all that must survive of an entry but its content. The times of directories change as they are filled.
func describe(h *tar.Header) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%c %o %d:%d %d %q %d:%d\n", h.Typeflag, h.Mode, h.Uid, h.Gid, h.Size, h.Linkname, h.Devmajor, h.Devminor)
	if h.Typeflag == tar.TypeReg {
		fmt.Fprintln(&b, h.ModTime.Unix())
	}
	for _, k := range slices.Sorted(maps.Keys(h.PAXRecords)) {
		if strings.HasPrefix(k, "SCHILY.xattr.") {
			fmt.Fprintf(&b, "%q=%q\n", k, h.PAXRecords[k])
		}
	}
	return b.String()
}

// compare names the first entry that differs; "" if none does.
func (d *digest) compare(o *digest) string {
	for _, name := range slices.Sorted(maps.Keys(d.entries)) {
		sum, there := o.entries[name]
		if !there {
			return name + " is missing"
		}
		if sum != d.entries[name] {
			return name + " is not the same"
		}
	}
	for _, name := range slices.Sorted(maps.Keys(o.entries)) {
		if _, there := d.entries[name]; !there {
			return name + " was not there before"
		}
	}
	return ""
}

// sum is one for all entries.
func (d *digest) sum() string {
	h := sha256.New()
	for _, name := range slices.Sorted(maps.Keys(d.entries)) {
		sum := d.entries[name]
		_, _ = fmt.Fprintf(h, "%q %x\n", name, sum) // a hash takes everything
	}
	return hex.EncodeToString(h.Sum(nil))
}
