//go:build unix

package vmimage

import (
	"io/fs"
	"syscall"
)

// links is how many names a file has; 0 where that is not known.
func links(info fs.FileInfo) int {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return int(st.Nlink) //nolint:gosec,unconvert // of another type on each system
	}
	return 0
}
