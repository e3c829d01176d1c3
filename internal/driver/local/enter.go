package local

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"syscall"
	"time"

	"github.com/pkg/sftp"
	"golang.org/x/sys/unix"

	"berth/internal/machine"
)

// A box has no sshd. Who wants to look in enters its namespaces and cgroups: this program executed again does, since only a
// process that has done nothing yet can, and has a child in the box. It stays outside and passes on how the child ends.
const (
	enterArg = "local-box-enter"
	filesArg = "local-box-files"
)

// homeDir is where a shell in a box begins. The box shares this computer's files, so that its root's home would be ours.
const homeDir = "home"

var _ machine.Enterer = Driver{}

// visit is what the entering process is told.
type visit struct {
	Name, Dir string // of the machine
	Raw       json.RawMessage
	Args      []string // of the program in the box; [0] is its path
	Name0     string   // what it is called
	Terminal  string   // TERM; "" for none
}

// Enter implements machine.Enterer.
func (Driver) Enter(ctx context.Context, i machine.Instance, command, terminal string) (*exec.Cmd, error) {
	shell := "/bin/sh"
	if _, err := os.Stat("/bin/bash"); err == nil {
		shell = "/bin/bash"
	}
	v := visit{Args: []string{shell}, Name0: "-" + filepath.Base(shell), Terminal: terminal}
	if command != "" {
		v.Args, v.Name0 = append(v.Args, "-c", command), filepath.Base(shell)
	}
	return enter(ctx, i, v)
}

// EnterFiles implements machine.Enterer.
func (Driver) EnterFiles(ctx context.Context, i machine.Instance) (*exec.Cmd, error) {
	return enter(ctx, i, visit{Args: []string{"/proc/self/exe", filesArg}, Name0: "berth"})
}

// patience is what a visitor's program gets to end by itself.
const patience = 2 * time.Second

func enter(ctx context.Context, i machine.Instance, v visit) (*exec.Cmd, error) {
	b, err := loadBox(i)
	if err != nil {
		return nil, fmt.Errorf("enter %s: %w", i.Name, err)
	}
	pid, err := b.initPID()
	if err == nil && pid == 0 {
		err = errors.New("it does not run")
	}
	if err == nil {
		err = os.MkdirAll(b.file(homeDir), 0o700)
	}
	if err != nil {
		return nil, fmt.Errorf("enter %s: %w", i.Name, err)
	}
	v.Name, v.Dir, v.Raw = i.Name, i.Dir, i.Raw
	told, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("enter %s: %w", i.Name, err)
	}
	cmd := exec.CommandContext(ctx, "/proc/self/exe", enterArg, string(told))
	cmd.Dir = "/"
	cmd.Env = []string{}
	cmd.Cancel = func() error { return cmd.Process.Signal(unix.SIGTERM) }
	cmd.WaitDelay = 2 * patience
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: unix.SIGTERM}
	return cmd, nil
}

// runVisit is the entering process: it returns the program's exit status.
func runVisit(told string) (status int, err error) {
	if err := closeInherited(); err != nil {
		return 0, err
	}
	var v visit
	if err := json.Unmarshal([]byte(told), &v); err != nil {
		return 0, fmt.Errorf("read where to go: %w", err)
	}
	b, err := loadBox(machine.Instance{Name: v.Name, Dir: v.Dir, Raw: v.Raw})
	if err != nil {
		return 0, err
	}
	signals := make(chan os.Signal, 8)
	// Also those that the terminal sends to all of its programs alike: this one waits for the other.
	signal.Notify(signals, unix.SIGTERM, unix.SIGHUP, unix.SIGINT, unix.SIGQUIT)
	runtime.LockOSThread() // the child gets the namespaces of the thread that starts it
	if err := b.goInside(); err != nil {
		return 0, err
	}
	pid, err := syscall.ForkExec(v.Args[0], append([]string{v.Name0}, v.Args[1:]...), &syscall.ProcAttr{
		Dir:   b.file(homeDir),
		Env:   b.visitorEnv(v),
		Files: []uintptr{0, 1, 2},
		Sys:   &syscall.SysProcAttr{Setsid: v.Terminal != "", Setctty: v.Terminal != ""},
	})
	if err != nil {
		return 0, fmt.Errorf("start %s: %w", v.Args[0], err)
	}
	go passOn(pid, signals)
	return awaitChild(pid)
}

