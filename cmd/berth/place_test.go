package main

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/spf13/pflag"

	"berth/internal/api"
	"berth/internal/cluster"
	"berth/internal/discovery"
	"berth/internal/dockertest"
	"berth/internal/metrics"
	"berth/internal/proxy"
	"berth/internal/schedule"
)

// TestPlaceScripts runs the scripts in testdata/place with an endpoint over three nodes, of which n1 and n2 have disk=ssd.
func TestPlaceScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/place",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup: func(env *testscript.Env) error {
			env.Setenv("HOME", env.WorkDir)
			env.Setenv("GORACE", "atexit_sleep_ms=0")
			var addrs []string
			for _, name := range []string{"n1", "n2", "n3"} {
				o := dockertest.Options{Name: name, Images: []string{"busybox"}, Labels: []string{"disk=ssd"}}
				if name == "n3" {
					o.Labels = []string{"disk=hdd"}
				}
				d := dockertest.New(env.T().(testing.TB), o)
				addrs = append(addrs, d.HostPort())
			}
			socket := filepath.Join(env.WorkDir, "berth.sock")
			env.Setenv("BERTH_HOST", "unix://"+socket)
			env.Setenv("ENGINE", "tcp://"+addrs[0])
			return servePlace(env, socket, addrs)
		},
	})
}

// servePlace serves the engines until the script has ended.
func servePlace(env *testscript.Env, socket string, addrs []string) error {
	p := &program{err: io.Discard}
	o := &serveOptions{policy: schedule.DefaultPolicy(), apiMax: apiMax, failureRetry: 3, refreshMax: 1 << 40, backlog: 64, logLevel: "error", logFormat: "text"}
	log, err := o.logger(p)
	if err != nil {
		return err
	}
	source, err := discovery.Parse("nodes://"+strings.Join(addrs, ","), discovery.Options{Warn: func(error) {}})
	if err != nil {
		return err
	}
	ctx, stop := context.WithCancel(context.Background())
	l, err := listenUnix(ctx, socket)
	if err != nil {
		stop()
		return err
	}
	tunnels := new(proxy.Tunnels)
	c := cluster.New(p.clusterOptions(o, log, tunnels, metrics.New("test", tunnels.Len)))
	handler := api.New(c, api.Options{Version: "test", APIMax: apiMax, ID: "test", Log: log, Ready: c.Looked()})
	done := make(chan error, 1)
	go func() {
		done <- (&serving{cluster: c, sources: []cluster.Source{&addrSource{source: source, log: log}}, handler: handler, listeners: []net.Listener{l}, tunnels: tunnels, log: log}).run(ctx)
	}()
	env.Defer(func() {
		stop()
		if err := <-done; err != nil {
			env.T().Log("endpoint:", err)
			env.T().FailNow()
		}
	})
	return nil
}

func TestSplitOwn(t *testing.T) {
	for line, want := range map[string]string{
		"busybox":                              " | busybox",
		"-m 4g busybox":                        " | -m 4g busybox",
		"-H unix:///x -m 4g busybox":           "-H unix:///x | -m 4g busybox",
		"-Hunix:///x --format json busybox":    "-Hunix:///x --format json | busybox",
		"--format=json --tls busybox --format": "--format=json --tls | busybox --format",
		"-h name busybox":                      " | -h name busybox",
		"--compose a.yml --compose b.yml":      "--compose a.yml --compose b.yml | ",
		"--format":                             "--format | ",
		"-- busybox":                           " | busybox",
		"--help":                               "--help | ",
	} {
		t.Run(line, func(t *testing.T) {
			cmd := new(program).placeCmd()
			cmd.InitDefaultHelpFlag()
			ours, rest := splitOwn(cmd.Flags(), strings.Split(line, " "))
			if got := strings.Join(ours, " ") + " | " + strings.Join(rest, " "); got != want {
				t.Errorf("splitOwn(%s) = %q, want %q", line, got, want)
			}
		})
	}
}

// TestNoFlagIsDockersToo keeps our flags apart from docker run's: what stands in front would be taken from it.
func TestNoFlagIsDockersToo(t *testing.T) {
	const dockers = "acdehilmpPqtuvw" // the short flags of docker run
	new(program).placeCmd().Flags().VisitAll(func(f *pflag.Flag) {
		if f.Shorthand != "" && f.Name != "help" && strings.Contains(dockers, f.Shorthand) {
			t.Errorf("-%s is docker run's", f.Shorthand)
		}
	})
}

func TestPlaceNeedsADockerClient(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("PATH", dir)
	for want, prepare := range map[string]func() error{
		"docker is not in PATH": func() error { return nil },
		"is berth": func() error {
			self, err := os.Executable()
			return errors.Join(err, os.Symlink(self, filepath.Join(dir, "docker")))
		},
	} {
		if err := os.Remove(filepath.Join(dir, "docker")); err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
		if err := prepare(); err != nil {
			t.Fatal(err)
		}
		if path, err := findDocker(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("findDocker() = %q, %v, want an error with %q", path, err, want)
		}
	}
}
