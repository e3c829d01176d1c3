package local

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A box is started in two stages, both this program executed again with one of these as its first argument. The launcher
// enters the box's cgroups and network and leaves a first process behind, which the kernel hands to this computer's own
// init: it belongs to no command and no terminal, and is nobody's zombie when it ends. The first process makes the private
// parts of the file system, runs the engine and keeps services beside it, and ends when the engine does; with it, the kernel ends all in
// the box.
const (
	launchArg = "local-box-launch"
	initArg   = "local-box-init"
)

// What both stages find open.
const (
	planFD   = 3 // the plan, in JSON
	reportFD = 4 // takes the reason why the box does not start; closed without one, the engine is running
)

// plan is what a box is started with. Paths are on this computer.
type plan struct {
	Name   string
	Cgroup string
	NetNS  string
	Enter  []string // cgroup.procs files to enter
	Mounts mountPlan
	Engine string
	Args   []string
	Env    []string

	Services []servicePlan
}

// InitMain runs a stage of a box, or enters one, if the program was started for that; it then returns only to say that the
// program has done its work. main and every TestMain of a package that makes local machines call it before anything else.
func InitMain(args []string) (handled bool) {
	if enterMain(args) {
		return true
	}
	if len(args) < 2 || (args[1] != launchArg && args[1] != initArg) {
		return false
	}
	if err := runStage(args[1]); err != nil {
		_, _ = unix.Write(reportFD, []byte(err.Error())) // who would read it may have gone
		os.Exit(1)
	}
	return true
}

func runStage(stage string) error {
	if err := closeInherited(); err != nil {
		return err
	}
	p, err := readPlan()
	if err != nil {
		return err
	}
	if stage == launchArg {
		return launchInit(p)
	}
	if os.Getpid() != 1 {
		return errors.New("only berth itself starts the first process of a box")
	}
	return runInit(p)
}

func readPlan() (plan, error) {
	// Opened anew, since both stages read it from its beginning.
	text, err := os.ReadFile("/proc/self/fd/" + strconv.Itoa(planFD))
	if err != nil {
		return plan{}, fmt.Errorf("read the box's plan: %w", err)
	}
	var p plan
	if err := json.Unmarshal(text, &p); err != nil {
		return plan{}, fmt.Errorf("read the box's plan: %w", err)
	}
	return p, nil
}

// closeInherited closes what the command happened to have open, a lock of the shell's for one: the box would keep it for good.
// Go's own files close on exec, so what is left without that mark has come from outside.
func closeInherited() error {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return fmt.Errorf("list open files: %w", err)
	}
	for _, e := range entries {
		fd, err := strconv.Atoi(e.Name())
		if err != nil || fd <= 2 {
			continue
		}
		if fd == planFD || fd == reportFD {
			unix.CloseOnExec(fd) // the engine has no business with them
			continue
		}
		if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err == nil && flags&unix.FD_CLOEXEC == 0 {
			_ = unix.Close(fd)
		}
	}
	return nil
}

// launchInit is the first stage.
func launchInit(p plan) error {
	for _, procs := range p.Enter {
		if err := os.WriteFile(procs, []byte("0"), 0); err != nil {
			return fmt.Errorf("enter cgroup: %w", err)
		}
	}
	// Children get the namespace of the thread that starts them.
	runtime.LockOSThread()
	ns, err := os.Open(p.NetNS)
	if err != nil {
		return fmt.Errorf("enter network: %w", err)
	}
	defer ns.Close()
	if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("enter network %s: %w", p.NetNS, err)
	}
	// It stays the parent of nobody: the first process goes on alone.
	_, err = syscall.ForkExec("/proc/self/exe", []string{"berth", initArg, p.Name}, &syscall.ProcAttr{
		Dir:   "/",
		Env:   []string{"PATH=" + os.Getenv("PATH")},
		Files: []uintptr{0, 1, 2, planFD, reportFD},
		Sys: &syscall.SysProcAttr{
			Setsid:     true,
			Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC,
		},
	})
	if err != nil {
		return fmt.Errorf("make namespaces: %w", err)
	}
	return nil
}

