// Command bench measures berth serve beside what bounds it, on simulated engines, and prints a table of what it must reach.
//
// The engines run in a process of their own, berth in another. What is compared is measured by turns in one run: an engine
// asked directly, Go's ReverseProxy in front of it, ready-made bytes. Ratios hold on a computer that others use too; times
// and rates do not. See docs/performance.md.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

type options struct {
	nodes, containers int
	ops, streams      int
	tests             []string
	berth             string
	soak              time.Duration
	rate              int
}

var allTests = []string{"cold", "create", "list", "inspect", "events", "streams", "dead"}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1) //nolint:gocritic // stop has nothing left to do
	}
}

func run(ctx context.Context) error {
	var o options
	flag.IntVar(&o.nodes, "nodes", 100, "engines")
	flag.IntVar(&o.containers, "containers", 30, "containers of each engine")
	flag.IntVar(&o.ops, "ops", 400, "operations of one round")
	flag.IntVar(&o.streams, "streams", 200, "streams at rest")
	tests := flag.String("tests", strings.Join(allTests, ","), "what to measure")
	flag.StringVar(&o.berth, "berth", "", "the program to measure (default: built from here)")
	flag.DurationVar(&o.soak, "soak", 0, "instead: create and remove for so long, and look for what grows, is lost or doubled")
	flag.IntVar(&o.rate, "rate", 50, "creates and removes a second of -soak")
	sim := flag.Bool("simulate", false, "be the engines (bench starts itself so)")
	proxy := flag.String("proxy", "", "be Go's ReverseProxy in front of this address (likewise)")
	flag.Parse()
	switch {
	case *sim:
		return simulate(o.nodes, o.containers)
	case *proxy != "":
		return reverseProxy(*proxy)
	}
	o.tests = strings.Split(*tests, ",")
	for _, t := range o.tests {
		if !slices.Contains(allTests, t) {
			return fmt.Errorf("no test %q: there are %s", t, strings.Join(allTests, ", "))
		}
	}
	return measure(ctx, o)
}

func measure(ctx context.Context, o options) (err error) {
	dir, err := os.MkdirTemp("", "berth-bench")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	if o.berth == "" {
		o.berth = filepath.Join(dir, "berth")
		cmd := exec.CommandContext(ctx, "go", "build", "-o", o.berth, "./cmd/berth")
		cmd.Stderr = os.Stderr
		if err := cmd.Run(); err != nil {
			return fmt.Errorf("build berth: %w", err)
		}
	}
	// One engine more, which berth does not know: the floor of what changes something.
	sim, err := startSimulator(ctx, o.nodes+1, o.containers)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, sim.stop()) }()
	m, err := startManager(ctx, o.berth, dir, sim.addrs[:o.nodes])
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, m.stop()) }()
	b := &bench{o: o, sim: sim, m: m, fleet: newClient("tcp", m.addr), direct: newClient("tcp", sim.addrs[0]), spare: newClient("tcp", sim.addrs[o.nodes])}
	fmt.Printf("%d nodes, %d containers each, on %s\n", o.nodes, o.containers, time.Now().Format(time.DateTime))
	if err := b.awaitAll(ctx); err != nil {
		return err
	}
	if o.soak > 0 {
		return b.soak(ctx)
	}
	if o.nodes*o.containers > 10_000 { // its details take a while
		if err := b.awaitQuiet(ctx); err != nil {
			return err
		}
	}
	for _, t := range o.tests {
		if err := b.tests()[t](ctx); err != nil {
			return fmt.Errorf("%s: %w", t, err)
		}
	}
	return b.print()
}

// row is one line of the table.
type row struct {
	name   string
	figure float64
	must   float64 // 0 for none
	least  bool    // must is the least, not the most
	unit   string
}

func (b *bench) add(name string, figure, must float64, unit string) {
	b.rows = append(b.rows, row{name: name, figure: figure, must: must, unit: unit})
}

func (b *bench) print() error {
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "WHAT\tFIGURE\tMUST\t") //nolint:errcheck // Flush tells
	for _, r := range b.rows {
		must, verdict := "", ""
		if r.must != 0 {
			sign, ok := "≤", r.figure <= r.must
			if r.least {
				sign, ok = "≥", r.figure >= r.must
			}
			must, verdict = fmt.Sprintf("%s %.4g %s", sign, r.must, r.unit), "ok"
			if !ok {
				verdict = "MISSED"
			}
		}
		fmt.Fprintf(w, "%s\t%.3g %s\t%s\t%s\n", r.name, r.figure, r.unit, must, verdict) //nolint:errcheck // Flush tells
	}
	return w.Flush()
}
