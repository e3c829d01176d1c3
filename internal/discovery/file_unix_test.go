//go:build unix

package discovery

import (
	"path/filepath"
	"syscall"
	"testing"
)

func TestFileThatIsNoFile(t *testing.T) {
	fifo := filepath.Join(t.TempDir(), "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	w := watchFile(t, fifo)
	w.expectWarning("not a regular file")
	w.expect()
}
