// Package cert makes the certificates that a machine's engine and its clients know each other by: an authority for a
// store, a server certificate for an engine, a client certificate for a user. Bytes in, bytes out: it knows no files, no
// machines and no network.
//
// Keys are ECDSA P-256 in the SEC 1 form, or RSA 2048 in the PKCS #1 form that docker-machine wrote; OpenSSL, Go and Java read both.
// An authority may be any that Go can sign with, so docker-machine's RSA ones go on working.
package cert

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"regexp"
	"strings"
	"time"
)

const (
	// validity is docker-machine's: long enough for a machine's life, short enough for every client to accept.
	validity = 1080 * 24 * time.Hour
	// backdating lets a machine whose clock is a little late accept what was just made.
	backdating = 5 * time.Minute
	serialBits = 128
	rsaBits    = 2048
)

// Keys is the kind of key that a certificate is made for. The zero value is ECDSA.
type Keys string

// The kinds there are.
const (
	ECDSA Keys = "ecdsa"
	RSA   Keys = "rsa"
)

// ParseKeys reads a kind as users write it.
func ParseKeys(s string) (Keys, error) {
	switch k := Keys(strings.ToLower(s)); k {
	case "", ECDSA, RSA:
		return k, nil
	}
	return "", fmt.Errorf("keys of type %q: want ecdsa or rsa", s)
}

// KeysOf is the kind of key that a certificate was made for; "" for one that is neither, or no certificate.
func KeysOf(certPEM []byte) Keys {
	c, err := parse(certPEM)
	if err != nil {
		return ""
	}
	switch c.PublicKeyAlgorithm {
	case x509.RSA:
		return RSA
	case x509.ECDSA:
		return ECDSA
	}
	return ""
}

func (k Keys) generate() (crypto.Signer, error) {
	if k == RSA {
		return rsa.GenerateKey(rand.Reader, rsaBits)
	}
	return ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
}

// encodeKey is the PEM block of a key that generate made.
func encodeKey(key crypto.Signer) (*pem.Block, error) {
	if k, ok := key.(*rsa.PrivateKey); ok {
		return &pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(k)}, nil
	}
	k, ok := key.(*ecdsa.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("a key of type %T", key)
	}
	der, err := x509.MarshalECPrivateKey(k)
	return &pem.Block{Type: "EC PRIVATE KEY", Bytes: der}, err
}

// Pair is a certificate and its private key, both PEM.
type Pair struct{ Cert, Key []byte }

// NewAuthority makes a self-signed authority, which signs servers and clients.
func NewAuthority(org string) (Pair, error) { return ECDSA.NewAuthority(org) }

// NewAuthority is the package's, with keys of this kind.
func (k Keys) NewAuthority(org string) (Pair, error) {
	template, err := newTemplate(org, "berth authority")
	if err != nil {
		return Pair{}, fmt.Errorf("authority: %w", err)
	}
	template.BasicConstraintsValid = true
	template.IsCA = true
	template.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageCRLSign | x509.KeyUsageDigitalSignature
	key, err := k.generate()
	if err != nil {
		return Pair{}, fmt.Errorf("authority: make key: %w", err)
	}
	p, err := sign(template, template, key, key)
	if err != nil {
		return Pair{}, fmt.Errorf("authority: %w", err)
	}
	return p, nil
}

// Renew makes an authority valid anew. Its key and its name stay, so that what it signed before goes on being trusted by who has
// the new certificate, and what it signs from now on by who still has the old one.
func Renew(ca Pair) (Pair, error) {
	old, signer, err := readAuthority(ca)
	if err != nil {
		return Pair{}, fmt.Errorf("renew authority: %w", err)
	}
	if !bytes.Equal(old.RawIssuer, old.RawSubject) {
		return Pair{}, fmt.Errorf("renew authority: %s signed it, and must renew it", old.Issuer)
	}
	template := *old
	fresh, err := newTemplate("", "")
	if err != nil {
		return Pair{}, fmt.Errorf("renew authority: %w", err)
	}
	template.SerialNumber, template.NotBefore, template.NotAfter = fresh.SerialNumber, fresh.NotBefore, fresh.NotAfter
	template.SignatureAlgorithm = x509.UnknownSignatureAlgorithm // today's best for the key
	der, err := x509.CreateCertificate(rand.Reader, &template, &template, signer.Public(), signer)
	if err != nil {
		return Pair{}, fmt.Errorf("renew authority: sign: %w", err)
	}
	return Pair{Cert: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), Key: ca.Key}, nil
}

