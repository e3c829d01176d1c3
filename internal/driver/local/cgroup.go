package local

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// boxLeaf is the cgroup of a box's own processes, beside those of its containers: version 2 allows processes in leaves only.
const boxLeaf = "box"

// hierarchy is one tree of cgroups: version 2's only one, or each of version 1's.
type hierarchy struct {
	dir         string // where it is mounted
	controllers []string
	v2          bool
}

// findHierarchies lists the trees that are mounted here, of either version or of both, as systemd's hybrid layout has it.
func findHierarchies() ([]hierarchy, error) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("find cgroups: %w", err)
	}
	defer f.Close()
	var found []hierarchy
	seen := map[string]bool{}
	for lines := bufio.NewScanner(f); lines.Scan(); {
		h, device, ok := parseHierarchy(lines.Text())
		if !ok || seen[device] {
			continue
		}
		seen[device] = true
		if h.v2 {
			text, err := os.ReadFile(filepath.Join(h.dir, "cgroup.controllers"))
			if err != nil {
				return nil, fmt.Errorf("find cgroups: %w", err)
			}
			h.controllers = strings.Fields(string(text))
		}
		found = append(found, h)
	}
	return found, nil
}

// parseHierarchy reads a line of mountinfo: see proc(5).
func parseHierarchy(line string) (h hierarchy, device string, ok bool) {
	mount, rest, _ := strings.Cut(line, " - ")
	m, r := strings.Fields(mount), strings.Fields(rest)
	if len(m) < 5 || len(r) < 3 || (r[0] != "cgroup" && r[0] != "cgroup2") {
		return hierarchy{}, "", false
	}
	h = hierarchy{dir: unescapeMount(m[4]), v2: r[0] == "cgroup2"}
	if !h.v2 {
		h.controllers = strings.Split(r[2], ",")
	}
	return h, m[2], true
}

// unescapeMount undoes the octal escapes of mountinfo.
func unescapeMount(path string) string {
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(path)
}

func (h hierarchy) writable() error { return unix.Access(h.dir, unix.W_OK) }

func (h hierarchy) has(controller string) bool { return slices.Contains(h.controllers, controller) }

// prepareCgroups makes the box's cgroups and returns the files through which a process enters them.
func (b *box) prepareCgroups() (enter []string, err error) {
	hierarchies, err := findHierarchies()
	if err != nil {
		return nil, err
	}
	for _, h := range hierarchies {
		top := filepath.Join(h.dir, b.Cgroup)
		leaf := filepath.Join(top, boxLeaf)
		for _, dir := range []string{top, leaf} {
			if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
				return nil, fmt.Errorf("make cgroup: %w", err)
			}
			if err := h.allowAllCPUs(dir); err != nil {
				return nil, fmt.Errorf("make cgroup: %w", err)
			}
		}
		enter = append(enter, filepath.Join(leaf, "cgroup.procs"))
	}
	return enter, nil
}

// allowAllCPUs: version 1's cpuset starts empty, and nothing can run in it then.
func (h hierarchy) allowAllCPUs(dir string) error {
	if h.v2 || !h.has("cpuset") {
		return nil
	}
	for _, file := range []string{"cpuset.cpus", "cpuset.mems"} {
		all, err := os.ReadFile(filepath.Join(filepath.Dir(dir), file))
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, file), all, 0); err != nil {
			return err
		}
	}
	return nil
}

// walk calls do for each of the box's cgroups that exists.
func (b *box) walk(do func(h hierarchy, dir string) error) error {
	hierarchies, err := findHierarchies()
	if err != nil {
		return err
	}
	for _, h := range hierarchies {
		err := filepath.WalkDir(filepath.Join(h.dir, b.Cgroup), func(path string, d fs.DirEntry, err error) error {
			switch {
			case errors.Is(err, os.ErrNotExist): // it has just gone
				return nil
			case err != nil:
				return err
			case !d.IsDir():
				return nil
			}
			return do(h, path)
		})
		if err != nil {
			return fmt.Errorf("look through cgroups: %w", err)
		}
	}
	return nil
}

// pids are the box's processes, with its containers'.
func (b *box) pids() (map[int]bool, error) {
	all := map[int]bool{}
	err := b.walk(func(_ hierarchy, dir string) error {
		pids, err := readPIDs(dir)
		for _, pid := range pids {
			all[pid] = true
		}
		return err
	})
	return all, err
}

