package machine

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/gofrs/flock"
	"github.com/maruel/natural"

	"berth/internal/atomicfile"
	"berth/internal/cert"
)

// Store is a directory of machines in docker-machine's layout. Reading it never writes to it.
type Store struct {
	dir string
	// Provisioner reaches into the machines over SSH. Without one, engines are brought only to hosts whose drivers do that.
	Provisioner Provisioner
	// Keys is the kind of keys for new certificates; "" keeps to what there is.
	Keys cert.Keys
}

// NotExistError says that the store has no machine of that name.
type NotExistError struct{ Name string }

func (e *NotExistError) Error() string {
	return fmt.Sprintf("Docker machine %q does not exist.", e.Name)
}

// ExistsError says that a name is taken.
type ExistsError struct{ Name string }

func (e *ExistsError) Error() string { return fmt.Sprintf("Docker machine %q already exists", e.Name) }

// Open names the store in dir. Nothing is read or made yet.
func Open(dir string) (*Store, error) {
	// The paths in the records are absolute, so that a machine works from every working directory.
	abs, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("store %s: %w", dir, err)
	}
	return &Store{dir: abs}, nil
}

// Dir is the store's folder.
func (s *Store) Dir() string { return s.dir }

// CertDir is where the authority and the client's certificate are, when the command line does not say otherwise.
func (s *Store) CertDir() string { return filepath.Join(s.dir, "certs") }

// MachinesDir holds a folder per machine. It need not exist.
func (s *Store) MachinesDir() string { return filepath.Join(s.dir, "machines") }

// MachineDir is the machine's own folder.
func (s *Store) MachineDir(name string) string { return filepath.Join(s.MachinesDir(), name) }

func (s *Store) configPath(name string) string {
	return filepath.Join(s.MachineDir(name), "config.json")
}

// Names lists the machines in natural order (host2 before host10), also those whose record cannot be read.
func (s *Store) Names() ([]string, error) {
	entries, err := os.ReadDir(s.MachinesDir())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list machines: %w", err)
	}
	var names []string
	for _, e := range entries {
		if e.IsDir() && inStore(e.Name()) {
			names = append(names, e.Name())
		}
	}
	slices.SortFunc(names, func(a, b string) int {
		return cmp.Or(natural.Compare(strings.ToLower(a), strings.ToLower(b)), strings.Compare(a, b))
	})
	return names, nil
}

// Exists tells whether the name is taken, by a readable record or not.
func (s *Store) Exists(name string) bool {
	if !inStore(name) {
		return false
	}
	info, err := os.Lstat(s.MachineDir(name))
	return err == nil && info.IsDir()
}

// Load reads one machine's record.
func (s *Store) Load(name string) (*Machine, error) {
	if !s.Exists(name) {
		return nil, &NotExistError{name}
	}
	data, err := os.ReadFile(s.configPath(name))
	if err != nil {
		return nil, fmt.Errorf("record of %s: %w", name, err)
	}
	m, err := parse(name, s.MachineDir(name), data)
	if err != nil {
		return nil, fmt.Errorf("record of %s: %s: %w", name, s.configPath(name), err)
	}
	return m, nil
}

// Save writes the machine's record into its folder, which must exist: a machine removed meanwhile does not come back.
func (s *Store) Save(m *Machine) error {
	data, err := m.encode(s.dir)
	if err != nil {
		return fmt.Errorf("record of %s: %w", m.Name, err)
	}
	if err := atomicfile.Write(s.configPath(m.Name), data, 0o600); err != nil {
		return fmt.Errorf("record of %s: %w", m.Name, err)
	}
	return nil
}

// reserve takes the name by making the machine's folder, which only one of several berths can.
func (s *Store) reserve(name string) error {
	if err := os.MkdirAll(s.MachinesDir(), 0o700); err != nil {
		return fmt.Errorf("reserve the name: %w", err)
	}
	err := os.Mkdir(s.MachineDir(name), 0o700)
	if errors.Is(err, fs.ErrExist) {
		return &ExistsError{name}
	}
	if err != nil {
		return fmt.Errorf("reserve the name: %w", err)
	}
	return nil
}

// forget deletes the machine's folder, its record last: whatever interrupts this leaves a machine that can be removed again.
func (s *Store) forget(name string) error {
	dir := s.MachineDir(name)
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("delete %s: %w", dir, err)
	}
	for _, e := range entries {
		if e.Name() == "config.json" {
			continue
		}
		if err := os.RemoveAll(filepath.Join(dir, e.Name())); err != nil {
			return fmt.Errorf("delete %s: %w", dir, err)
		}
	}
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("delete %s: %w", dir, err)
	}
	return nil
}

// ID is a random name of this store, made at its first use and kept in a file of ours.
func (s *Store) ID(ctx context.Context) (string, error) {
	path := filepath.Join(s.dir, "berth-store-id")
	if id, err := readID(path); err == nil {
		return id, nil
	}
	unlock, err := s.lock(ctx)
	if err != nil {
		return "", err
	}
	defer unlock()
	id, err := readID(path)
	if err == nil || !errors.Is(err, fs.ErrNotExist) {
		return id, err
	}
	random := make([]byte, 16)
	rand.Read(random) //nolint:errcheck // it never fails: crypto/rand crashes the program instead
	id = hex.EncodeToString(random)
	return id, atomicfile.Write(path, []byte(id+"\n"), 0o600)
}

func readID(path string) (string, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("id of the store: %w", err)
	}
	id := strings.TrimSpace(string(data))
	if raw, err := hex.DecodeString(id); err != nil || len(raw) != 16 {
		return "", fmt.Errorf("id of the store: %s does not hold one: 32 hexadecimal digits", path)
	}
	return id, nil
}

// lock is held while something that all machines share is made: the authority, the store's id.
func (s *Store) lock(ctx context.Context) (unlock func(), err error) {
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return nil, fmt.Errorf("lock the store: %w", err)
	}
	l := flock.New(filepath.Join(s.dir, ".berth.lock"), flock.SetPermissions(0o600))
	if _, err := l.TryLockContext(ctx, 20*time.Millisecond); err != nil {
		return nil, fmt.Errorf("lock the store: %w", err)
	}
	return func() { _ = l.Close() }, nil // the kernel lets go even if this fails
}

// BusyError says that another berth is creating or removing the machine just now.
type BusyError struct{ Name string }

func (e *BusyError) Error() string {
	return fmt.Sprintf("machine %q is being created or removed by another berth just now", e.Name)
}

// claim marks the machine as being created or removed by this process, for as long as that lasts or the process lives.
func (s *Store) claim(name string) (release func(), err error) {
	l := flock.New(s.claimPath(name), flock.SetPermissions(0o600))
	ok, err := l.TryLock()
	if err != nil {
		return nil, fmt.Errorf("lock machine %s: %w", name, err)
	}
	if !ok {
		return nil, &BusyError{name}
	}
	return func() { _ = l.Close() }, nil
}

func (s *Store) claimPath(name string) string {
	return filepath.Join(s.MachineDir(name), ".berth.lock")
}

// claimed tells whether a living process holds the claim.
func (s *Store) claimed(name string) bool {
	l := flock.New(s.claimPath(name), flock.SetFlag(os.O_RDONLY))
	ok, err := l.TryRLock()
	_ = l.Close()
	return err == nil && !ok
}
