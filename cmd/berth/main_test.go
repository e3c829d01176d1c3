package main

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"berth/internal/cert"
	"berth/internal/driver/virtualbox/vboxsim"
)

func TestMain(m *testing.M) {
	if platformMain(os.Args) {
		return
	}
	testscript.Main(m, map[string]func(){
		"berth":                      main,
		"docker-machine":             main,
		"docker-machine-driver-none": main,
		"docker-berth":               main,
		"vboxsim":                    func() { os.Exit(vboxsim.Main(os.Args[1:], os.Stdin, os.Stdout, os.Stderr)) },
	})
}

// The scripts in testdata run the program as a user's shell does.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup: func(env *testscript.Env) error {
			home := filepath.Join(env.WorkDir, "home")
			env.Setenv("HOME", home)
			env.Setenv("STORE", filepath.Join(home, ".docker", "machine"))
			env.Setenv("SHELL", "/bin/bash")
			env.Setenv("USER", "jo")
			env.Setenv("GORACE", "atexit_sleep_ms=0") // a race build waits a second before each exit otherwise
			return os.Mkdir(home, 0o700)
		},
		Condition: func(condition string) (bool, error) {
			if condition == "root" {
				return os.Geteuid() == 0, nil
			}
			return false, fmt.Errorf("unknown condition %q", condition)
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"engine": engineCmd,
			"hang":   hangCmd,
		},
	})
}

// engineCmd starts an engine that lets the store's clients in, and puts its address into the variable named, and its port into that
// with _PORT behind.
func engineCmd(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: engine VARIABLE")
	}
	certs := filepath.Join(ts.Getenv("STORE"), "certs")
	config := &tls.Config{GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return engineTLS(certs) }}
	l, err := tls.Listen("tcp", "127.0.0.1:0", config)
	ts.Check(err)
	s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet && r.URL.Path == "/version" {
			fmt.Fprint(w, `{"Version":"29.1.2","ApiVersion":"1.52"}`) //nolint:errcheck // the test will miss it
			return
		}
		http.Error(w, `{"message":"page not found"}`, http.StatusNotFound)
	}), ErrorLog: log.New(io.Discard, "", 0)} // clients that are not let in are part of the test
	done := make(chan struct{})
	go func() { s.Serve(l); close(done) }() //nolint:errcheck // ends with Close
	ts.Defer(func() { s.Close(); <-done })  //nolint:errcheck // nothing is served any more
	_, port, err := net.SplitHostPort(l.Addr().String())
	ts.Check(err)
	ts.Setenv(args[0], l.Addr().String())
	ts.Setenv(args[0]+"_PORT", port)
}

// engineTLS reads the store's authority at each handshake: it is made after the engine was started.
func engineTLS(certs string) (*tls.Config, error) {
	ca := cert.Pair{}
	var err error
	if ca.Cert, err = os.ReadFile(filepath.Join(certs, "ca.pem")); err != nil {
		return nil, err
	}
	if ca.Key, err = os.ReadFile(filepath.Join(certs, "ca-key.pem")); err != nil {
		return nil, err
	}
	server, err := cert.NewServer(ca, "test", []string{"127.0.0.1"})
	if err != nil {
		return nil, err
	}
	pair, err := tls.X509KeyPair(server.Cert, server.Key)
	if err != nil {
		return nil, err
	}
	clients := x509.NewCertPool()
	clients.AppendCertsFromPEM(ca.Cert)
	return &tls.Config{Certificates: []tls.Certificate{pair}, ClientCAs: clients, ClientAuth: tls.RequireAndVerifyClientCert}, nil
}

// hangCmd is an engine that takes connections and never says a word.
func hangCmd(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: hang VARIABLE")
	}
	l, err := net.Listen("tcp", "127.0.0.1:0") // the kernel takes the connection, nobody else does
	ts.Check(err)
	ts.Defer(func() { l.Close() }) //nolint:errcheck // nothing is written
	ts.Setenv(args[0], l.Addr().String())
}