// goInside takes this thread and the children that it will have into the box.
func (b *box) goInside() error {
	init, err := b.initPID()
	if err != nil {
		return err
	}
	if init == 0 {
		return errors.New("it does not run")
	}
	var spaces []*os.File
	defer func() {
		for _, f := range spaces {
			_ = f.Close() // read only
		}
	}()
	// The files' is last: with it, the paths of the others are gone.
	for _, kind := range []string{"pid", "net", "ipc", "uts", "mnt"} {
		f, err := os.Open(fmt.Sprintf("/proc/%d/ns/%s", init, kind))
		if err != nil {
			return fmt.Errorf("find its namespaces: %w", err)
		}
		spaces = append(spaces, f)
	}
	// They are the box's only if it still has the same first process.
	if again, err := b.initPID(); err != nil || again != init {
		return errors.Join(errors.New("it is just ending"), err)
	}
	hierarchies, err := findHierarchies()
	if err != nil {
		return err
	}
	for _, h := range hierarchies {
		if err := os.WriteFile(filepath.Join(h.dir, b.Cgroup, boxLeaf, "cgroup.procs"), []byte("0"), 0); err != nil {
			return fmt.Errorf("enter cgroup: %w", err)
		}
	}
	// Threads share one root and working directory, which another one's mounts would not have.
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return fmt.Errorf("part from the computer's files: %w", err)
	}
	for _, f := range spaces {
		if err := unix.Setns(int(f.Fd()), 0); err != nil {
			return fmt.Errorf("enter %s: %w", f.Name(), err)
		}
	}
	unix.Umask(0o022)
	return nil
}

// visitorEnv is a login's, and none of the caller's own.
func (b *box) visitorEnv(v visit) []string {
	env := []string{
		"PATH=" + enginePath(b.Engine), "HOME=" + b.file(homeDir), "USER=root", "LOGNAME=root", "SHELL=" + v.Args[0], "LANG=C.UTF-8",
	}
	if v.Terminal != "" {
		env = append(env, "TERM="+v.Terminal)
	}
	return env
}

// passOn asks the program to end when this one is asked to, and insists after a while.
func passOn(pid int, signals <-chan os.Signal) {
	for s := range signals {
		if s == unix.SIGINT || s == unix.SIGQUIT {
			continue // the program has had its own
		}
		_ = unix.Kill(pid, unix.SIGHUP) // it may have ended just now
		_ = unix.Kill(pid, unix.SIGTERM)
		time.AfterFunc(patience, func() { _ = unix.Kill(pid, unix.SIGKILL) })
	}
}

func awaitChild(pid int) (int, error) {
	for {
		var status syscall.WaitStatus
		_, err := syscall.Wait4(pid, &status, 0, nil)
		switch {
		case errors.Is(err, syscall.EINTR):
		case err != nil:
			return 0, fmt.Errorf("wait for the program: %w", err)
		case status.Signaled():
			return 128 + int(status.Signal()), nil
		default:
			return status.ExitStatus(), nil
		}
	}
}

// enterMain is the way of these two through the program's main.
func enterMain(args []string) (handled bool) {
	switch {
	case len(args) == 3 && args[1] == enterArg:
		status, err := runVisit(args[2])
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			status = exitNotEntered
		}
		os.Exit(status)
	case len(args) == 2 && args[1] == filesArg:
		if err := serveFiles(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return true
	}
	return false
}

// exitNotEntered is the status of a program that never ran, as ssh has it.
const exitNotEntered = 255

// serveFiles speaks SFTP until its other side has enough.
func serveFiles() error {
	here, err := os.Getwd()
	if err != nil {
		return err
	}
	server, err := sftp.NewServer(struct {
		io.Reader
		io.WriteCloser
	}{os.Stdin, os.Stdout}, sftp.WithServerWorkingDirectory(here))
	if err != nil {
		return err
	}
	if err := server.Serve(); err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("serve files: %w", err)
	}
	return nil
}
