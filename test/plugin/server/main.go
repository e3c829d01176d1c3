// Command server is a docker-machine driver plugin for tests, written from the description of the protocol and from nothing of berth's.
//
// Its hosts are files in a folder. A flag, or the variable PEER_FAULT, makes it misbehave in the ways that plugins do.
package main

import (
	"context"
	"encoding/gob"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"net"
	"net/http"
	"net/rpc"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

type stringFlag struct{ Name, Usage, EnvVar, Value string }

type intFlag struct {
	Name, Usage, EnvVar string
	Value               int
}

type boolFlag struct{ Name, Usage, EnvVar string }

type sliceFlag struct {
	Name, Usage, EnvVar string
	Value               []string
}

type rpcFlags struct{ Values map[string]any }

type none = struct{}

// peer is the plugin. What is in upper case is its configuration, as docker-machine's drivers have it.
type peer struct {
	MachineName, StorePath, IPAddress, SSHUser, SSHKeyPath string
	SSHPort                                                int
	Serial                                                 int64
	Dir                                                    string
	Tags                                                   []string
	Checked                                                string

	mu    sync.Mutex
	fault string
	notes string // what the check found out, which is not in the configuration
	beats chan none
	ended chan none
}

func main() {
	if os.Getenv("MACHINE_PLUGIN_TOKEN") != "42" {
		fmt.Fprintln(os.Stderr, "This is a Docker Machine plugin binary.")
		os.Exit(1)
	}
	p := &peer{fault: os.Getenv("PEER_FAULT"), beats: make(chan none), ended: make(chan none)}
	p.note("pid " + strconv.Itoa(os.Getpid()))
	fmt.Fprintln(os.Stderr, "peer for "+os.Getenv("MACHINE_PLUGIN_DRIVER_NAME"))
	switch p.fault {
	case "garbage":
		fmt.Println("Usage: peer [OPTIONS]")
	case "elsewhere":
		fmt.Println("192.0.2.1:80")
	case "nothing":
		fmt.Fprintln(os.Stderr, "still thinking")
		time.Sleep(time.Hour)
	case "no end of line":
		fmt.Print("127.0.0.1")
		time.Sleep(time.Hour)
	case "early death":
		fmt.Fprintln(os.Stderr, "cannot find my licence")
		os.Exit(7)
	}
	p.serve()
}

func (p *peer) serve() {
	gob.RegisterName("*mcnflag.StringFlag", &stringFlag{})
	gob.RegisterName("*mcnflag.IntFlag", &intFlag{})
	gob.RegisterName("*mcnflag.BoolFlag", &boolFlag{})
	gob.RegisterName("*mcnflag.StringSliceFlag", &sliceFlag{})
	gob.RegisterName("*rpcdriver.RPCFlags", &rpcFlags{})
	if p.fault != "only v0" {
		must(rpc.RegisterName("RPCServerDriver", p))
	}
	must(rpc.RegisterName("RpcServerDriver", p))
	l, err := new(net.ListenConfig).Listen(context.Background(), "tcp", "127.0.0.1:0")
	must(err)
	fmt.Println(l.Addr())
	switch p.fault {
	case "a web server":
		must(http.Serve(l, http.NotFoundHandler()))
	case "a deaf listener":
		time.Sleep(time.Hour)
	}
	rpc.HandleHTTP()
	go func() { must(http.Serve(l, nil)) }()
	for {
		select {
		case <-p.beats:
			p.note("beat")
		case <-p.ended:
			if p.fault == "no end" {
				time.Sleep(time.Hour)
			}
			p.note("closed")
			os.Exit(0)
		case <-time.After(10 * time.Second):
			p.note("nobody")
			os.Exit(1)
		}
	}
}

func must(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// note writes a line into the diary that a test may ask for.
func (p *peer) note(line string) {
	path := os.Getenv("PEER_DIARY")
	if path == "" {
		return
	}
	f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	must(err)
	_, err = fmt.Fprintln(f, line)
	must(errors.Join(err, f.Close()))
}

func (p *peer) GetVersion(_ *none, v *int) error {
	*v = 1
	if p.fault == "version 2" {
		*v = 2
	}
	return nil
}

func (p *peer) Heartbeat(_, _ *none) error {
	p.beats <- none{}
	return nil
}

func (p *peer) Close(_, _ *none) error {
	p.ended <- none{}
	return nil
}

func (p *peer) SetConfigRaw(raw []byte, _ *none) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.note("config " + string(raw))
	return json.Unmarshal(raw, p)
}

func (p *peer) GetConfigRaw(_ *none, raw *[]byte) (err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.fault == "no configuration" {
		*raw = []byte("null")
		return nil
	}
	*raw, err = json.Marshal(p)
	return err
}

func (p *peer) DriverName(_ *none, s *string) error     { *s = "peer"; return nil }
func (p *peer) GetMachineName(_ *none, s *string) error { *s = p.MachineName; return nil }

func (p *peer) GetCreateFlags(_ *none, flags *[]any) error {
	*flags = []any{
		&stringFlag{"peer-dir", "Folder of the hosts", "PEER_DIR", ""},
		&stringFlag{"peer-fault", "How to misbehave", "", ""},
		&intFlag{"peer-size", "Size of the host", "PEER_SIZE", 4},
		&boolFlag{"peer-fast", "No hurry", "PEER_FAST"},
		sliceFlag{"peer-tag", "Tag of the host", "PEER_TAGS", []string{"preset"}}, // by value, as any plugin may
	}
	switch p.fault {
	case "a bad flag":
		*flags = append(*flags, &stringFlag{Name: "a b"})
	case "a nil flag":
		*flags = append(*flags, nil)
	case "a flag of create's":
		*flags = append(*flags, &stringFlag{Name: "engine-storage-driver"}, &boolFlag{Name: "help"}, &intFlag{Name: "peer-size, z"})
	}
	return nil
}

func (p *peer) SetConfigFromFlags(given *any, _ *none) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	flags, ok := (*given).(*rpcFlags)
	if !ok {
		return fmt.Errorf("flags are a %T", *given)
	}
	values, err := json.Marshal(flags.Values)
	if err != nil {
		return err
	}
	p.note("flags " + string(values))
	var typed bool
	if p.Dir, typed = flags.Values["peer-dir"].(string); !typed || p.Dir == "" {
		return errors.New("peer driver requires the --peer-dir option")
	}
	if size, typed := flags.Values["peer-size"].(int); !typed || size == 0 {
		return errors.New("no size")
	}
	if p.Tags, typed = flags.Values["peer-tag"].([]string); !typed {
		return errors.New("no tags")
	}
	if fault, typed := flags.Values["peer-fault"].(string); typed && fault != "" {
		p.fault = fault
	}
	p.SSHUser, p.SSHPort = "jo", 2222
	p.SSHKeyPath = filepath.Join(p.StorePath, "machines", p.MachineName, "id_rsa")
	return nil
}

