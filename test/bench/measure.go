package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"time"
)

const (
	rounds     = 3
	createBody = `{"Image":"busybox","Cmd":["sleep","100000"],"Env":["A=1"],"Labels":{"bench":"1"},"HostConfig":{"NetworkMode":"default"}}`
)

// bench is one run.
type bench struct {
	o      options
	sim    *simulator
	m      *manager
	fleet  *client // all engines, through berth
	direct *client // the first of them, asked itself
	spare  *client // one that berth does not know
	rows   []row
	cold   time.Duration
	used   time.Duration // CPU until all was known
}

func (b *bench) tests() map[string]func(context.Context) error {
	return map[string]func(context.Context) error{
		"cold": b.measureCold, "create": b.measureCreate, "list": b.measureList, "inspect": b.measureInspect,
		"events": b.measureEvents, "streams": b.measureStreams, "dead": b.measureDead,
	}
}

type info struct {
	Containers   int
	SystemStatus [][2]string
}

// awaitAll waits until berth knows all nodes and containers.
func (b *bench) awaitAll(ctx context.Context) error {
	for {
		var i info
		_, err := b.fleet.do(ctx, http.MethodGet, "/info", "", &i)
		if err == nil && i.Containers >= b.o.nodes*b.o.containers && healthy(i) == b.o.nodes {
			b.cold = time.Since(b.m.began)
			b.used, err = b.m.cpu()
			return err
		}
		if time.Since(b.m.began) > 5*time.Minute {
			return fmt.Errorf("after 5 minutes %d of %d nodes are healthy, with %d containers: %w", healthy(i), b.o.nodes, i.Containers, err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// awaitQuiet waits until the manager has read the details of all containers, and given back what that took.
func (b *bench) awaitQuiet(ctx context.Context) error {
	for range 60 {
		before, err := b.m.cpu()
		if err != nil {
			return err
		}
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
			return ctx.Err()
		}
		after, err := b.m.cpu()
		if err != nil {
			return err
		}
		if after-before < 100*time.Millisecond && time.Since(b.m.began) > 20*time.Second {
			return nil
		}
	}
	return errors.New("the manager does not come to rest within a minute")
}

func healthy(i info) (n int) {
	for _, line := range i.SystemStatus {
		if strings.HasSuffix(strings.TrimSpace(line[0]), "Status") && line[1] == "Healthy" {
			n++
		}
	}
	return n
}

func (b *bench) measureCold(ctx context.Context) error {
	b.add("cold start, all nodes and containers known", b.cold.Seconds(), 12*float64(b.o.nodes*b.o.containers)/30000+0.5, "s")
	b.add("  CPU", b.used.Seconds(), 0, "s")
	if err := b.awaitQuiet(ctx); err != nil {
		return err
	}
	rss, err := b.m.status("VmRSS")
	if err != nil {
		return err
	}
	used, err := b.m.inUse(ctx)
	if err != nil {
		return err
	}
	b.add("  memory, resident", float64(rss)/1024, 0, "MiB")
	b.add("  memory in use", used/(1<<20), 20+(4*float64(b.o.nodes*b.o.containers)+100*float64(b.o.nodes))/1024, "MiB")
	const idle = 5 * time.Second
	before, err := b.m.cpu()
	if err != nil {
		return err
	}
	select {
	case <-time.After(idle):
	case <-ctx.Done():
		return ctx.Err()
	}
	after, err := b.m.cpu()
	b.add("CPU at rest", 100*(after-before).Seconds()/idle.Seconds(), 3.5, "% of a core")
	return err
}

// createAndStart is what docker run does, and remove takes it away again.
func createAndStart(ctx context.Context, c *client, name string) (id string, err error) {
	var made struct {
		ID string `json:"Id"`
	}
	if err := c.want(ctx, http.StatusCreated, http.MethodPost, "/containers/create?name="+name, createBody, &made); err != nil {
		return "", err
	}
	return made.ID, c.want(ctx, http.StatusNoContent, http.MethodPost, "/containers/"+made.ID+"/start", "", nil)
}

func (b *bench) measureCreate(ctx context.Context) error {
	for _, atOnce := range []int{1, 64} {
		var p50, rate ratios
		var cpu, calls float64
		for round := range rounds {
			ids, floor, floorWall, err := b.createRound(ctx, b.spare, "d", round, atOnce)
			if err != nil {
				return err
			}
			if err := removeAll(ctx, b.spare, ids); err != nil {
				return err
			}
			cpu0, err := b.m.cpu()
			if err != nil {
				return err
			}
			calls0, err := b.sim.calls(ctx)
			if err != nil {
				return err
			}
			ids, took, wall, err := b.createRound(ctx, b.fleet, "f", round, atOnce)
			if err != nil {
				return err
			}
			time.Sleep(1500 * time.Millisecond) // what is owed is paid, and counts
			cpu1, err := b.m.cpu()
			if err != nil {
				return err
			}
			calls1, err := b.sim.calls(ctx)
			if err != nil {
				return err
			}
			if err := removeAll(ctx, b.fleet, ids); err != nil {
				return err
			}
			p50 = append(p50, float64(median(took))/float64(median(floor)))
			rate = append(rate, floorWall.Seconds()/wall.Seconds())
			cpu += (cpu1 - cpu0).Seconds() * 1000 / float64(rounds*b.o.ops)
			calls += (calls1 - calls0) / float64(rounds*b.o.ops)
		}
		what := fmt.Sprintf("create+start, %d at a time", atOnce)
		if atOnce == 1 {
			b.add(what+": p50 over direct", p50.median(), 3, "×")
		} else {
			b.rows = append(b.rows, row{name: what + ": rate over direct", figure: rate.median(), must: 0.3, least: true, unit: "×"})
		}
		b.add("  CPU", cpu, 0, "ms")
		b.add("  engine calls", calls, 4, "")
	}
	return nil
}

func (b *bench) createRound(ctx context.Context, c *client, kind string, round, atOnce int) (ids []string, took []time.Duration, wall time.Duration, err error) {
	ids = make([]string, b.o.ops)
	took, wall, err = timed(b.o.ops, atOnce, func(i int) (err error) {
		ids[i], err = createAndStart(ctx, c, fmt.Sprintf("%s%d-%d-%d", kind, atOnce, round, i))
		return err
	})
	return ids, took, wall, err
}

func removeAll(ctx context.Context, c *client, ids []string) error {
	_, _, err := timed(len(ids), 8, func(i int) error {
		return c.want(ctx, http.StatusNoContent, http.MethodDelete, "/containers/"+ids[i]+"?force=1", "", nil)
	})
	return err
}

func (b *bench) measureList(ctx context.Context) error {
	body, err := b.fleet.body(ctx, version+"/containers/json?all=1")
	if err != nil {
		return err
	}
	raw, stop, err := serveBytes(body)
	if err != nil {
		return err
	}
	defer stop()
	count := bytes.Count(body, []byte(`"Id":`))
	var id string
	if i := bytes.Index(body, []byte(`"Id":"`)); i >= 0 {
		id = string(body[i+6 : i+6+64])
	}
	var p50 ratios
	var cpu float64
	for range rounds {
		floor, _, err := timed(10, 1, func(int) error { return raw.want(ctx, 200, http.MethodGet, "/x", "", nil) })
		if err != nil {
			return err
		}
		took, used, err := b.listRound(ctx, "all=1", 10)
		if err != nil {
			return err
		}
		p50 = append(p50, float64(median(took))/float64(median(floor)))
		cpu += used / rounds
	}
	b.add(fmt.Sprintf("list of %d: p50 over ready-made bytes", count), p50.median(), 3, "×")
	b.add("  CPU a container", cpu*1000/float64(count), 4, "µs")
	for _, q := range []struct{ name, query string }{
		{"limit=1", "limit=1"}, {"id", filter("id", id)}, {"name", filter("name", "c17")}, {"label", filter("label", "n=17")},
	} {
		_, used, err := b.listRound(ctx, q.query, 200)
		if err != nil {
			return err
		}
		b.add("list by "+q.name+": CPU", used, 3.2*max(1, float64(count)/30000), "ms")
	}
	return nil
}

func filter(key, value string) string {
	return "all=1&filters=" + url.QueryEscape(fmt.Sprintf(`{%q:[%q]}`, key, value))
}

func (b *bench) listRound(ctx context.Context, query string, n int) (took []time.Duration, cpu float64, err error) {
	before, err := b.m.cpu()
	if err != nil {
		return nil, 0, err
	}
	took, _, err = timed(n, 1, func(int) error { return b.fleet.want(ctx, 200, http.MethodGet, "/containers/json?"+query, "", nil) })
	if err != nil {
		return nil, 0, err
	}
	after, err := b.m.cpu()
	return took, (after - before).Seconds() * 1000 / float64(n), err
}

// serveBytes is the floor of a list: a server with the answer at hand.
func serveBytes(body []byte) (*client, func(), error) {
	l, err := listenLoopback()
	if err != nil {
		return nil, nil, err
	}
	s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { //nolint:gosec // for this program alone
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(body) // the client is this program
	})}
	go func() { _ = s.Serve(l) }() // ends with Close
	return newClient("tcp", l.Addr().String()), func() { _ = s.Close() }, nil
}

// reverseProxy is the reference of what a hop costs.
func reverseProxy(target string) error {
	l, err := listenLoopback()
	if err != nil {
		return err
	}
	p := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: target})
	p.Transport = &http.Transport{MaxIdleConnsPerHost: 128, DisableCompression: true}
	s := &http.Server{Handler: p} //nolint:gosec // for this program alone
	ended := make(chan os.Signal, 1)
	signal.Notify(ended, os.Interrupt)
	go func() {
		<-ended
		_ = s.Close()
	}()
	fmt.Println(l.Addr().String())
	if err := s.Serve(l); err != http.ErrServerClosed { //nolint:errorlint // never wrapped
		return err
	}
	return nil
}

