package machine

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"berth/internal/atomicfile"
	"berth/internal/cert"
)

// Import makes a machine of the store out of an archive, under a name that is free. The paths in its record become this store's. Its
// certificates stay its own, beside the store's: the engine trusts no others.
func Import(s *Store, a *Archive, name string) error {
	if err := s.CheckNew(name); err != nil {
		return err
	}
	m, err := a.machine(s, name)
	if err != nil {
		return fmt.Errorf("import %s: %w", name, err)
	}
	if err := s.reserve(name); err != nil {
		return err
	}
	release, err := s.claim(name)
	if err != nil {
		return errors.Join(err, s.forget(name))
	}
	defer release()
	if err := s.unpack(a, m); err != nil {
		return errors.Join(fmt.Errorf("import %s: %w", name, err), s.forget(name))
	}
	return nil
}

// unpack writes the files and, last, the record: a machine that can be read has all of it.
func (s *Store) unpack(a *Archive, m *Machine) error {
	dir := s.MachineDir(m.Name)
	for name, data := range a.files {
		if err := atomicfile.Write(filepath.Join(dir, name), data, 0o600); err != nil {
			return err
		}
	}
	if a.caKey != nil && filepath.Dir(m.Auth.CaPrivateKeyPath) == dir {
		if err := atomicfile.Write(m.Auth.CaPrivateKeyPath, a.caKey, 0o600); err != nil {
			return err
		}
	}
	return s.Save(m)
}

// machine is the record as it is to be in this store.
func (a *Archive) machine(s *Store, name string) (*Machine, error) {
	dir := s.MachineDir(name)
	m, err := parse(name, dir, a.record)
	if err != nil {
		return nil, err
	}
	move := a.mover(m, s.dir, dir)
	if m.Instance.Raw, err = moveStrings(m.Instance.Raw, move); err != nil {
		return nil, err
	}
	m.Instance.SSHKeyPath = move(m.Instance.SSHKeyPath)
	if m.Instance.Whole {
		if err := keepKeyPath(&m.Instance); err != nil {
			return nil, err
		}
	}
	m.Auth, err = a.auth(s, m.Auth, dir)
	return m, err
}

// mover gives a path its new place, if it was in the machine's folder or the store's. The record may know an older place of them than
// the archive's note: a store can be moved.
func (a *Archive) mover(m *Machine, store, dir string) func(string) string {
	var base driverBase
	_ = m.doc.read("Driver", &base) // parse has read it
	type move struct{ from, to string }
	var moves []move
	for _, from := range []string{a.note.Machine, m.Auth.StorePath} {
		moves = append(moves, move{from, dir})
	}
	for _, from := range []string{a.note.Store, base.StorePath} {
		moves = append(moves, move{from, store})
	}
	return func(p string) string {
		for _, m := range moves {
			rest, ok := strings.CutPrefix(p, m.from)
			if m.from == "" || !ok || rest != "" && !strings.ContainsAny(rest[:1], `/\`) {
				continue
			}
			parts := strings.FieldsFunc(rest, func(r rune) bool { return r == '/' || r == '\\' })
			if slices.Contains(parts, "..") {
				continue
			}
			return filepath.Join(append([]string{m.to}, parts...)...)
		}
		return p
	}
}

// moveStrings gives every string in a JSON text its new place. Numbers stay as they are, however long.
func moveStrings(raw json.RawMessage, move func(string) string) (json.RawMessage, error) {
	if len(raw) == 0 {
		return raw, nil
	}
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.UseNumber()
	var v any
	if err := dec.Decode(&v); err != nil {
		return nil, err
	}
	return json.Marshal(moveIn(v, move))
}

func moveIn(v any, move func(string) string) any {
	switch v := v.(type) {
	case string:
		return move(v)
	case []any:
		for i := range v {
			v[i] = moveIn(v[i], move)
		}
	case map[string]any:
		for k := range v {
			v[k] = moveIn(v[k], move)
		}
	}
	return v
}

// keepKeyPath writes into a driver's object where the machine's key is: drivers work it out from the machine's name where they are not
// told, and the name may be another now.
func keepKeyPath(i *Instance) error {
	object := object{}
	if err := json.Unmarshal(i.Raw, &object); err != nil {
		return err
	}
	var there string
	if err := object.read("SSHKeyPath", &there); err != nil || there != "" || i.SSHKeyPath == "" {
		return err
	}
	if err := object.set("SSHKeyPath", i.SSHKeyPath); err != nil {
		return err
	}
	raw, err := json.Marshal(object)
	i.Raw, i.Stored = raw, raw
	return err
}

// auth is where the certificates are: the store's, if the machine has the same authority, else the machine's own.
func (a *Archive) auth(s *Store, old AuthOptions, dir string) (AuthOptions, error) {
	auth := AuthOptions{
		CaCertRemotePath: old.CaCertRemotePath, ServerCertRemotePath: old.ServerCertRemotePath,
		ServerKeyRemotePath: old.ServerKeyRemotePath, ServerCertSANs: old.ServerCertSANs,
		ServerCertPath: filepath.Join(dir, "server.pem"), ServerKeyPath: filepath.Join(dir, "server-key.pem"), StorePath: dir,
	}
	ca, has := a.files["ca.pem"]
	if !has { // it is not reached over TLS
		return s.centralAuth(auth), nil
	}
	if _, err := cert.Expiry(ca); err != nil {
		return auth, fmt.Errorf("certificate authority: %w", err)
	}
	central := s.centralAuth(auth)
	if mine, err := os.ReadFile(central.CaCertPath); err == nil && bytes.Equal(mine, ca) {
		return central, nil
	}
	auth.CertDir = s.CertDir()
	auth.CaCertPath, auth.CaPrivateKeyPath = filepath.Join(dir, "ca.pem"), filepath.Join(dir, authorityKey)
	auth.ClientCertPath, auth.ClientKeyPath = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	return auth, nil
}
