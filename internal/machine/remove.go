package machine

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
)

// Remove deletes the host and then the record. With force the record goes even if the driver fails; what the driver could not
// delete is then in the error all the same.
func Remove(ctx context.Context, s *Store, drv Driver, m *Machine, force bool) error {
	release, err := s.claim(m.Name)
	if err != nil {
		return err
	}
	defer release()
	if err := drv.Remove(ctx, m.Instance); err != nil {
		err = fmt.Errorf("remove %s: %w", m.Name, err)
		if force {
			return errors.Join(err, s.forget(m.Name))
		}
		return err
	}
	return s.forget(m.Name)
}

// Forget deletes only what the store holds of a machine, and no host.
func Forget(s *Store, name string) error {
	if !s.Exists(name) {
		return &NotExistError{name}
	}
	release, err := s.claim(name)
	if err != nil {
		return err
	}
	defer release()
	return s.forget(name)
}

// OnlyReserved tells whether the machine is a name and nothing more: create was cut off before it wrote the record, so that no
// driver was called yet.
func (s *Store) OnlyReserved(name string) bool {
	if !s.Exists(name) {
		return false
	}
	entries, err := os.ReadDir(s.MachineDir(name))
	if err != nil {
		return errors.Is(err, fs.ErrNotExist)
	}
	for _, e := range entries {
		// A lock, or a record's temporary file.
		if !strings.HasPrefix(e.Name(), ".") {
			return false
		}
	}
	return true
}
