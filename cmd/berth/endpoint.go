package main

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"berth/internal/api"
)

// endpointFlags say where the endpoint is.
type endpointFlags struct {
	host string
	tls  tlsFlags
}

func (o *endpointFlags) add(f *pflag.FlagSet) {
	f.StringVarP(&o.host, "host", "H", "", "The endpoint: unix:///path or tcp://host:port [$BERTH_HOST] (default where berth serve listens)")
	f.BoolVar(&o.tls.enable, "tls", false, "Use TLS; with --tlsverify verify the endpoint")
	f.BoolVar(&o.tls.verify, "tlsverify", false, "Use TLS and verify the endpoint")
	f.StringVar(&o.tls.ca, "tlscacert", "", "Trust an endpoint signed by this authority only")
	f.StringVar(&o.tls.cert, "tlscert", "", "Certificate to show to the endpoint")
	f.StringVar(&o.tls.key, "tlskey", "", "Its private key")
}

// endpoint is where the question goes.
func (o *endpointFlags) endpoint() (*fleetEndpoint, error) {
	host := cmp.Or(o.host, os.Getenv("BERTH_HOST"), "unix://"+defaultSocket())
	config, err := o.tls.client()
	if err != nil {
		return nil, err
	}
	return openEndpoint(host, config)
}

// fleetEndpoint is what `berth serve` serves, seen by its clients.
type fleetEndpoint struct {
	host      string // as the user wrote it
	base      string // http://… for requests
	transport *http.Transport
}

func openEndpoint(host string, config *tls.Config) (*fleetEndpoint, error) {
	network, addr, found := strings.Cut(host, "://")
	if !found {
		network, addr, host = "tcp", host, "tcp://"+host
	}
	d := net.Dialer{Timeout: 5 * time.Second}
	e := &fleetEndpoint{host: host, base: "http://docker", transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return d.DialContext(ctx, network, addr) },
	}}
	switch {
	case network == "unix" && addr != "":
	case network == "tcp" && addr != "":
		e.base = "http://" + addr
		if config != nil {
			e.base, e.transport.TLSClientConfig = "https://"+addr, config
		}
		if _, err := url.Parse(e.base); err != nil {
			return nil, fmt.Errorf("-H %s: want unix:///path or tcp://host:port", host)
		}
	default:
		return nil, fmt.Errorf("-H %s: want unix:///path or tcp://host:port", host)
	}
	return e, nil
}

func (e *fleetEndpoint) close() { e.transport.CloseIdleConnections() }

// do makes one request; what was said wrong is an error.
func (e *fleetEndpoint) do(ctx context.Context, method, path string, header http.Header, body, answer any) error {
	b, err := json.Marshal(body)
	if err != nil {
		return err
	}
	r, err := http.NewRequestWithContext(ctx, method, e.base+path, bytes.NewReader(b))
	if err != nil {
		return err
	}
	for k, v := range header {
		r.Header[k] = v
	}
	r.Header.Set("Content-Type", "application/json")
	res, err := (&http.Client{Transport: e.transport}).Do(r)
	if err != nil {
		return e.unreachable(err)
	}
	defer res.Body.Close()
	b, err = io.ReadAll(res.Body)
	if err != nil {
		return fmt.Errorf("%s: %s: %w", e.host, path, err)
	}
	if res.StatusCode != http.StatusOK {
		return e.refusal(res.StatusCode, b)
	}
	if answer == nil {
		return nil
	}
	if err := json.Unmarshal(b, answer); err != nil {
		return fmt.Errorf("%s: %s: %w", e.host, path, err)
	}
	return nil
}

func (e *fleetEndpoint) unreachable(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		err = u.Err
	}
	return fmt.Errorf("nobody serves at %s: %w\nStart it with berth serve, or say where it is with -H or BERTH_HOST", e.host, err)
}

func (e *fleetEndpoint) refusal(status int, body []byte) error {
	var m struct{ Message string }
	if err := json.Unmarshal(body, &m); err != nil || m.Message == "" {
		m.Message = strings.TrimSpace(string(body))
	}
	if status == http.StatusNotFound && m.Message == "page not found" {
		return fmt.Errorf("%s is not served by berth, or by one that is too old to tell: %s", e.host, m.Message)
	}
	return errors.New(m.Message)
}

// rehearse asks where containers would go. version is "/v1.NN" or "".
func (e *fleetEndpoint) rehearse(ctx context.Context, version string, header http.Header, ask api.Rehearsal) ([]api.Placement, error) {
	var out struct{ Placements []api.Placement }
	if err := e.do(ctx, http.MethodPost, version+"/berth/place", header, ask, &out); err != nil {
		return nil, err
	}
	if len(out.Placements) != len(ask.Requests) {
		return nil, fmt.Errorf("%s: asked for %d containers, told of %d", e.host, len(ask.Requests), len(out.Placements))
	}
	return out.Placements, nil
}
