package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"strings"

	"berth/internal/dockertest"
)

// simulate runs engines in this process until it is interrupted. It prints one line: the address of its control API, and
// then those of the engines. They are in a process of their own so that what they cost is not taken for berth's.
func simulate(nodes, containers int) error {
	var daemons []*dockertest.Daemon
	for i := range nodes {
		daemons = append(daemons, dockertest.New(nil, dockertest.Options{
			Name: fmt.Sprintf("sim%d", i), Images: []string{"busybox"}, NCPU: 64, MemTotal: 256 << 30, Containers: containers, NoRequestLog: true,
			Labels: []string{"zone=" + strconv.Itoa(i%3)},
		}))
	}
	addrs := make([]string, len(daemons))
	for i, d := range daemons {
		addrs[i] = d.HostPort()
	}
	l, err := listenLoopback()
	if err != nil {
		return err
	}
	control := &http.Server{Handler: controlOf(daemons)} //nolint:gosec // for this program alone
	ended := make(chan os.Signal, 1)
	signal.Notify(ended, os.Interrupt)
	go func() {
		<-ended
		_ = control.Close()
	}()
	fmt.Println(l.Addr().String(), strings.Join(addrs, " "))
	err = control.Serve(l)
	for _, d := range daemons {
		d.Close()
	}
	if err != http.ErrServerClosed { //nolint:errorlint // never wrapped
		return err
	}
	return nil
}

// controlOf lets the measuring process count calls and make engines ill.
func controlOf(daemons []*dockertest.Daemon) *http.ServeMux {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /calls", func(w http.ResponseWriter, _ *http.Request) {
		var sum int64
		for _, d := range daemons {
			sum += d.RequestCount()
		}
		_ = json.NewEncoder(w).Encode(sum) // who asked is gone, then
	})
	each := func(pattern string, do func(d *dockertest.Daemon, r *http.Request) error) {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			i, err := strconv.Atoi(r.URL.Query().Get("engine"))
			if err != nil || i < 0 || i >= len(daemons) {
				http.Error(w, "no such engine", http.StatusBadRequest)
				return
			}
			if err := do(daemons[i], r); err != nil {
				http.Error(w, err.Error(), http.StatusInternalServerError)
			}
		})
	}
	each("POST /refuse", func(d *dockertest.Daemon, _ *http.Request) error { d.Refuse(); return nil })
	each("POST /listen", func(d *dockertest.Daemon, _ *http.Request) error { return d.Listen() })
	each("POST /hang", func(d *dockertest.Daemon, _ *http.Request) error { d.Hang(); return nil })
	each("POST /resume", func(d *dockertest.Daemon, _ *http.Request) error { d.Resume(); return nil })
	each("POST /event", func(d *dockertest.Daemon, r *http.Request) error {
		d.Emit("container", "exec_detach", r.URL.Query().Get("id"), map[string]string{"n": r.URL.Query().Get("n")})
		return nil
	})
	return mux
}
