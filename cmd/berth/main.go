// Command berth makes Docker hosts, and serves many of them as one.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

// exitInterrupted is what shells expect of a program that Ctrl-C ended.
const exitInterrupted = 130

func main() {
	// The first process of a local machine is this binary; nothing of a command line may run before it.
	if platformMain(os.Args) {
		return
	}
	if status, asked := servePlugin(os.Args); asked {
		os.Exit(status)
	}
	os.Exit(run(os.Args))
}

// run is the whole program but for the exit.
func run(argv []string) int {
	ctx, stop := interruptible()
	defer stop()
	name, argv := calledAs(argv)
	p := &program{
		name: name, argv: argv,
		in: os.Stdin, out: os.Stdout, err: os.Stderr,
		drivers: drivers(),
	}
	err := p.execute(ctx)
	if err == nil {
		return 0
	}
	_, said := errors.AsType[*statusError](err)  // by the command on the machine
	if !said && !errors.Is(err, syscall.EPIPE) { // whoever read our output knows that they stopped
		fmt.Fprintln(p.err, p.explain(err)) //nolint:errcheck // nothing is left to say it to
	}
	if context.Cause(ctx) == errInterrupted { //nolint:errorlint // the cause is this very value
		return exitInterrupted
	}
	return exitCode(err)
}

var errInterrupted = errors.New("interrupted")

// interruptible is a context that the first Ctrl-C, SIGTERM or closed terminal ends, so that work in progress is undone. A second
// one exits at once.
func interruptible() (ctx context.Context, stop func()) {
	ctx, cancel := context.WithCancelCause(context.Background())
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	// A reader of our output that goes away must not end the program in the middle of a create. The signal is caught, not
	// ignored: to ignore is inherited by the engines that a create starts.
	pipes := make(chan os.Signal, 1)
	signal.Notify(pipes, syscall.SIGPIPE)
	done := make(chan struct{})
	go func() {
		select {
		case <-signals:
		case <-done:
			return
		}
		fmt.Fprintln(os.Stderr, "Interrupted: cleaning up. Once more exits at once.") //nolint:errcheck // best effort
		cancel(errInterrupted)
		select {
		case <-signals:
			os.Exit(exitInterrupted)
		case <-done:
		}
	}()
	return ctx, func() {
		signal.Stop(signals)
		signal.Stop(pipes)
		close(done)
		cancel(nil)
	}
}
