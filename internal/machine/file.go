package machine

import (
	"fmt"
	"os"

	"berth/internal/atomicfile"
)

// copyFile copies a small file.
func copyFile(from, to string, mode os.FileMode) error {
	data, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	if err := atomicfile.Write(to, data, mode); err != nil {
		return fmt.Errorf("copy %s: %w", from, err)
	}
	return nil
}
