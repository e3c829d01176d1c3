package cert_test

import (
	"bytes"
	"cmp"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"io"
	"math/big"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"berth/internal/cert"
)

func TestMutualTLSHandshake(t *testing.T) {
	ca := must(cert.NewAuthority("alice"))(t)
	server := must(cert.NewServer(ca, "alice.web1", []string{"127.0.0.1", "::1", "localhost"}))(t)
	client := must(cert.NewClient(ca, "alice.<bootstrap>"))(t)
	other := must(cert.NewAuthority("alice"))(t)
	stranger := must(cert.NewClient(other, "alice.<bootstrap>"))(t)

	for name, tt := range map[string]struct {
		show, trust cert.Pair
		as          string
		want        string // part of the error; "" for success
	}{
		"by address":                       {client, ca, "127.0.0.1", ""},
		"by IPv6 address":                  {client, ca, "::1", ""},
		"by name":                          {client, ca, "localhost", ""},
		"another name is refused":          {client, ca, "web2", "not web2"},
		"another address is refused":       {client, ca, "127.0.0.2", "not 127.0.0.2"},
		"another authority's client":       {stranger, ca, "localhost", "remote error"},
		"no client certificate":            {cert.Pair{}, ca, "localhost", "remote error"},
		"a server of an unknown authority": {client, other, "localhost", "unknown authority"},
		"a server certificate as client's": {server, ca, "localhost", "remote error"},
	} {
		t.Run(name, func(t *testing.T) {
			err := handshake(t, server, ca, tt.show, tt.trust, tt.as)
			switch {
			case tt.want == "" && err != nil:
				t.Errorf("handshake: %v", err)
			case tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)):
				t.Errorf("handshake = %v, want an error with %q", err, tt.want)
			}
		})
	}
}

// handshake talks as a client to an engine-like server over loopback; the error is the client's.
func handshake(t *testing.T, server, serverTrusts, client, clientTrusts cert.Pair, as string) error {
	t.Helper()
	listener, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{
		Certificates: []tls.Certificate{keyPair(t, server)},
		ClientAuth:   tls.RequireAndVerifyClientCert,
		ClientCAs:    pool(t, serverTrusts),
		MinVersion:   tls.VersionTLS12,
	})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		c, err := listener.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		if _, err := io.Copy(c, c); err != nil { // a refused client is seen at the client's side, once it has read why
			_, _ = io.Copy(io.Discard, c.(*tls.Conn).NetConn())
		}
	}()
	defer func() { listener.Close(); <-done }()

	config := &tls.Config{RootCAs: pool(t, clientTrusts), ServerName: as, MinVersion: tls.VersionTLS12}
	if client.Cert != nil {
		pair := keyPair(t, client)
		// Shown whatever the server asks for, as a careless client would.
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &pair, nil }
	}
	c, err := tls.Dial("tcp", listener.Addr().String(), config)
	if err != nil {
		return err
	}
	defer c.Close()
	if _, err := io.WriteString(c, "ping"); err != nil {
		return err
	}
	if err := c.CloseWrite(); err != nil {
		return err
	}
	echo, err := io.ReadAll(c)
	if err == nil && string(echo) != "ping" {
		return errors.New("echo was " + string(echo))
	}
	return err
}

func TestCertificatesSayWhatTheyAreFor(t *testing.T) {
	ca := must(cert.NewAuthority("bob"))(t)
	for name, tt := range map[string]struct {
		pair  cert.Pair
		usage x509.KeyUsage
		ext   []x509.ExtKeyUsage
		isCA  bool
	}{
		"authority": {ca, x509.KeyUsageCertSign | x509.KeyUsageCRLSign | x509.KeyUsageDigitalSignature, nil, true},
		"server":    {must(cert.NewServer(ca, "bob", []string{"h"}))(t), x509.KeyUsageDigitalSignature, []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, false},
		"manager": {
			must(cert.ECDSA.NewManager(ca, "bob", []string{"h"}))(t), x509.KeyUsageDigitalSignature,
			[]x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}, false,
		},
		"client": {must(cert.NewClient(ca, "bob"))(t), x509.KeyUsageDigitalSignature, []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}, false},
	} {
		t.Run(name, func(t *testing.T) {
			c := keyPair(t, tt.pair).Leaf
			if c.KeyUsage != tt.usage || !slices.Equal(c.ExtKeyUsage, tt.ext) || c.IsCA != tt.isCA {
				t.Errorf("usage %v %v CA %v, want %v %v %v", c.KeyUsage, c.ExtKeyUsage, c.IsCA, tt.usage, tt.ext, tt.isCA)
			}
			if got := c.Subject.Organization; len(got) != 1 || got[0] != "bob" {
				t.Errorf("organisation %v, want bob", got)
			}
			if !tt.isCA && c.Subject.String() == c.Issuer.String() {
				t.Errorf("subject is its issuer's: %s", c.Subject)
			}
			if back := time.Since(c.NotBefore); back < 5*time.Minute || back > 6*time.Minute {
				t.Errorf("valid since %s, want 5 minutes", back)
			}
			if left := time.Until(c.NotAfter).Hours() / 24; left < 1079.9 || left > 1080 {
				t.Errorf("valid for %.2f days, want 1080", left)
			}
			if c.SerialNumber.Sign() <= 0 || c.SerialNumber.BitLen() < 64 {
				t.Errorf("serial %s is not a large positive number", c.SerialNumber)
			}
		})
	}
}

