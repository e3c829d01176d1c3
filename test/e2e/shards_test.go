//go:build e2e

package e2e

import (
	"context"
	_ "embed"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"

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
)

// costly is what only some tests need, by how their names begin: made once, if one shard has them all.
var costly = map[string]string{"TestGeneric": "a tree of Debian", "TestSocket": "a berth that needs no libraries"}

// record has the seconds of each test, for shards that end together; a wrong one makes one of them end later than it could. It is what
// test/seconds makes of the output of `go test -v`.
//
//go:embed testdata/seconds.txt
var record string

// asked is a flag's value.
func asked(name string) string { return flag.Lookup(name).Value.String() }

// sharded runs the tests in shards, each in namespaces and a folder of its own.
func sharded(ctx context.Context, dir string) (int, error) {
	limit, err := shardLimit()
	if err != nil {
		return 1, err
	}
	parts, err := wanted(ctx)
	if err != nil {
		return 1, err
	}
	all := shards.Divide(parts, limit, worthwhile)
	printer := shards.NewPrinter(os.Stdout, len(all))
	type end struct {
		code int
		err  error
	}
	ends := make(chan end, len(all))
	started := 0
	for i := range all {
		tmp := filepath.Join(dir, strconv.Itoa(i+1))
		if err = os.Mkdir(tmp, 0o700); err != nil {
			break
		}
		cmd := again(ctx, "init", shardArgs(shards.Skip(all, i)))
		cmd.Env = append(cmd.Env, "TMPDIR="+tmp)
		out := printer.Output(i)
		cmd.Stdout, cmd.Stderr = out, out
		cmd.SysProcAttr = &syscall.SysProcAttr{
			Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS | syscall.CLONE_NEWPID | syscall.CLONE_NEWUTS | syscall.CLONE_NEWIPC,
			Pdeathsig:  syscall.SIGKILL,
		}
		if err = cmd.Start(); err != nil {
			break
		}
		started++
		go func() {
			code, err := exitCode(cmd.Wait())
			out.End()
			ends <- end{code, err}
		}()
	}
	code := 0
	for range started {
		e := <-ends
		err = errors.Join(err, e.err)
		if code == 0 {
			code = e.code
		}
	}
	if err != nil && code == 0 {
		code = 1
	}
	return code, errors.Join(err, printer.Verdict(code == 0))
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

// checkNames are the checks' names as testing has them.
func checkNames() (names []string) {
	for i, c := range conformance {
		names = append(names, strings.ReplaceAll(fmt.Sprintf("%02d %s", i+1, c.name), " ", "_"))
	}
	return names
}