func readPIDs(dir string) ([]int, error) {
	text, err := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
	// ENODEV: the cgroup went away after it was opened. EOPNOTSUPP: it holds threads, whose process is listed above it.
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ENODEV) || errors.Is(err, unix.EOPNOTSUPP) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var pids []int
	for _, word := range strings.Fields(string(text)) {
		if pid, err := strconv.Atoi(word); err == nil && pid > 0 { // 0: of a namespace that cannot be seen from here
			pids = append(pids, pid)
		}
	}
	return pids, nil
}

// initPID is the box's first process, 0 if it has none. It is looked up each time: a number that was written down may be
// another process's today.
func (b *box) initPID() (int, error) {
	hierarchies, err := findHierarchies()
	if err != nil {
		return 0, err
	}
	own, _ := namespacePIDs("self")
	for _, h := range hierarchies {
		pids, err := readPIDs(filepath.Join(h.dir, b.Cgroup, boxLeaf))
		if err != nil {
			return 0, fmt.Errorf("look for the box's processes: %w", err)
		}
		for _, pid := range pids {
			numbers, alive := namespacePIDs(strconv.Itoa(pid))
			if alive && len(numbers) == len(own)+1 && numbers[len(numbers)-1] == "1" {
				return pid, nil
			}
		}
	}
	return 0, nil
}

// namespacePIDs are a process's numbers, from the outer PID namespace to its own.
func namespacePIDs(pid string) (numbers []string, alive bool) {
	text, err := os.ReadFile("/proc/" + pid + "/status")
	if err != nil {
		return nil, false
	}
	for line := range strings.Lines(string(text)) {
		key, value, _ := strings.Cut(line, ":")
		switch key {
		case "NSpid":
			numbers = strings.Fields(value)
		case "VmSize": // one that is ending has given its memory back, but may still wait for others of its namespace
			alive = true
		}
	}
	return numbers, alive
}

// thaw wakes what was frozen, as a paused container is: version 1 does not let a frozen process die.
func (b *box) thaw() error {
	return b.walk(func(h hierarchy, dir string) error { return h.thaw(dir) })
}

// thawOwn wakes the box and leaves its containers as they are.
func (b *box) thawOwn() error {
	return b.walk(func(h hierarchy, dir string) error {
		if top := filepath.Join(h.dir, b.Cgroup); dir != top && dir != filepath.Join(top, boxLeaf) {
			return nil
		}
		return h.thaw(dir)
	})
}

func (h hierarchy) thaw(dir string) error {
	var err error
	switch {
	case h.v2:
		err = os.WriteFile(filepath.Join(dir, "cgroup.freeze"), []byte("0"), 0)
	case h.has("freezer"):
		err = os.WriteFile(filepath.Join(dir, "freezer.state"), []byte("THAWED"), 0)
	}
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ENODEV) || errors.Is(err, os.ErrPermission) {
		return nil // gone meanwhile, or a hybrid's version 2, which has no such file
	}
	return err
}

// settle is how often the kernel is asked again whether it is done with what was killed.
const settle = 20 * time.Millisecond

// end kills the box's processes, all of them and no others, and takes its cgroups away. It returns when that is so.
func (b *box) end(ctx context.Context) error {
	tick := time.NewTicker(settle)
	defer tick.Stop()
	for {
		left, err := b.kill()
		if err == nil && left == 0 {
			if err = b.removeCgroups(); err == nil {
				return nil
			}
		}
		if err != nil && !errors.Is(err, unix.EBUSY) && !errors.Is(err, unix.ENOTEMPTY) {
			return fmt.Errorf("end %s: %w", b.name, err)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("end %s: %d processes are left in cgroup %s: %w", b.name, left, b.Cgroup, ctx.Err())
		case <-tick.C:
		}
	}
}

// kill sends SIGKILL, to the box's first process before the others: the kernel ends all of its namespace with it.
func (b *box) kill() (left int, err error) {
	if err := b.thaw(); err != nil {
		return 0, err
	}
	first, err := b.initPID()
	if err != nil {
		return 0, err
	}
	if first != 0 {
		_ = unix.Kill(first, unix.SIGKILL) // gone is what it should be
	}
	pids, err := b.pids()
	if err != nil {
		return 0, err
	}
	for pid := range pids {
		_ = unix.Kill(pid, unix.SIGKILL)
	}
	return len(pids), nil
}

func (b *box) removeCgroups() error {
	var dirs []string
	err := b.walk(func(_ hierarchy, dir string) error {
		dirs = append(dirs, dir)
		return nil
	})
	if err != nil {
		return err
	}
	slices.Reverse(dirs) // children before their parents
	for _, dir := range dirs {
		if err := os.Remove(dir); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("remove cgroup: %w", err)
		}
	}
	return nil
}