func TestExpiry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca := must(cert.NewAuthority("o"))(t)
		time.Sleep(80 * 24 * time.Hour)
		server := must(cert.NewServer(ca, "o", []string{"web1"}))(t)
		caEnd := must(cert.Expiry(ca.Cert))(t)
		if end := must(cert.Expiry(server.Cert))(t); !end.Equal(caEnd) {
			t.Errorf("server ends %s, want its authority's %s", end, caEnd)
		}
		if err := cert.Covers(server.Cert, "web1"); err != nil {
			t.Errorf("covers web1: %v", err)
		}
		time.Sleep(1001 * 24 * time.Hour)
		if err := cert.Covers(server.Cert, "web1"); err == nil || !strings.Contains(err.Error(), "expired") {
			t.Errorf("covers after expiry = %v, want expired", err)
		}
		if _, err := cert.NewClient(ca, "o"); err == nil || !strings.Contains(err.Error(), "authority expired") {
			t.Errorf("client of an expired authority = %v, want a refusal", err)
		}
	})
}

func TestCoversExactlyItsHosts(t *testing.T) {
	ca := must(cert.NewAuthority("o"))(t)
	host := rapid.OneOf(
		rapid.StringMatching(`[a-z][a-z0-9]{0,8}(-[a-z0-9]{1,5})?(\.[a-z][a-z0-9]{0,5}){0,3}`),
		rapid.Map(rapid.Uint32(), func(n uint32) string {
			return netip.AddrFrom4([4]byte{byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)}).String()
		}),
		rapid.Map(rapid.SliceOfN(rapid.Byte(), 16, 16), func(b []byte) string { return netip.AddrFrom16([16]byte(b)).String() }),
	)
	rapid.Check(t, func(t *rapid.T) {
		hosts := rapid.SliceOfNDistinct(host, 2, 6, func(h string) string { return h }).Draw(t, "hosts")
		out := hosts[0]
		server, err := cert.NewServer(ca, "o", hosts[1:])
		if err != nil {
			t.Fatal(err)
		}
		for _, h := range hosts[1:] {
			if err := cert.Covers(server.Cert, h); err != nil {
				t.Fatalf("made for %s: %v", h, err)
			}
		}
		if cert.Covers(server.Cert, out) == nil && !sameAddress(out, hosts[1:]) {
			t.Fatalf("made for %v, covers %s", hosts[1:], out)
		}
	})
}

func TestBadInput(t *testing.T) {
	ca := must(cert.NewAuthority("o"))(t)
	client := must(cert.NewClient(ca, "o"))(t)
	other := must(cert.NewAuthority("o"))(t)
	for name, tt := range map[string]struct {
		make func() (cert.Pair, error)
		want string
	}{
		"no host":             {func() (cert.Pair, error) { return cert.NewServer(ca, "o", nil) }, "no address or name"},
		"empty host":          {func() (cert.Pair, error) { return cert.NewServer(ca, "o", []string{""}) }, "neither"},
		"a URL":               {func() (cert.Pair, error) { return cert.NewServer(ca, "o", []string{"tcp://h:1"}) }, "neither"},
		"a line break":        {func() (cert.Pair, error) { return cert.NewServer(ca, "o", []string{"a\nb"}) }, "neither"},
		"a long name":         {func() (cert.Pair, error) { return cert.NewServer(ca, "o", []string{strings.Repeat("a", 254)}) }, "neither"},
		"a client signs":      {func() (cert.Pair, error) { return cert.NewClient(client, "o") }, "not an authority"},
		"another one's key":   {func() (cert.Pair, error) { return cert.NewClient(cert.Pair{Cert: ca.Cert, Key: other.Key}, "o") }, "does not match"},
		"an empty authority":  {func() (cert.Pair, error) { return cert.NewClient(cert.Pair{}, "o") }, "read authority"},
		"garbage for the key": {func() (cert.Pair, error) { return cert.NewClient(cert.Pair{Cert: ca.Cert, Key: []byte("x")}, "o") }, "read authority"},
	} {
		t.Run(name, func(t *testing.T) {
			if p, err := tt.make(); err == nil || !strings.Contains(err.Error(), tt.want) || p.Cert != nil || p.Key != nil {
				t.Errorf("= %v, %v, want nothing and an error with %q", p, err, tt.want)
			}
		})
	}
}

