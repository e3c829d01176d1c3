package ssh

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"slices"
	"strings"

	gossh "golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"
)

// AuthError is a host that let none of our keys in.
type AuthError struct {
	User, Address string
	Offered       []string // what was tried, as a user would name it
	Unusable      []string // what could not be tried, and why
	Cause         error
}

func (e *AuthError) Error() string {
	text := fmt.Sprintf("%s does not let %s in", e.Address, e.User)
	if len(e.Offered) == 0 {
		text += ": there was no key to offer"
	} else {
		text += " with " + strings.Join(e.Offered, ", ")
	}
	if len(e.Unusable) > 0 {
		text += "; not used: " + strings.Join(e.Unusable, ", ")
	}
	return fmt.Sprintf("%s (%v)", text, e.Cause)
}

func (e *AuthError) Unwrap() error { return e.Cause }

// credentials are the keys to offer, in order.
type credentials struct {
	signers  []gossh.Signer
	offered  []string
	unusable []string
	agent    net.Conn // nil without an agent; it signs, so it stays open during the handshake
}

// gather finds the keys. Trouble with one that nobody insists on is remembered for the error that may follow.
func (s *settings) gather(ctx context.Context) (*credentials, error) {
	c := &credentials{}
	held := c.askAgent(ctx, s.agent)
	if s.agentFirst && !s.identitiesOnly {
		c.addAll(held)
	}
	for _, f := range s.keyFiles {
		if err := c.addFile(f, held); err != nil {
			c.close()
			return nil, err
		}
	}
	if !s.identitiesOnly {
		c.addAll(held)
	}
	return c, nil
}

func (c *credentials) close() {
	if c.agent != nil {
		c.agent.Close() //nolint:errcheck // nothing was written that could be lost
	}
}

func (c *credentials) skip(format string, args ...any) {
	c.unusable = append(c.unusable, fmt.Sprintf(format, args...))
}

func (c *credentials) askAgent(ctx context.Context, socket string) []gossh.Signer {
	if socket == "" {
		return nil
	}
	conn, err := new(net.Dialer).DialContext(ctx, "unix", socket)
	if err != nil {
		c.skip("the ssh-agent (%v)", err)
		return nil
	}
	if deadline, has := ctx.Deadline(); has {
		if err := conn.SetDeadline(deadline); err != nil {
			c.skip("the ssh-agent (%v)", err)
		}
	}
	c.agent = conn
	held, err := agent.NewClient(conn).Signers()
	if err != nil {
		c.skip("the ssh-agent at %s (%v)", socket, err)
	}
	return held
}

func (c *credentials) addAll(held []gossh.Signer) {
	for _, s := range held {
		c.add(s, "the agent's key "+describe(s.PublicKey()))
	}
}

// add keeps the first of several ways to use one key: servers count the attempts.
func (c *credentials) add(s gossh.Signer, name string) {
	for _, have := range c.signers {
		if bytes.Equal(have.PublicKey().Marshal(), s.PublicKey().Marshal()) {
			return
		}
	}
	c.signers = append(c.signers, s)
	c.offered = append(c.offered, name)
}

func (c *credentials) addFile(f keyFile, held []gossh.Signer) error {
	signer, err := readKey(f.path, held)
	switch {
	case err == nil:
		c.add(signer, fmt.Sprintf("%s (%s)", f.path, describe(signer.PublicKey())))
	case f.required:
		return fmt.Errorf("key %s: %w", f.path, err)
	case !errors.Is(err, os.ErrNotExist):
		c.skip("%s (%v)", f.path, err)
	}
	return nil
}

// readKey reads a private key, or finds in the agent the one that the file keeps behind a passphrase.
func readKey(path string, held []gossh.Signer) (gossh.Signer, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, errors.Unwrap(err) // without the path, which the caller names
	}
	content, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	signer, err := gossh.ParsePrivateKey(content)
	if locked, ok := errors.AsType[*gossh.PassphraseMissingError](err); ok {
		return unlocked(path, locked.PublicKey, held)
	}
	if err != nil {
		return nil, fmt.Errorf("it is not a private key: %w", err)
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 && runtime.GOOS != "windows" {
		return nil, fmt.Errorf("others can read it (mode %04o): chmod 600 %s", mode, path)
	}
	return signer, nil
}

func unlocked(path string, public gossh.PublicKey, held []gossh.Signer) (gossh.Signer, error) {
	if public == nil { // the older formats say nothing outside; the other half stands beside
		if line, err := os.ReadFile(path + ".pub"); err == nil {
			if public, _, _, _, err = gossh.ParseAuthorizedKey(line); err != nil {
				return nil, fmt.Errorf("%s.pub: %w", path, err)
			}
		}
	}
	if public != nil {
		i := slices.IndexFunc(held, func(s gossh.Signer) bool {
			return bytes.Equal(s.PublicKey().Marshal(), public.Marshal())
		})
		if i >= 0 {
			return held[i], nil
		}
	}
	return nil, fmt.Errorf("it is protected by a passphrase and the ssh-agent does not hold it: ssh-add %s", path)
}

// methods are what the handshake may try, in this order.
func (s *settings) methods(ctx context.Context, c *credentials, v *verifier) []gossh.AuthMethod {
	methods := []gossh.AuthMethod{gossh.PublicKeys(c.signers...)}
	if s.cfg.Password == nil || s.identitiesOnly {
		return methods
	}
	ask := func(prompt string) (string, error) {
		if v.doubtful {
			return "", errors.New("no password is sent to a host whose key changed")
		}
		answer, err := s.cfg.Password(ctx, prompt)
		if err != nil {
			return "", fmt.Errorf("password: %w", err)
		}
		return answer, nil
	}
	const tries = 3
	return append(methods,
		gossh.RetryableAuthMethod(gossh.PasswordCallback(func() (string, error) {
			return ask(s.user + "@" + s.alias + "'s password: ")
		}), tries),
		gossh.RetryableAuthMethod(gossh.KeyboardInteractive(func(_, _ string, questions []string, _ []bool) ([]string, error) {
			answers := make([]string, len(questions))
			for i, q := range questions {
				var err error
				if answers[i], err = ask(q); err != nil {
					return nil, err
				}
			}
			return answers, nil
		}), tries))
}
