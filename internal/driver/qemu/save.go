package qemu

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime"
	"strings"
	"time"

	"github.com/shirou/gopsutil/v4/disk"

	"berth/internal/machine"
)

// saveTime bounds a save and a resume: much memory on a slow disk.
const saveTime = 15 * time.Minute

// Save implements machine.Saver: the machine is halted, its memory goes into a file, its process ends. The file gets its name only
// when it is whole. Whatever goes wrong before, the machine goes on.
func (d Driver) Save(ctx context.Context, i machine.Instance) error {
	v, err := readVM(i)
	if err != nil {
		return err
	}
	p, err := findProcess(i)
	if err != nil {
		return err
	}
	if !p.runs() {
		return errors.New("it does not run")
	}
	if err := roomFor(i, v); err != nil {
		return err
	}
	if err := writeMemory(ctx, i); err != nil {
		undo, cancel := context.WithTimeout(context.WithoutCancel(ctx), askTime)
		defer cancel()
		return errors.Join(err, backToWork(undo, i))
	}
	return endProcess(context.WithoutCancel(ctx), i)
}

// roomFor refuses to begin what would fill the disk.
func roomFor(i machine.Instance, v vm) error {
	usage, err := disk.Usage(i.Dir)
	if err != nil {
		return nil //nolint:nilerr // where the file system does not tell, the writing will
	}
	if free := usage.Free >> 20; free < uint64(v.Memory) { //nolint:gosec // positive
		return fmt.Errorf("its %d MB of memory may not find room: %s has %d MB free", v.Memory, i.Dir, free)
	}
	return nil
}

// backToWork lets the machine go on after a save that came to nothing.
func backToWork(ctx context.Context, i machine.Instance) error {
	_ = command(ctx, i, "migrate_cancel", nil, nil) // there may be nothing to cancel
	err := command(ctx, i, "cont", nil, nil)
	if gone := os.Remove(file(i, savedPart)); gone != nil && !errors.Is(gone, fs.ErrNotExist) {
		err = errors.Join(err, gone)
	}
	return err
}

func writeMemory(ctx context.Context, i machine.Instance) error {
	ctx, cancel := context.WithTimeout(ctx, saveTime)
	defer cancel()
	if err := command(ctx, i, "stop", nil, nil); err != nil { // so that what is written does not change any more
		return err
	}
	// Nobody else uses the disk meanwhile; without a bound QEMU would write 128 MB a second.
	_ = command(ctx, i, "migrate-set-parameters", map[string]any{"max-bandwidth": int64(1) << 40}, nil)
	if err := os.Remove(file(i, savedPart)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	uri, err := memoryURI(ctx, i, file(i, savedPart), true)
	if err != nil {
		return err
	}
	if err := command(ctx, i, "migrate", map[string]any{"uri": uri}, nil); err != nil {
		return err
	}
	if err := awaitMigration(ctx, i); err != nil {
		return err
	}
	if err := syncFile(file(i, savedPart)); err != nil {
		return err
	}
	return os.Rename(file(i, savedPart), file(i, savedFile))
}

// memoryURI is where QEMU writes or reads a machine's memory. Up to 8.1 it knows no files for that, only other programs.
func memoryURI(ctx context.Context, i machine.Instance, path string, write bool) (string, error) {
	var version struct{ QEMU struct{ Major, Minor int } }
	if err := command(ctx, i, "query-version", nil, &version); err != nil {
		return "", err
	}
	if q := version.QEMU; q.Major > 8 || q.Major == 8 && q.Minor >= 2 || runtime.GOOS == "windows" {
		return "file:" + path, nil
	}
	quoted := "'" + strings.ReplaceAll(path, "'", `'\''`) + "'"
	if write {
		return "exec:umask 077 && exec cat >" + quoted, nil
	}
	return "exec:exec cat <" + quoted, nil
}

// awaitMigration waits until all memory has gone out.
func awaitMigration(ctx context.Context, i machine.Instance) error {
	for {
		var m struct {
			Status string
			Desc   string `json:"error-desc"`
		}
		if err := command(ctx, i, "query-migrate", nil, &m); err != nil {
			return err
		}
		switch m.Status {
		case "completed":
			return nil
		case "failed", "cancelled":
			return fmt.Errorf("QEMU could not write its memory: %s %s", m.Desc, tail(i, logFile))
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(lookTime):
		}
	}
}

func syncFile(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// resume starts a saved machine. Its memory is read while it is halted, and gone from the disk before it goes on: resumed a second
// time, it would not know what it has written since.
func (d Driver) resume(ctx context.Context, i machine.Instance, v vm) (machine.Instance, error) {
	limited, cancel := context.WithTimeout(ctx, saveTime)
	defer cancel()
	before := i
	i, err := d.launch(limited, i, v, "-S", "-incoming", "defer")
	if err != nil {
		return before, errors.Join(err, endProcess(context.WithoutCancel(ctx), i))
	}
	if err := readMemory(limited, i); err != nil {
		err = fmt.Errorf("bring back its memory: %w\nIt stays saved. Kill it to throw its memory away; then it boots anew", err)
		return before, errors.Join(err, endProcess(context.WithoutCancel(ctx), i))
	}
	if err := dropSaved(i); err != nil {
		return before, errors.Join(err, endProcess(context.WithoutCancel(ctx), i))
	}
	if err := command(ctx, i, "cont", nil, nil); err != nil {
		return i, err
	}
	setClock(ctx, i)
	return i, nil
}

func readMemory(ctx context.Context, i machine.Instance) error {
	uri, err := memoryURI(ctx, i, file(i, savedFile), false)
	if err != nil {
		return err
	}
	if err := command(ctx, i, "migrate-incoming", map[string]any{"uri": uri}, nil); err != nil {
		return err
	}
	for {
		status, err := askStatus(ctx, i)
		if err != nil {
			return fmt.Errorf("%w: %s", err, tail(i, logFile))
		}
		if status != "inmigrate" {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(lookTime):
		}
	}
}