// TestRSAAuthoritySigns: a store that docker-machine made has an RSA authority.
func TestRSAAuthoritySigns(t *testing.T) {
	key := must(rsa.GenerateKey(rand.Reader, 2048))(t)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(7), Subject: pkix.Name{Organization: []string{"carol"}}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	der := must(x509.CreateCertificate(rand.Reader, template, template, key.Public(), key))(t)
	ca := cert.Pair{
		Cert: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		Key:  pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)}),
	}
	server := must(cert.NewServer(ca, "carol.m", []string{"localhost"}))(t)
	client := must(cert.NewClient(ca, "carol.<bootstrap>"))(t)
	if err := handshake(t, server, ca, client, ca, "localhost"); err != nil {
		t.Error(err)
	}
}

// TestOpenSSLAccepts: docker-py and every other client that is not written in Go reads certificates with OpenSSL.
func TestOpenSSLAccepts(t *testing.T) {
	openssl, err := exec.LookPath("openssl")
	if err != nil {
		t.Skip("no openssl here")
	}
	ca := must(cert.NewAuthority("dave"))(t)
	server := must(cert.NewServer(ca, "dave", []string{"10.1.2.3", "localhost"}))(t)
	client := must(cert.NewClient(ca, "dave"))(t)
	dir := t.TempDir()
	write := func(name string, data []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	caFile, serverFile, clientFile := write("ca.pem", ca.Cert), write("server.pem", server.Cert), write("cert.pem", client.Cert)
	for _, args := range [][]string{
		{"verify", "-x509_strict", "-purpose", "sslserver", "-verify_ip", "10.1.2.3", "-CAfile", caFile, serverFile},
		{"verify", "-x509_strict", "-purpose", "sslclient", "-CAfile", caFile, clientFile},
		{"pkey", "-noout", "-check", "-in", write("key.pem", client.Key)},
	} {
		if out, err := exec.Command(openssl, args...).CombinedOutput(); err != nil {
			t.Errorf("openssl %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
}

func FuzzReading(f *testing.F) {
	ca, err := cert.NewAuthority("o")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(ca.Cert, "localhost")
	f.Add(append(bytes.Clone(ca.Key), ca.Cert...), "[::1]")
	f.Add([]byte("-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n"), "")
	f.Fuzz(func(t *testing.T, text []byte, host string) {
		_, expiryErr := cert.Expiry(text)
		if err := cert.Covers(text, host); err == nil && expiryErr != nil {
			t.Errorf("covers %q, but has no expiry: %v", host, expiryErr)
		}
	})
}

func must[T any](v T, err error) func(testing.TB) T {
	return func(t testing.TB) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func keyPair(t *testing.T, p cert.Pair) tls.Certificate {
	t.Helper()
	return must(tls.X509KeyPair(p.Cert, p.Key))(t)
}

func pool(t *testing.T, ca cert.Pair) *x509.CertPool {
	t.Helper()
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(ca.Cert) {
		t.Fatal("authority is no certificate")
	}
	return pool
}

// sameAddress: one address may be written in several ways, ::ffff:1.2.3.4 for one.
func sameAddress(host string, among []string) bool {
	ip := net.ParseIP(host)
	for _, h := range among {
		if ip != nil && ip.Equal(net.ParseIP(h)) {
			return true
		}
	}
	return false
}

// Engines and clients of either kind of keys talk to each other, under one authority of either kind.
func TestRSAAndECDSAMix(t *testing.T) {
	for _, authority := range []cert.Keys{cert.ECDSA, cert.RSA} {
		ca := must(authority.NewAuthority("o"))(t)
		for _, kind := range []cert.Keys{cert.ECDSA, cert.RSA, ""} {
			server := must(kind.NewServer(ca, "o", []string{"localhost"}))(t)
			client := must(kind.NewClient(ca, "o"))(t)
			if err := handshake(t, server, ca, client, ca, "localhost"); err != nil {
				t.Errorf("authority %s, server and client %s: %v", authority, kind, err)
			}
			want := "EC PRIVATE KEY"
			if kind == cert.RSA {
				want = "RSA PRIVATE KEY"
			}
			for _, p := range []cert.Pair{server, client} {
				if got := cert.KeysOf(p.Cert); got != cmp.Or(kind, cert.ECDSA) {
					t.Errorf("keys of kind %q are told to be %q", kind, got)
				}
				if block, _ := pem.Decode(p.Key); block == nil || block.Type != want {
					t.Errorf("key of kind %q is a PEM of %v, want %s", kind, block, want)
				}
			}
		}
	}
}

func TestParseKeys(t *testing.T) {
	for in, want := range map[string]cert.Keys{"": "", "rsa": cert.RSA, "RSA": cert.RSA, "ecdsa": cert.ECDSA} {
		if got, err := cert.ParseKeys(in); got != want || err != nil {
			t.Errorf("ParseKeys(%q) = %q, %v, want %q", in, got, err, want)
		}
	}
	if _, err := cert.ParseKeys("dsa"); err == nil || !strings.Contains(err.Error(), "want ecdsa or rsa") {
		t.Errorf("ParseKeys(dsa) = %v, want a refusal", err)
	}
}

// An authority that is renewed in time cuts nobody off, whichever side has the new certificate already.
func TestARenewedAuthorityIsTrustedWithTheOldOne(t *testing.T) {
	for _, kind := range []cert.Keys{cert.ECDSA, cert.RSA} {
		t.Run(string(kind), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				old := must(kind.NewAuthority("o"))(t)
				oldServer := must(cert.NewServer(old, "o", []string{"localhost"}))(t)
				oldClient := must(cert.NewClient(old, "o"))(t)
				time.Sleep(1079 * 24 * time.Hour)
				renewed := must(cert.Renew(old))(t)
				if end := must(cert.Expiry(renewed.Cert))(t); time.Until(end) < 1079*24*time.Hour {
					t.Errorf("it ends on %s, in %s", end, time.Until(end))
				}
				newServer := must(cert.NewServer(renewed, "o", []string{"localhost"}))(t)
				newClient := must(cert.NewClient(renewed, "o"))(t)
				for name, tt := range map[string]struct {
					server, client         cert.Pair
					trustServer, trustBack cert.Pair
				}{
					"a new client at an old engine":    {oldServer, newClient, renewed, old},
					"an old client at a new engine":    {newServer, oldClient, old, renewed},
					"an old client that has the new":   {oldServer, oldClient, renewed, renewed},
					"all of it new":                    {newServer, newClient, renewed, renewed},
					"an engine that has the new alone": {newServer, newClient, old, renewed},
				} {
					if err := handshake(t, tt.server, tt.trustBack, tt.client, tt.trustServer, "localhost"); err != nil {
						t.Errorf("%s: %v", name, err)
					}
				}
				time.Sleep(2 * 24 * time.Hour)
				if err := handshake(t, newServer, renewed, newClient, renewed, "localhost"); err != nil {
					t.Errorf("once the old one has expired: %v", err)
				}
				if err := handshake(t, newServer, renewed, newClient, old, "localhost"); err == nil {
					t.Error("an expired authority is still trusted")
				}
				again := must(cert.Renew(renewed))(t) // also of one that was renewed before
				if _, err := cert.Renew(cert.Pair{Cert: newServer.Cert, Key: newServer.Key}); err == nil {
					t.Error("a server's certificate was renewed as an authority")
				}
				must(cert.NewClient(again, "o"))(t)
			})
		})
	}
}

func TestIPv6(t *testing.T) {
	ca := must(cert.NewAuthority("o"))(t)
	server := must(cert.NewServer(ca, "o", []string{"fd00::1", "[2001:db8::2]", "::1"}))(t)
	for _, host := range []string{"fd00::1", "fd00:0:0::1", "[fd00::1]", "2001:db8::2", "::1"} {
		if err := cert.Covers(server.Cert, host); err != nil {
			t.Errorf("covers %s: %v", host, err)
		}
	}
	if cert.Covers(server.Cert, "fd00::2") == nil {
		t.Error("it covers fd00::2")
	}
	for _, host := range []string{"[web1]", "[fd00::1", "fd00::x"} {
		if _, err := cert.NewServer(ca, "o", []string{host}); err == nil {
			t.Errorf("made for %s", host)
		}
	}
}
