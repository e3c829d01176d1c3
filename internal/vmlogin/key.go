// Package vmlogin is the way into a virtual machine that was just made: a key for it, and waiting until its sshd and its engine answer.
// It knows no hypervisor; whether a machine that does not answer still lives, its driver says.
package vmlogin

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"os"
	"strings"

	"golang.org/x/crypto/ssh"
)

// NewKey writes a key pair, the public half beside the private one as path.pub, and returns the public half as authorized_keys has it.
func NewKey(path, comment string) (string, error) {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return "", err
	}
	block, err := ssh.MarshalPrivateKey(private, comment)
	if err != nil {
		return "", err
	}
	key, err := ssh.NewPublicKey(public)
	if err != nil {
		return "", err
	}
	line := strings.TrimSuffix(string(ssh.MarshalAuthorizedKey(key)), "\n") + " " + comment
	return line, errors.Join(os.WriteFile(path, pem.EncodeToMemory(block), 0o600), os.WriteFile(path+".pub", []byte(line+"\n"), 0o600))
}
