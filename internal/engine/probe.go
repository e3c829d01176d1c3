package engine

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"berth/internal/fleet"
)

// bodyLimit bounds what one answer of an engine may hold; the largest real ones are lists of thousands of containers.
const bodyLimit = 256 << 20

// statusError is an answer other than 2xx.
type statusError struct {
	path    string
	status  int
	message string
}

// speaksTLS is how Go's servers, and so every engine, answer plain HTTP where they want TLS.
const speaksTLS = "Client sent an HTTP request to an HTTPS server"

func (s *statusError) Error() string {
	if s.status == http.StatusBadRequest && strings.Contains(s.message, speaksTLS) {
		return "the engine wants TLS: give the manager --tlsverify, --tlscacert, --tlscert and --tlskey"
	}
	return fmt.Sprintf("GET %s: status %d: %s", s.path, s.status, s.message)
}

func isStatus(err error) bool {
	var s *statusError
	return errors.As(err, &s)
}

func isGone(err error) bool {
	var s *statusError
	return errors.As(err, &s) && s.status == http.StatusNotFound
}

// get asks the engine for a body. The context carries the deadline.
func (e *Engine) get(ctx context.Context, path, query string) ([]byte, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://docker"+path, nil)
	if err != nil {
		return nil, err
	}
	r.URL.RawQuery = query
	told := e.observed(r.Method, path)
	res, err := e.tr.RoundTrip(r)
	if err != nil {
		told(ctx, 0, err)
		return nil, cause(ctx, err)
	}
	told(ctx, res.StatusCode, nil)
	defer res.Body.Close()
	e.hear()
	room := min(max(res.ContentLength, 0), bodyLimit) + bytes.MinRead // which is what is asked for once more, to see the end
	whole := bytes.NewBuffer(make([]byte, 0, room))
	if _, err := whole.ReadFrom(io.LimitReader(res.Body, bodyLimit)); err != nil {
		return nil, fmt.Errorf("GET %s: %w", path, cause(ctx, err))
	}
	b := whole.Bytes()
	if cap(b)-len(b) > len(b)/4 {
		b = bytes.Clone(b) // parts of it are kept for long
	}
	if res.StatusCode/100 != 2 {
		return nil, &statusError{path, res.StatusCode, message(b)}
	}
	return b, nil
}

