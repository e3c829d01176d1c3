// Package dockercontext keeps docker contexts that berth made: written where the docker CLI looks for them, marked as ours,
// and never touching one that somebody else made.
//
// A context may have an owner, a path that is there as long as what the context leads to. Two stores of machines on one computer do
// not take each other's contexts, and a context whose owner is gone is anybody's.
//
// The files are docker/cli's context store: contexts/meta/<sha256 of the name>/meta.json and contexts/tls/<same>/docker/
// below the client's configuration folder. The library that writes them brings the whole CLI with it, for two small files.
package dockercontext

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/google/renameio/v2/maybe"
)

// Context is an endpoint that `docker context use` can switch to.
type Context struct {
	Name        string
	Description string
	Host        string // unix:///…, tcp://…, ssh://…
	// The client's certificates in PEM; all three or none.
	CA, Cert, Key []byte
	// Owner is the path of what the context was made for; "" for the one that there is once on a computer.
	Owner string
}

// ErrForeign says that a context of that name exists and is not ours.
var ErrForeign = errors.New("a docker context of this name exists that berth did not make")

// OwnedError says that a context of that name was made for something else that is still there.
type OwnedError struct{ Owner string }

func (e *OwnedError) Error() string {
	return "a docker context of this name exists that was made for " + e.Owner
}

// What our contexts have in their metadata; docker keeps what it does not know.
const (
	mark      = "com.berth.managed"
	ownerMark = "com.berth.owner"
)

type meta struct {
	Name      string
	Metadata  map[string]any
	Endpoints map[string]endpoint
}

type endpoint struct {
	Host          string
	SkipTLSVerify bool
}

// Store is the client's configuration folder.
type Store struct{ dir string }

// Open returns the store of the docker CLI: $DOCKER_CONFIG or ~/.docker.
func Open() (*Store, error) {
	if dir := os.Getenv("DOCKER_CONFIG"); dir != "" {
		return &Store{dir}, nil
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return nil, fmt.Errorf("docker's configuration: %w", err)
	}
	return &Store{filepath.Join(home, ".docker")}, nil
}

func (s *Store) metaDir(name string) string {
	return filepath.Join(s.dir, "contexts", "meta", digest(name))
}
func (s *Store) tlsDir(name string) string {
	return filepath.Join(s.dir, "contexts", "tls", digest(name))
}

func digest(name string) string {
	sum := sha256.Sum256([]byte(name))
	return hex.EncodeToString(sum[:])
}

// Put makes or refreshes a context. It changes nothing if the context is as it should be.
func (s *Store) Put(c Context) error {
	if err := s.put(c); err != nil {
		return fmt.Errorf("docker context %s: %w", c.Name, err)
	}
	return nil
}

func (s *Store) put(c Context) error {
	if err := s.mayPut(c); err != nil {
		return err
	}
	m := meta{
		Name:      c.Name,
		Metadata:  map[string]any{"Description": c.Description, mark: true},
		Endpoints: map[string]endpoint{"docker": {Host: c.Host}},
	}
	if c.Owner != "" {
		m.Metadata[ownerMark] = c.Owner
	}
	b, err := json.Marshal(m)
	if err != nil {
		return err
	}
	if err := s.putTLS(c); err != nil {
		return err
	}
	return write(filepath.Join(s.metaDir(c.Name), "meta.json"), b, 0o644)
}

// mayPut is why the name is not for c.
func (s *Store) mayPut(c Context) error {
	there, err := s.read(c.Name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case !there.ours():
		return ErrForeign
	case there.owner() != c.Owner && !there.abandoned():
		return &OwnedError{there.owner()}
	}
	return nil
}

func (s *Store) putTLS(c Context) error {
	if c.CA == nil {
		return os.RemoveAll(s.tlsDir(c.Name))
	}
	dir := filepath.Join(s.tlsDir(c.Name), "docker")
	for name, b := range map[string][]byte{"ca.pem": c.CA, "cert.pem": c.Cert, "key.pem": c.Key} {
		if err := write(filepath.Join(dir, name), b, 0o600); err != nil {
			return err
		}
	}
	return nil
}

