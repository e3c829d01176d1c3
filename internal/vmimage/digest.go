package vmimage

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"fmt"
	"hash"
	"io"
	"os"
	"path"
	"regexp"
	"strings"
)

// Digest is a checksum as ALGORITHM:HEX; "" for none.
type Digest string

// ParseDigest reads a digest as users write it.
func ParseDigest(s string) (Digest, error) {
	algorithm, sum, ok := strings.Cut(strings.ToLower(strings.TrimSpace(s)), ":")
	if !ok {
		sum = algorithm
		algorithm = algorithmOf(sum)
	}
	if _, err := hex.DecodeString(sum); err != nil || algorithm == "" || algorithmOf(sum) != algorithm {
		return "", fmt.Errorf("checksum %q: want sha256: or sha512: and its hexadecimal digits, or the URL of a list of checksums", s)
	}
	return Digest(algorithm + ":" + sum), nil
}

// algorithmOf tells an algorithm by the length of its sum. Those that are too weak to trust have none.
func algorithmOf(sum string) string {
	switch len(sum) {
	case hex.EncodedLen(sha256.Size):
		return "sha256"
	case hex.EncodedLen(sha512.Size):
		return "sha512"
	}
	return ""
}

// Short is for people.
func (d Digest) Short() string {
	const digits = 12
	algorithm, sum, _ := strings.Cut(string(d), ":")
	if len(sum) > digits {
		sum = sum[:digits]
	}
	return algorithm + ":" + sum
}

func (d Digest) hash() hash.Hash {
	if strings.HasPrefix(string(d), "sha512:") {
		return sha512.New()
	}
	return sha256.New()
}

// of is the file's digest, by the algorithm of d; sha256 if d is "".
func (d Digest) of(file string) (Digest, error) {
	f, err := os.Open(file)
	if err != nil {
		return "", err
	}
	defer f.Close() //nolint:errcheck // read only
	h := d.hash()
	if _, err := io.Copy(h, f); err != nil {
		return "", err
	}
	algorithm, _, ok := strings.Cut(string(d), ":")
	if !ok {
		algorithm = "sha256"
	}
	return Digest(algorithm + ":" + hex.EncodeToString(h.Sum(nil))), nil
}

// bsdLine is a checksum as BSD's programs write it, and Fedora: SHA256 (file) = sum.
var bsdLine = regexp.MustCompile(`^[A-Z0-9]+ \((.+)\) = ([0-9a-fA-F]+)$`)

// findDigest looks the file up in a list of checksums, in any of the forms that publishers use, and takes the strongest. A list that
// is one bare sum is the file's.
func findDigest(list []byte, file string) (Digest, bool) {
	best, bare, lines := "", "", 0
	for scan := bufio.NewScanner(bytes.NewReader(list)); scan.Scan(); {
		line := strings.TrimSpace(scan.Text())
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		lines++
		sum, name := "", ""
		if m := bsdLine.FindStringSubmatch(line); m != nil {
			name, sum = m[1], m[2]
		} else {
			fields := strings.Fields(line)
			sum = fields[0]
			if len(fields) == 1 {
				bare = sum
			}
			name = strings.TrimPrefix(fields[len(fields)-1], "*")
		}
		if path.Base(name) == file && algorithmOf(sum) != "" && len(sum) > len(best) {
			best = sum
		}
	}
	if best == "" && lines == 1 {
		best = bare
	}
	d, err := ParseDigest(best)
	return d, err == nil
}