// runInit is the second stage: the box's first process.
func runInit(p plan) error {
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, unix.SIGTERM, unix.SIGINT, unix.SIGHUP)
	unix.Umask(0o022)
	if err := raiseLimits(); err != nil {
		return err
	}
	if err := unix.Sethostname([]byte(p.Name)); err != nil {
		return fmt.Errorf("set host name: %w", err)
	}
	services, err := newKeeper(p.Services)
	if err != nil {
		return err
	}
	if err := p.Mounts.apply(); err != nil {
		return err
	}
	engine, err := syscall.ForkExec(p.Engine, append([]string{filepath.Base(p.Engine)}, p.Args...), &syscall.ProcAttr{
		Dir:   "/",
		Env:   p.Env,
		Files: []uintptr{0, 1, 2},
		Sys:   &syscall.SysProcAttr{Setsid: true},
	})
	if err != nil {
		return fmt.Errorf("start %s: %w", p.Engine, err)
	}
	// The plan may hold what is secret, in the engine's environment.
	if err := errors.Join(unix.Close(planFD), unix.Close(reportFD)); err != nil {
		return fmt.Errorf("say that the engine runs: %w", err)
	}
	services.startAll()
	ended := make(chan exit)
	go reap(engine, ended)
	for {
		select {
		case s := <-signals:
			if s != unix.SIGHUP { // which is the engine's, to read its settings again
				services.end()
			}
			forward(engine, s)
		case s := <-services.again:
			services.start(s)
		case e := <-ended:
			if e.pid != engine {
				services.ended(e.pid, e.status)
				continue
			}
			fmt.Fprintf(os.Stderr, "time=%q level=warning msg=%q\n", time.Now().Format(time.RFC3339Nano), "berth: the engine has ended: "+describe(e.status))
			// The kernel ends the rest with this process, but not what is frozen.
			return (&box{Cgroup: p.Cgroup}).thaw()
		}
	}
}

// forward passes a signal on. An engine that is stopped as by SIGSTOP would never see that it is to end.
func forward(engine int, s os.Signal) {
	number, ok := s.(syscall.Signal)
	if !ok {
		return
	}
	if number == unix.SIGINT {
		number = unix.SIGTERM
	}
	_ = unix.Kill(engine, number) // it may have ended just now
	if number == unix.SIGTERM {
		_ = unix.Kill(engine, unix.SIGCONT)
	}
}

func describe(s syscall.WaitStatus) string {
	if s.Signaled() {
		return "killed by " + unix.SignalName(s.Signal())
	}
	return "exit status " + strconv.Itoa(s.ExitStatus())
}

// raiseLimits gives the engine what its systemd unit would, since a command's own limits are a person's. Where even root may not
// raise them (in a container without CAP_SYS_RESOURCE), it has what there is.
func raiseLimits() error {
	files := uint64(1 << 20)
	if text, err := os.ReadFile("/proc/sys/fs/nr_open"); err == nil { // the kernel's own bound
		if bound, err := strconv.ParseUint(strings.TrimSpace(string(text)), 10, 64); err == nil {
			files = min(files, bound)
		}
	}
	for _, l := range []struct {
		name     string
		resource int
		value    uint64
	}{{"open files", unix.RLIMIT_NOFILE, files}, {"processes", unix.RLIMIT_NPROC, unix.RLIM_INFINITY}, {"core size", unix.RLIMIT_CORE, unix.RLIM_INFINITY}} {
		var have syscall.Rlimit
		err := syscall.Getrlimit(l.resource, &have)
		if err == nil && have.Max < l.value {
			err = syscall.Setrlimit(l.resource, &syscall.Rlimit{Cur: l.value, Max: l.value})
		}
		if have.Max >= l.value || errors.Is(err, unix.EPERM) {
			// Through syscall, so that Go does not give children the old limit back.
			err = syscall.Setrlimit(l.resource, &syscall.Rlimit{Cur: have.Max, Max: have.Max})
		}
		if err != nil {
			return fmt.Errorf("raise the limit of %s: %w", l.name, err)
		}
	}
	return nil
}