// write leaves a file alone that is as it should be: whoever watches it need not look again.
func write(path string, b []byte, mode os.FileMode) error {
	if info, err := os.Stat(path); err == nil && info.Mode().Perm() == mode {
		if old, err := os.ReadFile(path); err == nil && bytes.Equal(old, b) {
			return nil
		}
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	return maybe.WriteFile(path, b, mode)
}

// read is what is stored of a context. Of one that nobody can make sense of, it is nothing: we did not write it.
func (s *Store) read(name string) (meta, error) {
	b, err := os.ReadFile(filepath.Join(s.metaDir(name), "meta.json"))
	if err != nil {
		return meta{}, err
	}
	var m meta
	if err := json.Unmarshal(b, &m); err != nil {
		return meta{}, nil //nolint:nilerr // see above
	}
	return m, nil
}

// ours tells whether the context carries our mark.
func (m meta) ours() bool {
	managed, _ := m.Metadata[mark].(bool)
	return managed
}

func (m meta) owner() string {
	owner, _ := m.Metadata[ownerMark].(string)
	return owner
}

// abandoned tells whether what a context of ours was made for is gone.
func (m meta) abandoned() bool {
	if !m.ours() || m.owner() == "" {
		return false
	}
	_, err := os.Lstat(m.owner())
	return errors.Is(err, fs.ErrNotExist)
}

// Has tells whether there is a context of ours by that name with that owner.
func (s *Store) Has(name, owner string) (bool, error) {
	m, err := s.read(name)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("docker context %s: %w", name, err)
	}
	return m.ours() && m.owner() == owner, nil
}

// Abandoned lists the contexts of ours whose owners are gone.
func (s *Store) Abandoned() ([]string, error) {
	all, err := os.ReadDir(filepath.Join(s.dir, "contexts", "meta"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("docker contexts: %w", err)
	}
	var names []string
	for _, e := range all {
		b, err := os.ReadFile(filepath.Join(s.dir, "contexts", "meta", e.Name(), "meta.json"))
		if err != nil {
			continue // none of ours: they are written whole
		}
		var m meta
		if json.Unmarshal(b, &m) == nil && m.abandoned() && digest(m.Name) == e.Name() {
			names = append(names, m.Name)
		}
	}
	slices.Sort(names)
	return names, nil
}

// Remove takes a context of ours away, and switches back to the default one if it was in use. One that is gone, that somebody else
// made or that has another owner is left as it is.
func (s *Store) Remove(name, owner string) error {
	m, err := s.read(name)
	if errors.Is(err, fs.ErrNotExist) || err == nil && (!m.ours() || m.owner() != owner && !m.abandoned()) {
		return nil
	}
	if err == nil {
		err = errors.Join(os.RemoveAll(s.metaDir(name)), os.RemoveAll(s.tlsDir(name)))
	}
	if current, e := s.Current(); e == nil && current == name {
		err = errors.Join(err, s.Use("default"))
	}
	if err != nil {
		return fmt.Errorf("docker context %s: %w", name, err)
	}
	return nil
}

// Current is the name of the context in use, as the configuration says it.
func (s *Store) Current() (string, error) {
	config, err := s.config()
	if err != nil {
		return "", err
	}
	var name string
	if raw, ok := config["currentContext"]; ok {
		if err := json.Unmarshal(raw, &name); err != nil {
			return "", fmt.Errorf("%s: currentContext: %w", s.configPath(), err)
		}
	}
	return name, nil
}

// Use switches the docker CLI to a context, leaving the rest of its configuration as it is.
func (s *Store) Use(name string) error {
	config, err := s.config()
	if err != nil {
		return err
	}
	if name == "default" {
		delete(config, "currentContext")
	} else {
		raw, err := json.Marshal(name)
		if err != nil {
			return err
		}
		config["currentContext"] = raw
	}
	b, err := json.MarshalIndent(config, "", "\t")
	if err != nil {
		return err
	}
	path := s.configPath()
	if target, err := filepath.EvalSymlinks(path); err == nil { // people link it to where they keep such files
		path = target
	}
	mode := os.FileMode(0o600) // it may hold registry passwords
	if info, err := os.Stat(path); err == nil {
		mode = info.Mode().Perm()
	}
	return write(path, append(b, '\n'), mode)
}

func (s *Store) configPath() string { return filepath.Join(s.dir, "config.json") }

func (s *Store) config() (map[string]json.RawMessage, error) {
	config := map[string]json.RawMessage{}
	b, err := os.ReadFile(s.configPath())
	if errors.Is(err, fs.ErrNotExist) {
		return config, nil
	}
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(b, &config); err != nil {
		return nil, fmt.Errorf("%s: %w", s.configPath(), err)
	}
	return config, nil
}
