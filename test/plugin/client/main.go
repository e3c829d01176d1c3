// Command client is the docker-machine end of the driver plugin protocol for tests, written from the description of the protocol and
// from nothing of berth's.
//
//	client [-v0] PROGRAM DRIVER CALL...
//
// starts the program as docker-machine does and makes the calls in order, each with a line for its answer. A call is a method's name,
// with an argument after = where it takes one: SetConfigRaw=JSON, SetConfigFromFlags=JSON. Further words: leave (go without a word, and
// wait for the plugin), stall (say nothing, wait for the plugin), both reporting how the plugin ended.
package main

import (
	"bufio"
	"context"
	"encoding/gob"
	"encoding/json"
	"fmt"
	"io"
	"net/rpc"
	"os"
	"os/exec"
	"strings"
	"time"
)

type flag interface{ text() string }

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

func (f *stringFlag) text() string { return fmt.Sprintf("%s string %s %q", f.Name, f.EnvVar, f.Value) }
func (f *intFlag) text() string    { return fmt.Sprintf("%s int %s %d", f.Name, f.EnvVar, f.Value) }
func (f *boolFlag) text() string   { return fmt.Sprintf("%s bool %s", f.Name, f.EnvVar) }
func (f *sliceFlag) text() string  { return fmt.Sprintf("%s slice %s %q", f.Name, f.EnvVar, f.Value) }

// options is what a plugin may ask the flags for.
type options interface{ String(key string) string }

type rpcFlags struct{ Values map[string]any }

func (f *rpcFlags) String(key string) string { s, _ := f.Values[key].(string); return s }

type none = struct{}

func main() {
	gob.RegisterName("*mcnflag.StringFlag", &stringFlag{})
	gob.RegisterName("*mcnflag.IntFlag", &intFlag{})
	gob.RegisterName("*mcnflag.BoolFlag", &boolFlag{})
	gob.RegisterName("*mcnflag.StringSliceFlag", &sliceFlag{})
	gob.RegisterName("*rpcdriver.RPCFlags", &rpcFlags{})
	args := os.Args[1:]
	service := "RPCServerDriver."
	if args[0] == "-v0" {
		service, args = "RpcServerDriver.", args[1:]
	}
	s := start(args[0], args[1])
	for _, call := range args[2:] {
		s.do(service, call)
	}
}

type server struct {
	cmd    *exec.Cmd
	client *rpc.Client
	said   []string // what the plugin told the user, once read is closed
	read   chan none
}

func start(program, driver string) *server {
	cmd := exec.CommandContext(context.Background(), program)
	cmd.Env = append(os.Environ(), "MACHINE_PLUGIN_TOKEN=42", "MACHINE_PLUGIN_DRIVER_NAME="+driver)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	must(err)
	must(cmd.Start())
	lines := bufio.NewReader(out)
	address, err := lines.ReadString('\n')
	must(err)
	client, err := rpc.DialHTTP("tcp", strings.TrimSpace(address))
	must(err)
	s := &server{cmd: cmd, client: client, read: make(chan none)}
	go func() {
		for {
			line, err := lines.ReadString('\n')
			if err == io.EOF {
				close(s.read)
				return
			}
			must(err)
			s.said = append(s.said, line)
		}
	}()
	return s
}

func must(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "client:", err)
		os.Exit(1)
	}
}

func (s *server) do(service, call string) {
	method, arg, _ := strings.Cut(call, "=")
	var err error
	var answer any = ""
	switch method {
	case "leave", "stall", "Close":
		s.end(service, method)
		return
	case "GetVersion", "GetState", "GetSSHPort":
		n := 0
		err = s.client.Call(service+method, none{}, &n)
		answer = n
	case "GetConfigRaw":
		var raw []byte
		err = s.client.Call(service+method, none{}, &raw)
		answer = string(raw)
	case "SetConfigRaw":
		err = s.client.Call(service+method, []byte(arg), nil)
	case "SetConfigFromFlags":
		var flags options = &rpcFlags{values(arg)}
		err = s.client.Call(service+method, &flags, nil)
	case "GetCreateFlags":
		var flags []flag
		err = s.client.Call(service+method, none{}, &flags)
		var texts []string
		for _, f := range flags {
			texts = append(texts, f.text())
		}
		answer = strings.Join(texts, "; ")
	case "DriverName", "GetMachineName", "GetSSHUsername", "GetSSHKeyPath", "GetSSHHostname", "GetIP", "GetIPv6", "GetURL":
		text := ""
		err = s.client.Call(service+method, none{}, &text)
		answer = text
	default:
		err = s.client.Call(service+method, none{}, nil)
	}
	if err != nil {
		first, _, _ := strings.Cut(err.Error(), "\n")
		fmt.Printf("%s: error: %s\n", method, first)
		return
	}
	fmt.Printf("%s: %v\n", method, answer)
}

// values are a create's flags, numbers whole as on a command line.
func values(text string) map[string]any {
	given := map[string]any{}
	must(json.Unmarshal([]byte(text), &given))
	for k, v := range given {
		switch v := v.(type) {
		case float64:
			given[k] = int(v)
		case []any:
			list := []string{}
			for _, e := range v {
				list = append(list, fmt.Sprint(e))
			}
			given[k] = list
		}
	}
	return given
}

// end ends the session in one way or another, and tells how the plugin took it.
func (s *server) end(service, way string) {
	switch way {
	case "Close":
		if err := s.client.Call(service+"Close", none{}, nil); err != nil {
			fmt.Println("Close: error:", err)
		}
	case "leave":
		must(s.client.Close())
	}
	began := time.Now()
	<-s.read
	for _, line := range s.said {
		fmt.Print("said: ", line)
	}
	err := s.cmd.Wait()
	fmt.Printf("%s: %v, soon: %v\n", way, s.cmd.ProcessState, time.Since(began) < 8*time.Second)
	if err != nil && !s.cmd.ProcessState.Exited() {
		must(err)
	}
}