// NewServer makes an engine's certificate. Each host is an IPv4 or IPv6 address or a DNS name, and only those are covered:
// the caller adds localhost where it wants it.
func NewServer(ca Pair, org string, hosts []string) (Pair, error) {
	return ECDSA.NewServer(ca, org, hosts)
}

// NewServer is the package's, with keys of this kind.
func (k Keys) NewServer(ca Pair, org string, hosts []string) (Pair, error) {
	return k.newServer(ca, org, hosts, x509.ExtKeyUsageServerAuth)
}

// NewManager makes a certificate as NewServer does, which its owner may show to other engines, too, as their client.
func (k Keys) NewManager(ca Pair, org string, hosts []string) (Pair, error) {
	return k.newServer(ca, org, hosts, x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth)
}

func (k Keys) newServer(ca Pair, org string, hosts []string, uses ...x509.ExtKeyUsage) (Pair, error) {
	if len(hosts) == 0 {
		return Pair{}, errors.New("server certificate: no address or name to make it for")
	}
	template, err := newTemplate(org, "berth engine")
	if err != nil {
		return Pair{}, fmt.Errorf("server certificate: %w", err)
	}
	template.KeyUsage = x509.KeyUsageDigitalSignature
	template.ExtKeyUsage = uses
	for _, h := range hosts {
		if err := addHost(template, h); err != nil {
			return Pair{}, fmt.Errorf("server certificate: %w", err)
		}
	}
	p, err := issue(ca, template, k)
	if err != nil {
		return Pair{}, fmt.Errorf("server certificate: %w", err)
	}
	return p, nil
}

// NewClient makes the certificate that a client shows to every engine of its authority.
func NewClient(ca Pair, org string) (Pair, error) { return ECDSA.NewClient(ca, org) }

// NewClient is the package's, with keys of this kind.
func (k Keys) NewClient(ca Pair, org string) (Pair, error) {
	template, err := newTemplate(org, "berth client")
	if err != nil {
		return Pair{}, fmt.Errorf("client certificate: %w", err)
	}
	template.KeyUsage = x509.KeyUsageDigitalSignature
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	p, err := issue(ca, template, k)
	if err != nil {
		return Pair{}, fmt.Errorf("client certificate: %w", err)
	}
	return p, nil
}

// Expiry is the moment after which the certificate is no longer valid.
func Expiry(certPEM []byte) (time.Time, error) {
	c, err := parse(certPEM)
	if err != nil {
		return time.Time{}, err
	}
	return c.NotAfter, nil
}

// Covers says whether an engine at host (an address or a name, without a port) may show this certificate now. nil is yes;
// the error says what is wrong with it.
func Covers(certPEM []byte, host string) error {
	c, err := parse(certPEM)
	if err != nil {
		return err
	}
	switch now := time.Now(); {
	case now.Before(c.NotBefore):
		return fmt.Errorf("certificate is not valid before %s", c.NotBefore.Format(time.RFC3339))
	case now.After(c.NotAfter):
		return fmt.Errorf("certificate expired on %s", c.NotAfter.Format(time.RFC3339))
	}
	return c.VerifyHostname(host)
}