func (p *peer) PreCreateCheck(_, _ *none) error {
	p.note("check")
	if p.fault == "refusal" {
		return errors.New("region nowhere-1 is not known")
	}
	fmt.Println("checking the quota")
	p.notes = "quota is fine"
	return nil
}

func (p *peer) file() string { return filepath.Join(p.Dir, p.MachineName) }

func (p *peer) Create(_, _ *none) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("Panic in the driver: %v\ngoroutine 1 [running]:\nmain.main()", r) //nolint:staticcheck // as docker-machine's library does
		}
	}()
	p.note("create")
	if p.notes == "" {
		return errors.New("the check did not run in this process")
	}
	fmt.Println("buying a host")
	p.mu.Lock()
	p.Serial = 9007199254740993
	p.Checked = p.notes
	p.mu.Unlock()
	must(os.WriteFile(p.file(), []byte("1"), 0o600))
	switch p.fault {
	case "panic":
		panic("index out of range")
	case "death":
		fmt.Fprintln(os.Stderr, "panic: runtime error: invalid memory address\n\ngoroutine 7 [running]:")
		os.Exit(2)
	case "failure":
		return errors.New("the host has no disk")
	case "hang":
		p.note("hanging")
		select {}
	case "freeze":
		p.note("frozen")
		must(syscall.Kill(os.Getpid(), syscall.SIGSTOP))
		select {} // it takes a moment
	case "slow":
		p.note("slow")
		for exists(p.file()) && !exists(p.file()+".go") {
			time.Sleep(10 * time.Millisecond)
		}
	}
	h := fnv.New32()
	h.Write([]byte(p.file()))
	n := h.Sum32()
	p.mu.Lock()
	p.IPAddress = fmt.Sprintf("127.%d.%d.%d", n>>16&0xff, n>>8&0xff, n&0xff)
	p.mu.Unlock()
	return nil
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

func (p *peer) GetState(_ *none, state *int) error {
	if p.fault == "odd state" {
		*state = 42
		return nil
	}
	data, err := os.ReadFile(p.file())
	if errors.Is(err, os.ErrNotExist) {
		*state = 9
		return nil
	}
	if err != nil {
		return err
	}
	*state, err = strconv.Atoi(strings.TrimSpace(string(data)))
	return err
}

func (p *peer) set(state int) error {
	if !exists(p.file()) {
		return errors.New("no such host")
	}
	return os.WriteFile(p.file(), []byte(strconv.Itoa(state)), 0o600)
}

func (p *peer) Start(_, _ *none) error {
	p.note("start")
	if p.fault == "death at start" {
		panic("no map")
	}
	fmt.Println("pressing the button")
	return p.set(1)
}

func (p *peer) Restart(_, _ *none) error { return p.set(1) }
func (p *peer) Stop(_, _ *none) error    { return p.set(4) }
func (p *peer) Kill(_, _ *none) error    { return p.set(4) }

func (p *peer) Remove(_, _ *none) error {
	p.note("remove")
	if err := os.Remove(p.file()); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

func (p *peer) GetIP(_ *none, s *string) error {
	if p.fault == "a bad address" {
		*s = "-oProxyCommand=id"
		return nil
	}
	if *s = p.IPAddress; *s == "" {
		return errors.New("IP address is not set")
	}
	return nil
}

func (p *peer) GetURL(_ *none, s *string) error {
	*s = "tcp://" + net.JoinHostPort(p.IPAddress, "2377")
	return nil
}

func (p *peer) GetSSHHostname(_ *none, s *string) error { *s = "ssh.example.com"; return nil }
func (p *peer) GetSSHPort(_ *none, n *int) error        { *n = p.SSHPort; return nil }
func (p *peer) GetSSHUsername(_ *none, s *string) error { *s = p.SSHUser; return nil }
func (p *peer) GetSSHKeyPath(_ *none, s *string) error  { *s = p.SSHKeyPath; return nil }
