//go:build e2e

package e2e

import (
	"context"
	_ "embed"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"berth/test/shards"
)

// shardsEnv says how many shards there are at most. At night there is one: checks of how soon things happen are strict then, so the
// computer has nothing else to do.
const shardsEnv = "BERTH_E2E_SHARDS"

const (
	// worthwhile is how many seconds of tests are worth a shard, which has to start a fleet of its own.
	worthwhile = 40
	// unknown is what a test counts for that has no time on record.
	unknown = 10
	// long is from how many seconds on a test is left out with -short.
	long = 20
)

// costly is what only some tests need, by how their names begin: made once, if one shard has them all.
var costly = map[string]string{"TestGeneric": "a tree of Debian", "TestSocket": "a berth that needs no libraries"}

// alone, by how their names begin, are tests of how soon clients are answered, to the second, and of hundreds of clients at once, who are
// rightly refused if an engine gets no CPU for 600 ms: they come last, with nothing beside them. Others that measure time
// (TestManagersUnderFaults, TestALostHostsContainersRunElsewhere) leave a busy computer enough of it.
var alone = []string{"TestTrouble/", "TestManyClients/", "TestConformance/68_"}

// record has the seconds of each test, for shards that end together; a wrong one makes one of them end later than it could. It is what
// test/seconds makes of the output of `go test -v`.
//
//go:embed testdata/seconds.txt
var record string

// asked is a flag's value.
func asked(name string) string { return flag.Lookup(name).Value.String() }

// sharded runs the tests in shards.
func sharded(ctx context.Context, dir string) (int, error) {
	limit, err := shardLimit()
	if err != nil {
		return 1, err
	}
	parts, err := wanted(ctx)
	if err != nil {
		return 1, err
	}
	parts, left := usual(parts)
	all, last := divide(parts, limit)
	skipped := append(slices.Clone(all), shards.Divide(left, 1, worthwhile)...) // the last is one that nobody runs
	printer := shards.NewPrinter(os.Stdout, len(all))
	codes, errs := make([]int, len(all)), make([]error, len(all))
	for _, round := range [][2]int{{0, last}, {last, len(all)}} {
		var wg sync.WaitGroup
		for i := round[0]; i < round[1]; i++ {
			wg.Go(func() {
				out := printer.Output(i)
				codes[i], errs[i] = runShard(ctx, filepath.Join(dir, strconv.Itoa(i+1)), shardArgs(shards.Skip(skipped, i)), out)
				out.End()
			})
		}
		wg.Wait()
	}
	err = errors.Join(errs...)
	code := slices.Max(codes)
	if code == 0 && (err != nil || slices.Min(codes) != 0) { // one was killed
		code = 1
	}
	return code, errors.Join(err, printer.Verdict(code == 0))
}

// usual are the tests to run, and those that are left out with -short.
func usual(parts []shards.Part) (run, left []shards.Part) {
	if !testing.Short() {
		return parts, nil
	}
	for _, p := range parts {
		if p.Seconds < long {
			run = append(run, p)
			continue
		}
		left = append(left, p)
		fmt.Printf("-short leaves out %s (%.0f s)\n", strings.TrimSuffix(p.Test+"/"+p.Sub, "/"), p.Seconds)
	}
	return run, left
}

// divide makes shards, of which those from last on have to wait until the others have ended.
func divide(parts []shards.Part, limit int) (all []shards.Shard, last int) {
	all = shards.Divide(parts, limit, worthwhile)
	if len(all) == 1 {
		return all, 1
	}
	isAlone := func(p shards.Part) bool {
		return slices.ContainsFunc(alone, func(begin string) bool { return strings.HasPrefix(p.Test+"/"+p.Sub, begin) })
	}
	var quiet []shards.Part
	for _, p := range parts {
		if isAlone(p) {
			quiet = append(quiet, p)
		}
	}
	all = shards.Divide(slices.DeleteFunc(parts, isAlone), limit, worthwhile)
	if last = len(all); len(quiet) > 0 {
		all = append(all, shards.Divide(quiet, 1, worthwhile)...)
	}
	return all, last
}

// runShard runs some of the tests in namespaces and a folder of their own.
func runShard(ctx context.Context, dir string, args []string, out io.Writer) (int, error) {
	if err := os.Mkdir(dir, 0o700); err != nil {
		return 1, err
	}
	cmd := again(ctx, "init", args)
	cmd.Env = append(cmd.Env, "TMPDIR="+dir)
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS | syscall.CLONE_NEWPID | syscall.CLONE_NEWUTS | syscall.CLONE_NEWIPC,
		Pdeathsig:  syscall.SIGKILL,
	}
	runtime.LockOSThread() // Pdeathsig is of the thread that starts it
	defer runtime.UnlockOSThread()
	return exitCode(cmd.Run())
}

func shardLimit() (int, error) {
	if v := os.Getenv(shardsEnv); v != "" {
		n, err := strconv.Atoi(v)
		if err != nil || n < 1 {
			return 0, fmt.Errorf("%s=%s is no number of shards", shardsEnv, v)
		}
		return n, nil
	}
	if nightly() {
		return 1, nil
	}
	return max(2, runtime.NumCPU()*3/2), nil // half of a test's time is waiting
}

// shardArgs are the arguments of this run, but that what others do is skipped.
func shardArgs(skip string) []string {
	args := slices.Clone(os.Args[1 : len(os.Args)-flag.NArg()])
	if skip != "" {
		if also := asked("test.skip"); also != "" {
			skip = also + "|" + skip
		}
		args = append(args, "-test.skip="+skip)
	}
	return append(args, flag.Args()...)
}

// wanted are the tests that this run asks for. Those of TestConformance are divided, too.
func wanted(ctx context.Context) ([]shards.Part, error) {
	seconds, err := shards.Times(record)
	if err != nil {
		return nil, err
	}
	list, err := again(ctx, "list", []string{"-test.list=^Test"}).Output()
	if err != nil {
		return nil, fmt.Errorf("list the tests: %w", err)
	}
	var all []shards.Part
	for _, test := range strings.Fields(string(list)) {
		subs := []string{""}
		if test == "TestConformance" {
			subs = checkNames()
		}
		for _, sub := range subs {
			p := shards.Part{Test: test, Sub: sub, Seconds: unknown}
			if s, ok := seconds[strings.TrimSuffix(test+"/"+sub, "/")]; ok {
				p.Seconds = s
			}
			for begin, what := range costly {
				if strings.HasPrefix(test, begin) {
					p.Shares = what
				}
			}
			if shards.Selects(asked("test.run"), p) {
				all = append(all, p)
			}
		}
	}
	return all, nil
}

// checkNames are the checks' names as testing has them, of which a slash would end one.
func checkNames() (names []string) {
	for i, c := range conformance {
		name, _, _ := strings.Cut(c.name, "/")
		names = append(names, strings.ReplaceAll(fmt.Sprintf("%02d %s", i+1, name), " ", "_"))
	}
	return names
}