func (b *bench) measureInspect(ctx context.Context) (err error) {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, self, "-proxy", b.sim.addrs[0])
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	ref := child{cmd}
	defer func() { err = errors.Join(err, ref.stop()) }()
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		return err
	}
	proxy := newClient("tcp", strings.TrimSpace(line))
	var list []struct {
		ID string `json:"Id"`
	}
	if err := b.direct.want(ctx, 200, http.MethodGet, "/containers/json?all=1&limit=1", "", &list); err != nil {
		return err
	}
	if len(list) == 0 {
		return fmt.Errorf("the first engine has no container")
	}
	path := "/containers/" + list[0].ID + "/json"
	var p50, cpu ratios
	for range rounds {
		viaProxy, proxyCPU, err := inspectRound(ctx, proxy, &ref, path, b.o.ops*5)
		if err != nil {
			return err
		}
		viaBerth, berthCPU, err := inspectRound(ctx, b.fleet, &b.m.child, path, b.o.ops*5)
		if err != nil {
			return err
		}
		p50 = append(p50, float64(viaBerth)/float64(viaProxy))
		if proxyCPU > 0 {
			cpu = append(cpu, berthCPU/proxyCPU)
		}
	}
	b.add("inspect: p50 over Go's ReverseProxy", p50.median(), 1.2, "×")
	b.add("  CPU over Go's ReverseProxy", cpu.median(), 1.2, "×")
	return nil
}

func inspectRound(ctx context.Context, c *client, p *child, path string, n int) (p50 time.Duration, cpu float64, err error) {
	before, err := p.cpu()
	if err != nil {
		return 0, 0, err
	}
	took, _, err := timed(n, 1, func(int) error { return c.want(ctx, 200, http.MethodGet, path, "", nil) })
	if err != nil {
		return 0, 0, err
	}
	after, err := p.cpu()
	return median(took), (after - before).Seconds() / float64(n), err
}
