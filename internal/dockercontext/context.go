// Package dockercontext keeps docker contexts that berth made: written where the docker CLI looks for them, marked as ours,
// and never touching one that somebody else made.
//
// The files are docker/cli's context store: contexts/meta/<sha256 of the name>/meta.json and contexts/tls/<same>/docker/
// below the client's configuration folder. The library that writes them brings the whole CLI with it, for two small files.
package dockercontext

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/google/renameio/v2/maybe"
)

// Context is an endpoint that `docker context use` can switch to.
type Context struct {
	Name        string
	Description string
	Host        string // unix:///…, tcp://…, ssh://…
	// The client's certificates in PEM; all three or none.
	CA, Cert, Key []byte
}

// ErrForeign says that a context of that name exists and is not ours.
var ErrForeign = errors.New("a docker context of this name exists that berth did not make")

// mark tells our contexts from others'; docker keeps metadata that it does not know.
const mark = "com.berth.managed"

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
	if ours, err := s.ours(c.Name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	} else if err == nil && !ours {
		return ErrForeign
	}
	m := meta{
		Name:      c.Name,
		Metadata:  map[string]any{"Description": c.Description, mark: true},
		Endpoints: map[string]endpoint{"docker": {Host: c.Host}},
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

func write(path string, b []byte, mode os.FileMode) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	return maybe.WriteFile(path, b, mode)
}

// ours tells whether a context exists and carries our mark.
func (s *Store) ours(name string) (bool, error) {
	b, err := os.ReadFile(filepath.Join(s.metaDir(name), "meta.json"))
	if err != nil {
		return false, err
	}
	var m meta
	if err := json.Unmarshal(b, &m); err != nil {
		return false, nil //nolint:nilerr // whatever it is, we did not write it
	}
	managed, _ := m.Metadata[mark].(bool)
	return managed, nil
}

// Remove takes a context of ours away, and switches back to the default one if it was in use. One that is gone, or that
// somebody else made, is left as it is.
func (s *Store) Remove(name string) error {
	ours, err := s.ours(name)
	if errors.Is(err, fs.ErrNotExist) || err == nil && !ours {
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
	mode := os.FileMode(0o600) // it may hold registry passwords
	if info, err := os.Stat(s.configPath()); err == nil {
		mode = info.Mode().Perm()
	}
	return write(s.configPath(), append(b, '\n'), mode)
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
