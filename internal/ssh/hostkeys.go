package ssh

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"

	gossh "golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"
)

type policy int

const (
	byDefault policy = iota // unknown hosts are pinned, changed ones refused
	accept
	refuse
)

// hostKeyFiles says where the keys of known hosts are, and what to do about others.
type hostKeyFiles struct {
	own              string // read first, and the only one that is written
	user, global     []string
	unknown, changed policy
}

// HostKeyError is a host that is not, or may not be, the one that was meant.
type HostKeyError struct {
	Address string // as known_hosts files spell it
	Sent    string // type and fingerprint of the key that the host has
	Changed bool   // the host is known, with another key
	Advice  string
}

func (e *HostKeyError) Error() string {
	what := "is not known"
	if e.Changed {
		what = "CHANGED"
	}
	return fmt.Sprintf("the host key of %s %s: it is now %s; %s", e.Address, what, e.Sent, e.Advice)
}

// verifier checks the key of one host during one handshake.
type verifier struct {
	files hostKeyFiles
	log   func(string)
	addr  string
	check gossh.HostKeyCallback

	err      error // why the key was refused
	verified bool
	doubtful bool // the key is another one, and the user said to go on
}

func newVerifier(s *settings) (*verifier, error) {
	v := &verifier{files: s.hostKeys, log: s.cfg.Log, addr: strings.ToLower(s.addr())}
	var present []string
	for _, f := range slices.Concat([]string{v.files.own}, v.files.user, v.files.global) {
		if _, err := os.Stat(f); err == nil && !slices.Contains(present, f) {
			present = append(present, f)
		} else if err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, fmt.Errorf("known hosts: %w", err)
		}
	}
	check, err := knownhosts.New(present...)
	if err != nil {
		return nil, fmt.Errorf("known hosts: %w", err)
	}
	v.check = check
	return v, nil
}

// noKey is the key that nobody has: asking for it lists those that are known.
type noKey struct{}

func (noKey) Type() string                          { return none }
func (noKey) Marshal() []byte                       { return nil }
func (noKey) Verify([]byte, *gossh.Signature) error { return errors.New("no key") }

func (v *verifier) known() (keys, authorities []knownhosts.KnownKey) {
	wrong, ok := errors.AsType[*knownhosts.KeyError](v.check(v.addr, &net.TCPAddr{}, noKey{}))
	if !ok {
		return nil, nil
	}
	return split(wrong.Want)
}

// split tells keys of hosts from those of authorities that sign them, which the library does not.
func split(all []knownhosts.KnownKey) (keys, authorities []knownhosts.KnownKey) {
	for _, k := range all {
		if isAuthority(k) {
			authorities = append(authorities, k)
		} else {
			keys = append(keys, k)
		}
	}
	return keys, authorities
}

func isAuthority(k knownhosts.KnownKey) bool {
	content, err := os.ReadFile(k.Filename)
	if err != nil { // gone since it was read: an ordinary key is the stricter reading
		return false
	}
	n := 0
	for line := range bytes.Lines(content) {
		if n++; n == k.Line {
			return bytes.HasPrefix(bytes.TrimSpace(line), []byte("@cert-authority"))
		}
	}
	return false
}

// algorithms is what to ask the host for: first the kinds of key that are known of it. A host that has several would
// otherwise be free to show one that is not known. Certificates are asked for where an authority is known.
func (v *verifier) algorithms() []string {
	keys, authorities := v.known()
	var certs, known, other []string
	for _, a := range gossh.SupportedAlgorithms().HostKeys {
		switch {
		case strings.Contains(a, "-cert-v01@"):
			if len(authorities) > 0 {
				certs = append(certs, a)
			}
		case slices.ContainsFunc(keys, func(k knownhosts.KnownKey) bool { return usedBy(a, k.Key.Type()) }):
			known = append(known, a)
		default:
			other = append(other, a)
		}
	}
	return slices.Concat(certs, known, other)
}

// usedBy is true if keys of that type sign with the algorithm.
func usedBy(algorithm, keyType string) bool {
	if keyType == gossh.KeyAlgoRSA {
		return algorithm == gossh.KeyAlgoRSASHA256 || algorithm == gossh.KeyAlgoRSASHA512
	}
	return algorithm == keyType
}

// verify is the handshake's host key callback.
func (v *verifier) verify(_ string, _ net.Addr, key gossh.PublicKey) error {
	v.err = v.judge(v.check(v.addr, &net.TCPAddr{}, key), key)
	v.verified = v.err == nil
	return v.err
}

func (v *verifier) judge(err error, key gossh.PublicKey) error {
	wrong, ok := errors.AsType[*knownhosts.KeyError](err)
	if !ok {
		return err // nil, a revoked key, or a certificate nobody vouches for
	}
	found := &HostKeyError{Address: knownhosts.Normalize(v.addr), Sent: describe(key)}
	keys, _ := split(wrong.Want)
	if len(keys) > 0 {
		return v.judgeChanged(found, keys)
	}
	if v.files.unknown == refuse {
		found.Advice = fmt.Sprintf("StrictHostKeyChecking is yes: if that is the right key, add the line %q to %s",
			knownhosts.Line([]string{v.addr}, key), v.files.own)
		return found
	}
	return v.pin(key)
}

func (v *verifier) judgeChanged(found *HostKeyError, keys []knownhosts.KnownKey) error {
	found.Changed = true
	var where []string
	for _, k := range keys {
		where = append(where, fmt.Sprintf("%s:%d has %s", k.Filename, k.Line, describe(k.Key)))
	}
	found.Advice = fmt.Sprintf("%s. Either somebody is in between, or the host was set up anew: if you know that it was, forget the old key by: "+
		"ssh-keygen -R '%s' -f '%s'", strings.Join(where, ", "), found.Address, keys[0].Filename)
	if v.files.changed == accept {
		v.doubtful = true
		v.log(found.Error() + " (going on, as StrictHostKeyChecking is no)")
		return nil
	}
	return found
}

// pin writes the key of a host that was never met before.
func (v *verifier) pin(key gossh.PublicKey) error {
	line := knownhosts.Line([]string{v.addr}, key)
	if err := appendLine(v.files.own, line); err != nil {
		return fmt.Errorf("remember the host key of %s: %w", v.addr, err)
	}
	v.log(fmt.Sprintf("the host key of %s, %s, was not known and is now in %s", v.addr, describe(key), v.files.own))
	return nil
}

func appendLine(path, line string) (err error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if size := info.Size(); size > 0 {
		last := make([]byte, 1)
		if _, err := f.ReadAt(last, size-1); err != nil {
			return err
		}
		if last[0] != '\n' {
			line = "\n" + line
		}
	}
	_, err = f.WriteString(line + "\n") // one write, so that two programs do not mix theirs
	return err
}

func describe(key gossh.PublicKey) string { return key.Type() + " " + gossh.FingerprintSHA256(key) }
