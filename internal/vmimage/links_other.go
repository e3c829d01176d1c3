//go:build !unix

package vmimage

import "io/fs"

// links is how many names a file has; 0 where that is not known.
func links(fs.FileInfo) int { return 0 }
