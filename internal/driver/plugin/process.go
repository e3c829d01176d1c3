package plugin

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// pipeTime is how long a plugin that has ended is listened to, if children of it hold its output open.
const pipeTime = time.Second

// process is a running plugin.
type process struct {
	address chan string // the first line of its output
	exited  chan struct{}
	err     error // how it ended, once exited is closed
	words   lastWords
	quiet   atomic.Bool // what it says now is not for the user

	cmd *exec.Cmd
}

// spawn starts the plugin. Whoever does so calls stop.
func (d *Driver) spawn(info, debug func(string)) (*process, error) {
	p := &process{address: make(chan string, 1), exited: make(chan struct{})}
	announce := sync.OnceFunc(func() { close(p.address) })
	first := true
	out := &lines{line: func(line string) {
		if first {
			first = false
			p.address <- line
			announce()
			return
		}
		if p.quiet.Load() {
			debug(line)
			return
		}
		info(line)
	}}
	errs := &lines{line: func(line string) {
		p.words.note(line)
		debug(line)
	}}
	p.cmd = exec.Command(d.path) //nolint:noctx // it is asked to end before it is made to, see session.close
	p.cmd.Env = append(os.Environ(), tokenVariable+"="+token, nameVariable+"="+d.name)
	p.cmd.Stdout, p.cmd.Stderr = out, errs
	p.cmd.WaitDelay = pipeTime
	detach(p.cmd)
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		p.err = p.cmd.Wait()
		out.end()
		errs.end()
		announce()
		close(p.exited)
	}()
	return p, nil
}

// ended is the error of a plugin that is there no more.
func (p *process) ended() error {
	text := "it ended"
	var status *exec.ExitError
	switch {
	case errors.As(p.err, &status):
		text = "it ended: " + status.Error()
	case p.err != nil && !errors.Is(p.err, exec.ErrWaitDelay):
		return fmt.Errorf("it ended: %w", p.err)
	}
	if words := p.words.String(); words != "" {
		text += ": " + words
	}
	return errors.New(text)
}

// stop ends the plugin, at once if grace is 0, and waits for its end.
func (p *process) stop(grace time.Duration) {
	timer := time.NewTimer(grace)
	defer timer.Stop()
	select {
	case <-p.exited:
		return
	case <-timer.C:
	}
	// It fails only on a process that is gone, which is what is wanted.
	_ = p.cmd.Process.Kill()
	<-p.exited
}

// parseAddress reads a plugin's first line: where on this computer it listens. The protocol has no secrets, so that it is elsewhere is an
// error.
func parseAddress(line string) (string, error) {
	a, err := netip.ParseAddrPort(strings.TrimSpace(line))
	if err != nil || a.Port() == 0 || !a.Addr().IsLoopback() {
		return "", fmt.Errorf("it says %.100q where its address on this computer is to stand: is it a docker-machine driver plugin?", line)
	}
	return a.String(), nil
}
