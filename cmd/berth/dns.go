package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/miekg/dns"
	"github.com/spf13/cobra"
	"golang.org/x/net/netutil"
	"golang.org/x/sync/errgroup"

	"berth/internal/names"
)

// naming are the flags of berth dns.
type naming struct {
	at     endpointFlags
	listen string
	http   string
	domain string
	ttl    time.Duration
}

// defaultDNS is not port 53, which is for root and where resolvers of computers listen.
const defaultDNS = "127.0.0.1:5300"

func (p *program) dnsCmd() *cobra.Command {
	o := new(naming)
	cmd := &cobra.Command{
		Use: "dns [OPTIONS]", Short: "Answer DNS queries for the containers of the fleet, and tell Prometheus of them", Args: noArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
		Long: `Answer DNS queries for the containers of the fleet that berth serve serves, from outside of it:

    NAME.berth                     where the published ports of container NAME answer (A, AAAA, SRV)
    PROJECT.SERVICE.berth          the same for all containers of a Compose service; SERVICE.PROJECT.berth is the same
    _80._tcp.NAME.berth            SRV: the host port that leads to port 80 of the container, and its address

Only containers that run, and are healthy if they have a health check, have names. Answers hold for --ttl. Queries for names outside of
--domain are refused: have your resolver ask berth for that domain alone.

With --http, Prometheus' http_sd finds targets at http://ADDRESS/sd: containers with a label prometheus.port or prometheus.scrape=true,
or with /sd?all=true every published TCP port.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return o.at.onFleet(func(e *fleetEndpoint) error { return p.nameServer(cmd.Context(), o, e) })
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.listen, "listen", defaultDNS, "Where to answer, UDP and TCP: `ADDRESS:PORT`")
	f.StringVar(&o.http, "http", "", "Serve /sd for Prometheus and /healthz on `ADDRESS:PORT`; beyond this computer with --tlsverify and certificates")
	f.StringVar(&o.domain, "domain", "berth", "The domain of all names")
	f.DurationVar(&o.ttl, "ttl", 5*time.Second, "How long answers hold")
	o.at.add(f)
	return cmd
}

func (o *naming) check() error {
	if _, ok := dns.IsDomainName(o.domain); !ok || dns.CanonicalName(o.domain) == "." {
		return fmt.Errorf("--domain %s: want a domain, such as berth or fleet.example.com", o.domain)
	}
	if o.ttl < 0 || o.ttl > 24*time.Hour {
		return errors.New("--ttl: want a time up to a day")
	}
	return nil
}

// nameServer answers until ctx ends.
func (p *program) nameServer(ctx context.Context, o *naming, e *fleetEndpoint) error {
	if err := o.check(); err != nil {
		return err
	}
	log := slog.New(slog.NewTextHandler(p.err, nil))
	packets, stream, err := listenDNS(ctx, o.listen)
	if err != nil {
		return err
	}
	defer packets.Close() //nolint:errcheck // the server closes it first
	defer stream.Close()  //nolint:errcheck // likewise
	b := &nameBook{o: o, e: e, log: log}
	g, ctx := errgroup.WithContext(ctx)
	if o.http != "" {
		l, err := openTCP(ctx, "--http ", o.http, &o.at.tls, o.at.tls.verify, "beyond this computer it needs mutual TLS, since it tells how the fleet is: "+
			"give --tlsverify with --tlscacert, --tlscert and --tlskey, or listen on 127.0.0.1")
		if err != nil {
			return err
		}
		s := &http.Server{Handler: b.mux(), ReadHeaderTimeout: 10 * time.Second, ReadTimeout: 10 * time.Second, ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug)}
		log.Info("serving targets", "addr", "http://"+l.Addr().String()+"/sd")
		g.Go(func() error { return serveHTTP(s, l) })
		g.Go(func() error { <-ctx.Done(); return s.Close() })
	}
	for _, s := range []*dns.Server{{PacketConn: packets}, {Listener: netutil.LimitListener(stream, dnsConns)}} {
		s.Handler = dns.HandlerFunc(b.serveDNS)
		g.Go(s.ActivateAndServe)
		g.Go(func() error { <-ctx.Done(); return endDNS(s) })
	}
	log.Info("answering", "domain", dns.CanonicalName(o.domain), "addr", packets.LocalAddr().String())
	g.Go(func() error { return b.follow(ctx) })
	err = g.Wait()
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// dnsConns bounds the TCP connections of clients; each is closed when it is idle for eight seconds.
const dnsConns = 256

// endDNS ends a server. One that has not begun yet is tried again: it does not remember.
func endDNS(s *dns.Server) error {
	ctx, cancel := context.WithTimeout(context.Background(), shutdownLimit)
	defer cancel()
	for {
		err := s.ShutdownContext(ctx)
		if err == nil || ctx.Err() != nil {
			return nil
		}
		select {
		case <-ctx.Done():
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// listenDNS opens one port for UDP and TCP.
func listenDNS(ctx context.Context, addr string) (net.PacketConn, net.Listener, error) {
	var lc net.ListenConfig
	packets, err := lc.ListenPacket(ctx, "udp", addr)
	if err != nil {
		return nil, nil, cannotListen("--listen "+addr, err)
	}
	stream, err := lc.Listen(ctx, "tcp", packets.LocalAddr().String()) // which has a port if addr says 0
	if err != nil {
		return nil, nil, errors.Join(cannotListen("--listen "+addr, err), packets.Close())
	}
	return packets, stream, nil
}

func (b *nameBook) serveDNS(w dns.ResponseWriter, q *dns.Msg) {
	var m *dns.Msg
	if page := b.page(); page != nil {
		m = page.zone.Answer(q)
	} else {
		m = new(dns.Msg).SetRcode(q, dns.RcodeServerFailure)
	}
	if m == nil {
		return
	}
	if w.LocalAddr().Network() == "udp" {
		names.Fit(q, m)
	}
	_ = w.WriteMsg(m) // a client that is gone cannot be told
}

// mux serves what Prometheus asks for.
func (b *nameBook) mux() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /sd", func(w http.ResponseWriter, r *http.Request) {
		page := b.page()
		if page == nil {
			http.Error(w, "the fleet is not known", http.StatusServiceUnavailable) // Prometheus keeps the targets that it has
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(page.view.Targets(r.URL.Query().Get("all") == "true")) // a client that is gone cannot be told
	})
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		if b.page() == nil {
			http.Error(w, "the fleet is not known", http.StatusServiceUnavailable)
			return
		}
		_, _ = fmt.Fprintln(w, "ok") // likewise
	})
	return mux
}
