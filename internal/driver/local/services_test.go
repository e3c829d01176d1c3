package local

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"berth/internal/machine"
)

// standInArg makes the test program a service in a box.
const standInArg = "stand-in"

// standIn says over HTTP what it was told, dies when told to, and cleans up when asked to end.
func standIn(args []string) {
	if args[0] == "broken" {
		fmt.Println("level=error: it does not like its arguments")
		os.Exit(3)
	}
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, unix.SIGTERM)
	go func() {
		<-signals
		fmt.Println("cleaned up")
		os.Exit(0)
	}()
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		host, _ := os.Hostname()
		fmt.Fprintf(w, "%d %s %s %s %s", os.Getpid(), host, os.Getenv("SECRET"), os.Getenv("HOME"), os.Getenv("MACHINE_STORAGE_PATH"))
	})
	mux.HandleFunc("/die", func(http.ResponseWriter, *http.Request) { os.Exit(7) })
	fmt.Println(http.ListenAndServe(":3376", mux)) // for the log
	os.Exit(1)
}

// ask asks the stand-in; "" if it is not there.
func (h *host) ask(path string) string {
	h.Helper()
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 5 * time.Second}
	response, err := client.Get("http://" + net.JoinHostPort(h.instance.IPAddress, "3376") + path)
	if err != nil {
		return ""
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		return ""
	}
	return string(text)
}

func TestServicesGoOnBesideTheEngine(t *testing.T) {
	needEngine(t)
	s := newStore(t)
	h := newHost(t, s, s.spec(t, "m"), func(e *machine.EngineConfig) {
		e.Services = []machine.Service{{Name: "manager", Args: []string{standInArg, "good"}, Env: []string{"SECRET=token://T"}, Port: 3376}}
	})
	var first string
	up := func() bool { first = h.ask("/"); return first != "" }
	h.eventually("the service answers", up)
	box := filepath.Join(h.instance.Dir, "local")
	if want := fmt.Sprintf(" m token://T %s/home %s/services", box, box); !strings.HasSuffix(first, want) {
		t.Errorf("the service is told %q, want its number and%s", first, want)
	}
	pids, err := h.box().pids()
	if err != nil {
		t.Fatal(err)
	}
	for pid := range pids {
		line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		if err == nil && strings.Contains(string(line), "token://T") {
			t.Errorf("the secret stands on a command line: %q", line)
		}
	}
	// It dies, and comes back by itself.
	engine := h.engine()
	before := first
	h.ask("/die")
	h.eventually("the service is back", func() bool { return up() && first != before })
	if h.engine() != engine {
		t.Error("the engine is another one")
	}
	log := func() string {
		text, err := os.ReadFile(filepath.Join(box, "manager.log"))
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	if !strings.Contains(log(), "berth: it has ended: exit status 7; it starts again in 1s") {
		t.Errorf("its log says:\n%s", log())
	}
	// It ends with the box, is asked to before, and comes back with it.
	if err := (Driver{}).Stop(t.Context(), h.instance); err != nil {
		t.Fatal(err)
	}
	if h.ask("/") != "" {
		t.Error("the service goes on without its box")
	}
	if !strings.Contains(log(), "cleaned up") {
		t.Errorf("it was not asked to end; its log says:\n%s", log())
	}
	h.start()
	h.eventually("the service is back with its box", up)
	// What is not asked for any more is gone.
	if err := (Driver{}).RunEngine(t.Context(), h.instance, s.engine(t, h.instance)); err != nil {
		t.Fatal(err)
	}
	if h.ask("/") != "" {
		t.Error("a service that nobody asks for any more goes on")
	}
}

func TestServiceThatDoesNotStartSaysWhy(t *testing.T) {
	needEngine(t)
	s := newStore(t)
	h := newHost(t, s, s.spec(t, "m"))
	config := s.engine(t, h.instance)
	config.Services = []machine.Service{{Name: "agent", Args: []string{standInArg, "broken"}}}
	err := (Driver{}).RunEngine(t.Context(), h.instance, config)
	if err == nil || !strings.Contains(err.Error(), "start the agent of m") || !strings.Contains(err.Error(), "it does not like its arguments") {
		t.Errorf("RunEngine = %v, want what the service said", err)
	}
}