func newTemplate(org, role string) (*x509.Certificate, error) {
	serial, err := newSerial()
	if err != nil {
		return nil, err
	}
	now := time.Now()
	return &x509.Certificate{
		SerialNumber: serial,
		// The role keeps an authority's subject apart from those it signs, also where all have the same organisation:
		// OpenSSL takes a certificate whose subject is its issuer for a self-signed one.
		Subject:   pkix.Name{Organization: []string{org}, CommonName: role},
		NotBefore: now.Add(-backdating),
		NotAfter:  now.Add(validity),
	}, nil
}

// newSerial is never zero, which strict verifiers refuse.
func newSerial() (*big.Int, error) {
	for {
		n, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), serialBits))
		if err != nil {
			return nil, fmt.Errorf("make serial number: %w", err)
		}
		if n.Sign() > 0 {
			return n, nil
		}
	}
}

// dnsName is what a host name may be made of; a star may stand for its first label.
var dnsName = regexp.MustCompile(`^(\*\.)?[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?(\.[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?)*\.?$`)

func addHost(c *x509.Certificate, host string) error {
	if inner, ok := strings.CutPrefix(host, "["); ok && strings.HasSuffix(inner, "]") { // as it stands in a URL
		host = strings.TrimSuffix(inner, "]")
		if !strings.Contains(host, ":") {
			return fmt.Errorf("%q is no IPv6 address", host)
		}
	}
	if ip := net.ParseIP(host); ip != nil {
		c.IPAddresses = append(c.IPAddresses, ip)
		return nil
	}
	if len(host) > 253 || !dnsName.MatchString(host) {
		return fmt.Errorf("%q is neither an IP address nor a host name", host)
	}
	c.DNSNames = append(c.DNSNames, host)
	return nil
}

// readAuthority takes an authority apart.
func readAuthority(ca Pair) (*x509.Certificate, crypto.Signer, error) {
	authority, err := tls.X509KeyPair(ca.Cert, ca.Key)
	if err != nil {
		return nil, nil, err
	}
	signer, ok := authority.PrivateKey.(crypto.Signer)
	switch {
	case !ok:
		return nil, nil, fmt.Errorf("a key of type %T cannot sign", authority.PrivateKey)
	case !authority.Leaf.IsCA:
		return nil, nil, errors.New("its certificate is not an authority's")
	}
	return authority.Leaf, signer, nil
}

// issue signs template with the authority. Nothing is signed to outlive it: that would only move the surprise to a day when
// every machine fails at once.
func issue(ca Pair, template *x509.Certificate, keys Keys) (Pair, error) {
	parent, signer, err := readAuthority(ca)
	if err != nil {
		return Pair{}, fmt.Errorf("read authority: %w", err)
	}
	if time.Now().After(parent.NotAfter) {
		return Pair{}, fmt.Errorf("authority expired on %s", parent.NotAfter.Format(time.RFC3339))
	}
	if template.NotAfter.After(parent.NotAfter) {
		template.NotAfter = parent.NotAfter
	}
	key, err := keys.generate()
	if err != nil {
		return Pair{}, fmt.Errorf("make key: %w", err)
	}
	if keys == RSA { // docker-machine's, for clients that know no better
		template.KeyUsage |= x509.KeyUsageKeyEncipherment
	}
	return sign(template, parent, key, signer)
}

// sign makes key's certificate, signed by parent's signer.
func sign(template, parent *x509.Certificate, key, signer crypto.Signer) (Pair, error) {
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	if err != nil {
		return Pair{}, fmt.Errorf("sign: %w", err)
	}
	block, err := encodeKey(key)
	if err != nil {
		return Pair{}, fmt.Errorf("write key: %w", err)
	}
	return Pair{
		Cert: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		Key:  pem.EncodeToMemory(block),
	}, nil
}

// parse reads the first certificate of a PEM text.
func parse(certPEM []byte) (*x509.Certificate, error) {
	for rest := certPEM; ; {
		var block *pem.Block
		block, rest = pem.Decode(rest)
		if block == nil {
			return nil, errors.New("no certificate in PEM form")
		}
		if block.Type != "CERTIFICATE" {
			continue
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("read certificate: %w", err)
		}
		return c, nil
	}
}