// cause prefers the reason for which a context ended to "context canceled".
func cause(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

func message(b []byte) string {
	var m struct{ Message string }
	if err := json.Unmarshal(b, &m); err == nil && m.Message != "" {
		return m.Message
	}
	s := strings.TrimSpace(string(b))
	if len(s) > 300 {
		s = s[:300] + "…"
	}
	return s
}

// versionInfo is what is needed of GET /version, and info of GET /info.
type versionInfo struct {
	Version, APIVersion, MinAPIVersion, Os, Arch, KernelVersion string
}

type info struct {
	ID, Name, ServerVersion, Driver, KernelVersion, OperatingSystem, OSType, Architecture string
	NCPU                                                                                  int64
	MemTotal                                                                              int64
	Labels                                                                                []string
	SystemTime                                                                            string
	SecurityOptions                                                                       []string
	Swarm                                                                                 swarmInfo
}

// probed is an engine that answered.
type probed struct {
	version    versionInfo
	versionRaw []byte
	info       info
	infoRaw    []byte
	skew       time.Duration
}

func (e *Engine) probe(ctx context.Context) (*probed, error) {
	p := new(probed)
	if err := e.probeVersion(ctx, p); err != nil {
		return nil, err
	}
	if err := e.probeInfo(ctx, p); err != nil {
		return nil, err
	}
	return p, nil
}

func (e *Engine) probeVersion(ctx context.Context, p *probed) (err error) {
	if p.versionRaw, err = e.ask(ctx, "/version"); err != nil {
		return err
	}
	if err := json.Unmarshal(p.versionRaw, &p.version); err != nil {
		return fmt.Errorf("GET /version: this is not a Docker Engine: %w", err)
	}
	if p.version.APIVersion == "" {
		return errors.New("GET /version names no API version: this is not a Docker Engine")
	}
	return nil
}

func (e *Engine) probeInfo(ctx context.Context, p *probed) (err error) {
	asked := time.Now()
	if p.infoRaw, err = e.ask(ctx, "/v"+e.speak(p.version)+"/info"); err != nil {
		return err
	}
	if err := json.Unmarshal(p.infoRaw, &p.info); err != nil {
		return fmt.Errorf("GET /info: this is not a Docker Engine: %w", err)
	}
	if p.info.NCPU == 0 || p.info.MemTotal == 0 {
		return errors.New("the engine reports no CPUs or no memory; is it a Docker Engine, not a Swarm manager?")
	}
	if strings.Contains(p.version.Version, "berth") || strings.HasPrefix(p.version.Version, "swarm/") {
		return errors.New("this is a manager's endpoint, not a Docker Engine; put the engines themselves into the fleet")
	}
	if t, err := time.Parse(time.RFC3339Nano, p.info.SystemTime); err == nil {
		// The answer was made between asked and now.
		p.skew = t.Sub(asked.Add(time.Since(asked) / 2))
		if p.skew.Abs() < time.Second {
			p.skew = 0
		}
	}
	return nil
}

// ask is one bounded call at start-up: an engine that does not answer it is hung.
func (e *Engine) ask(ctx context.Context, path string) ([]byte, error) {
	ctx, cancel, err := e.call(ctx, e.o.Timing.Probe)
	if err != nil {
		return nil, err
	}
	defer cancel()
	b, err := e.get(ctx, path, "")
	if err != nil && ctx.Err() == context.DeadlineExceeded {
		return nil, &hungError{err}
	}
	return b, err
}

// speak is the API version that we use for our own calls.
func (e *Engine) speak(v versionInfo) string {
	if e.o.APIMax != "" && fleet.CompareVersions(v.APIVersion, e.o.APIMax) > 0 {
		if v.MinAPIVersion == "" || fleet.CompareVersions(e.o.APIMax, v.MinAPIVersion) >= 0 {
			return e.o.APIMax
		}
		return v.MinAPIVersion
	}
	return v.APIVersion
}

// path puts our own API version in front.
func (e *Engine) path(p string) string {
	n := e.Node()
	return "/v" + e.speak(versionInfo{APIVersion: n.API, MinAPIVersion: n.MinAPI}) + p
}

// adopt takes over what a probe found. An engine whose ID changed is another engine: what was known of the old one goes.
func (e *Engine) adopt(p *probed) {
	e.mu.Lock()
	defer e.mu.Unlock()
	n := *e.node
	id := p.info.ID + "|" + e.ep.Addr
	if n.EngineID != "" && n.ID != id {
		e.o.Log.Warn("another engine answers at this address", "node", n.Name, "addr", n.Addr, "was", n.EngineID, "is", p.info.ID)
		n.Containers, n.Images, n.Networks, n.Volumes = nil, nil, nil, nil
		clear(e.marks)
		e.cursor = cursor{}
	}
	n.ID, n.EngineID, n.HostName = id, p.info.ID, p.info.Name
	n.Name = e.o.Name(e.ep, p.info.Name)
	fill(&n, p)
	if n.IP == "" {
		n.IP = addrIP(e.ep.Addr)
	}
	e.target.Name = n.Name
	e.publish(&n)
}

func fill(n *fleet.Node, p *probed) {
	n.Version, n.API, n.MinAPI = p.version.Version, p.version.APIVersion, p.version.MinAPIVersion
	n.OS, n.Arch = p.version.Os, p.version.Arch
	n.OperatingSystem, n.KernelVersion, n.StorageDriver = p.info.OperatingSystem, p.info.KernelVersion, p.info.Driver
	n.CPUs, n.Memory = p.info.NCPU, p.info.MemTotal
	n.Info, n.VersionInfo, n.Skew = p.infoRaw, p.versionRaw, p.skew
	n.Swarm, n.NoOverlay = p.info.Swarm.fact(), noOverlay(p)
	n.Labels = map[string]string{
		"storagedriver": p.info.Driver, "kernelversion": p.info.KernelVersion,
		"operatingsystem": p.info.OperatingSystem, "ostype": p.info.OSType,
	}
	for _, l := range p.info.Labels {
		k, v, _ := strings.Cut(l, "=")
		// The built-in ones win, as in classic Swarm; "node" is a constraint's own key.
		if _, taken := n.Labels[k]; !taken && k != "node" {
			n.Labels[k] = v
		}
	}
}

// RefreshInfo asks the engine what it says of itself, and returns when the published node shows it.
func (e *Engine) RefreshInfo(ctx context.Context) error {
	if err := e.refreshInfo(ctx); err != nil {
		return e.unreachable(err)
	}
	return nil
}

func (e *Engine) refreshInfo(ctx context.Context) error {
	p := new(probed)
	if err := e.probeVersion(ctx, p); err != nil {
		return err
	}
	if err := e.probeInfo(ctx, p); err != nil {
		return err
	}
	e.change(func(n *fleet.Node) {
		fill(n, p)
		n.UpdatedAt = time.Now()
	})
	return nil
}

// addrIP is the address part of host:port if it is one, or what the name resolves to is left to who made the endpoint.
func addrIP(addr string) string {
	host, _, err := net.SplitHostPort(addr)
	if err != nil || net.ParseIP(host) == nil {
		return ""
	}
	return host
}
