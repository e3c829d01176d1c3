package discovery

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"path"
	"slices"
	"strings"
	"time"
)

// Place is what the URL of a store and its options say: SCHEME://HOST[:PORT],HOST…[/PREFIX].
type Place struct {
	Scheme    string
	Endpoints []string // host:port
	// Nodes is where members stand, each under its address: PREFIX/docker/swarm/nodes, without a slash at its ends. Leader is the
	// key of the primary's lease, Intents that of what the operator wants of nodes.
	Nodes, Leader, Intents string
	TLS                    *tls.Config // nil without
	User                   string
	Password               string
	Token                  string
	Heartbeat              time.Duration
	Opts                   map[string]string
}

// The options that all stores have. Secrets are read from files: arguments are for all to see.
const (
	optPath     = "kv.path"
	optTTL      = "kv.ttl"
	optCA       = "kv.cacertfile"
	optCert     = "kv.certfile"
	optKey      = "kv.keyfile"
	optUser     = "kv.user"
	optPassword = "kv.password-file"
	optToken    = "kv.token-file"
)

var storeOpts = []string{optPath, optTTL, optCA, optCert, optKey, optUser, optPassword, optToken}

const (
	defaultPath = "docker/swarm/nodes"
	leaderPath  = "docker/swarm/leader"
	intentsPath = "docker/swarm/berth/intents"
)

// ParsePlace reads the URL of a store. port is the one of endpoints that name none.
func ParsePlace(rawURL, port string, o Options) (Place, error) {
	scheme, rest, _ := strings.Cut(strings.TrimSpace(rawURL), "://")
	p := Place{Scheme: strings.ToLower(scheme), Heartbeat: o.Heartbeat, Opts: o.Opts}
	if p.Heartbeat == 0 {
		p.Heartbeat = defaultHeartbeat
	}
	if strings.ContainsRune(rest, '@') {
		return p, fmt.Errorf("%s:// holds a user or a password, which URLs show to all: use --discovery-opt %s=NAME and %s=FILE", p.Scheme, optUser, optPassword)
	}
	hosts, prefix, _ := strings.Cut(rest, "/")
	for host := range strings.SplitSeq(hosts, ",") {
		if host = strings.TrimSpace(host); host == "" {
			continue
		}
		if _, _, err := net.SplitHostPort(host); err != nil {
			host = net.JoinHostPort(strings.Trim(host, "[]"), port)
		}
		if err := checkHostPort(host); err != nil {
			return p, fmt.Errorf("%s://%s: %w", p.Scheme, shorten(host), err)
		}
		p.Endpoints = append(p.Endpoints, host)
	}
	if len(p.Endpoints) == 0 {
		return p, fmt.Errorf("%s:// names no server: write %s://HOST[:%s],HOST…[/PREFIX]", p.Scheme, p.Scheme, port)
	}
	if strings.ContainsAny(prefix, "?#") || checkPrefix(prefix) != nil {
		return p, fmt.Errorf("%s:// has a prefix that is none: want names with slashes between", p.Scheme)
	}
	under := o.Opts[optPath]
	if under == "" {
		under = defaultPath
	}
	p.Nodes = strings.Trim(path.Join("/", prefix, under), "/")
	p.Leader = strings.Trim(path.Join("/", prefix, leaderPath), "/")
	p.Intents = strings.Trim(path.Join("/", prefix, intentsPath), "/")
	return p, p.secrets(o.Opts)
}

func checkPrefix(prefix string) error {
	if slices.ContainsFunc(strings.Split(prefix, "/"), func(s string) bool { return s == "." || s == ".." }) || strings.ContainsFunc(prefix, func(r rune) bool { return r <= ' ' || r == 127 }) {
		return errors.New("not a prefix")
	}
	return nil
}

func (p *Place) secrets(opts map[string]string) (err error) {
	p.User = opts[optUser]
	if p.Password, err = secretOf(opts, optPassword); err != nil {
		return err
	}
	if p.Token, err = secretOf(opts, optToken); err != nil {
		return err
	}
	if (p.User == "") != (p.Password == "") {
		return fmt.Errorf("%s and %s go together", optUser, optPassword)
	}
	p.TLS, err = clientTLS(opts)
	return err
}

// secretOf reads the file that an option names.
func secretOf(opts map[string]string, key string) (string, error) {
	if opts[key] == "" {
		return "", nil
	}
	b, err := os.ReadFile(opts[key])
	if err != nil {
		return "", fmt.Errorf("%s: %w", key, err)
	}
	secret := strings.TrimSpace(string(b))
	if secret == "" {
		return "", fmt.Errorf("%s: %s is empty", key, opts[key])
	}
	return secret, nil
}

// clientTLS is nil if no option asks for TLS.
func clientTLS(opts map[string]string) (*tls.Config, error) {
	ca, cert, key := opts[optCA], opts[optCert], opts[optKey]
	if ca == "" && cert == "" && key == "" {
		return nil, nil //nolint:nilnil // no TLS is no error
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if ca != "" {
		pem, err := os.ReadFile(ca)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", optCA, err)
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("%s: %s holds no certificate", optCA, ca)
		}
	}
	if (cert == "") != (key == "") {
		return nil, fmt.Errorf("%s and %s go together", optCert, optKey)
	}
	if cert != "" {
		pair, err := tls.LoadX509KeyPair(cert, key)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", optCert, err)
		}
		config.Certificates = []tls.Certificate{pair}
	}
	return config, nil
}

// Address takes the address of a member from what a store holds: the value, or else the key's last part.
func Address(key, value string) string {
	if value = strings.TrimSpace(value); value != "" {
		return value
	}
	return path.Base(key)
}
