package qemu

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/shirou/gopsutil/v4/process"

	"berth/internal/machine"
)

const (
	quitTime = 10 * time.Second // a QEMU that was told to quit
	killTime = 10 * time.Second // one that was killed
	lookTime = 100 * time.Millisecond
)

// runner is a machine's QEMU; the zero value is none.
type runner struct {
	pid   int32
	began int64 // by the system's clock, in ms
}

func (r runner) runs() bool { return r.pid != 0 }

// findProcess is the process that runs the machine, if one does.
//
// The pid file outlives a crash or a power cut, and its number may be another process's by now. The machine's was there when
// the file was written, and names it on its command line.
func findProcess(i machine.Instance) (runner, error) {
	path := file(i, pidFile)
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return runner{}, nil
	}
	if err != nil {
		return runner{}, err
	}
	info, err := os.Stat(path)
	if err != nil {
		return runner{}, err
	}
	pid, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 32)
	if err != nil || pid <= 1 {
		return runner{}, nil //nolint:nilerr // half a file, of a QEMU that did not come to run
	}
	p, err := process.NewProcess(int32(pid))
	if err != nil {
		return runner{}, nil //nolint:nilerr // it is gone
	}
	began, err := p.CreateTime()
	if err != nil {
		return runner{}, nil //nolint:nilerr // it is gone
	}
	const slack = 2000 // ms, by which systems reckon differently
	if began > info.ModTime().UnixMilli()+slack {
		return runner{}, nil
	}
	args, err := p.CmdlineSlice()
	if err != nil || !slices.Contains(args, path) {
		return runner{}, nil //nolint:nilerr // it is gone, or another's
	}
	r := runner{int32(pid), began}
	if gone, err := r.gone(); gone || err != nil {
		return runner{}, err
	}
	return r, nil
}

// gone tells whether the process has ended.
func (r runner) gone() (bool, error) {
	p, err := process.NewProcess(r.pid)
	if err != nil {
		return true, nil //nolint:nilerr // this is how it says so
	}
	began, err := p.CreateTime()
	if err != nil {
		return true, nil //nolint:nilerr // meanwhile
	}
	const slack = 2000
	if began > r.began+slack {
		return true, nil
	}
	status, err := p.Status()
	return err == nil && slices.Contains(status, process.Zombie), nil
}

// awaitEnd waits until the process has ended.
func (r runner) awaitEnd(ctx context.Context, limit time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	tick := time.NewTicker(lookTime)
	defer tick.Stop()
	for {
		if gone, err := r.gone(); gone || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for process %d to end: %w", r.pid, ctx.Err())
		case <-tick.C:
		}
	}
}

// endProcess takes the machine's power away: by QEMU's own hand, else by the system's.
func endProcess(ctx context.Context, i machine.Instance) error {
	r, err := findProcess(i)
	if !r.runs() || err != nil {
		return err
	}
	if quit := command(ctx, i, "quit", nil, nil); quit == nil {
		if err := r.awaitEnd(ctx, quitTime); err == nil {
			return nil
		}
	}
	if r, err = findProcess(i); !r.runs() || err != nil { // looked at anew: it may have ended meanwhile
		return err
	}
	p, err := os.FindProcess(int(r.pid))
	if err != nil {
		return err
	}
	if err := p.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("kill process %d: %w", r.pid, err)
	}
	return r.awaitEnd(ctx, killTime)
}

// tail is the end of a file of the machine's, for an error.
func tail(i machine.Instance, name string) string {
	text, err := os.ReadFile(file(i, name))
	if err != nil {
		return ""
	}
	const most = 600
	text = bytes.TrimSpace(text)
	if len(text) > most {
		text = text[len(text)-most:]
	}
	return strings.ToValidUTF8(string(text), "")
}

// escapeGlob has a path stand for itself in a pattern.
func escapeGlob(path string) string {
	if os.PathSeparator == '\\' { // there is no escaping there
		return path
	}
	return strings.NewReplacer(`\`, `\\`, "*", `\*`, "?", `\?`, "[", `\[`).Replace(path)
}
