package provision

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
)

// putFile writes a file of root's such that a reader sees either the old content or the new one, and tells whether there was anything
// to do. The content travels over stdin: command lines can be seen by others on the host.
func (h *host) putFile(ctx context.Context, path, mode string, content []byte) (changed bool, err error) {
	sum := sha256.Sum256(content)
	script := fmt.Sprintf("f=%s mode=%s want=%s\n", quote(path), quote(mode), hex.EncodeToString(sum[:])) + `
sum() { sha256sum <"$1" | cut -c 1-64; }
[ ! -L "$f" ] || f=$(readlink -f "$f")
if [ -f "$f" ] && [ "$(sum "$f")" = "$want" ]; then
  cat >/dev/null
  [ "$(stat -c %a "$f")" = "$mode" ] || chmod "$mode" "$f"
  echo same
  exit 0
fi
mkdir -p "${f%/*}"
umask 077
t=$(mktemp "$f.XXXXXX")
trap 'rm -f "$t"' EXIT
cat >"$t"
[ "$(sum "$t")" = "$want" ] || { echo "$f did not arrive whole"; exit 1; }
chmod "$mode" "$t"
mv -f "$t" "$f"
echo changed`
	said, err := h.sh(ctx, script, bytes.NewReader(content))
	if err != nil {
		return false, fmt.Errorf("write %s: %w", path, err)
	}
	return lastLine(said) == "changed", nil
}

// readFile reads a file of root's; one that is not there is empty.
func (h *host) readFile(ctx context.Context, path string) ([]byte, error) {
	said, err := h.sh(ctx, "f="+quote(path)+`; [ ! -e "$f" ] || cat "$f"`, nil)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	return []byte(said), nil
}

// removeFile removes a file of root's and tells whether it was there.
func (h *host) removeFile(ctx context.Context, path string) (bool, error) {
	said, err := h.sh(ctx, "f="+quote(path)+`; if [ -e "$f" ]; then rm -f "$f"; echo removed; else echo absent; fi`, nil)
	if err != nil {
		return false, fmt.Errorf("remove %s: %w", path, err)
	}
	return lastLine(said) == "removed", nil
}

// kept is a file as it was before we changed it.
type kept struct {
	path    string
	content []byte // empty for one that was not there
}

// replaceFile is putFile that can be taken back.
func (h *host) replaceFile(ctx context.Context, path, mode string, content []byte) (bool, error) {
	before, err := h.readFile(ctx, path)
	if err != nil {
		return false, err
	}
	changed, err := h.putFile(ctx, path, mode, content)
	if changed {
		h.kept = append(h.kept, kept{path, before})
	}
	return changed, err
}

// dropFile is removeFile that can be taken back.
func (h *host) dropFile(ctx context.Context, path string) (bool, error) {
	before, err := h.readFile(ctx, path)
	if err != nil {
		return false, err
	}
	removed, err := h.removeFile(ctx, path)
	if removed {
		h.kept = append(h.kept, kept{path, before})
	}
	return removed, err
}

// takeBack puts all files back as they were.
func (h *host) takeBack(ctx context.Context) error {
	for _, k := range h.kept {
		var err error
		if len(k.content) == 0 {
			_, err = h.removeFile(ctx, k.path)
		} else {
			_, err = h.putFile(ctx, k.path, "644", k.content)
		}
		if err != nil {
			return err
		}
	}
	h.kept = nil
	return nil
}

// uploadCertificates gives the engine its certificates. They are read when it starts.
func (h *host) uploadCertificates(ctx context.Context) error {
	for _, f := range []struct {
		path, mode string
		content    []byte
	}{
		{KeyPath, "600", h.config.Key},
		{CertPath, "644", h.config.Cert},
		{CAPath, "644", h.config.CA},
	} {
		changed, err := h.putFile(ctx, f.path, f.mode, f.content)
		if err != nil {
			return err
		}
		h.changed = h.changed || changed
	}
	if h.changed {
		h.say("Copying certs to the remote machine...")
	}
	return nil
}
