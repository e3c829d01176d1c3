package local

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"berth/internal/machine"
)

// A box's services are this program once more, as children of the box's first process, which starts them again when they end. They
// are in the box as the engine is, and end with it.

// serviceDir is the services' own machine store, in the box's directory: that of whoever made the box is no business of theirs.
const serviceDir = "services"

func serviceLog(name string) string { return name + ".log" }

// servicePlan is a service in a box's plan.
type servicePlan struct {
	Name string
	Args []string
	Env  []string
	Log  string
}

func (b *box) servicePlans(all []machine.Service) []servicePlan {
	var plans []servicePlan
	for _, s := range all {
		env := append([]string{"HOME=" + b.file(homeDir), "MACHINE_STORAGE_PATH=" + b.file(serviceDir)}, s.Env...)
		plans = append(plans, servicePlan{Name: s.Name, Args: s.Args, Env: engineEnv(b.Engine, env), Log: b.file(serviceLog(s.Name))})
	}
	return plans
}

// How long a service that ended stays down: twice as long each time, unless it ran for a while.
const (
	firstPause = time.Second
	lastPause  = 30 * time.Second
)

// service is one that is kept running.
type service struct {
	servicePlan
	log   *os.File
	pid   int // 0 while it does not run
	began time.Time
	pause time.Duration
}

// keeper keeps services running. All of it belongs to one goroutine.
type keeper struct {
	services []*service
	again    chan *service // those whose pause is over
	ending   bool
}

// newKeeper opens the logs, which need not be in sight once the box has its own view of the file system.
func newKeeper(plans []servicePlan) (*keeper, error) {
	k := &keeper{again: make(chan *service)}
	for _, p := range plans {
		log, err := os.OpenFile(p.Log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
		if err != nil {
			return nil, fmt.Errorf("open the log of the %s: %w", p.Name, err)
		}
		k.services = append(k.services, &service{servicePlan: p, log: log, pause: firstPause})
	}
	return k, nil
}

func (k *keeper) startAll() {
	for _, s := range k.services {
		k.start(s)
	}
}

func (k *keeper) start(s *service) {
	if k.ending {
		return
	}
	pid, err := syscall.ForkExec("/proc/self/exe", append([]string{"berth"}, s.Args...), &syscall.ProcAttr{
		Dir:   "/",
		Env:   s.Env,
		Files: []uintptr{0, s.log.Fd(), s.log.Fd()},
		Sys:   &syscall.SysProcAttr{Setsid: true},
	})
	s.pid, s.began = pid, time.Now()
	if err != nil {
		s.pid = 0
		k.startLater(s, err.Error())
	}
}

// endMark stands in a service's log where it ended.
const endMark = "berth: it has ended: "

// startLater has a service start again after a while.
func (k *keeper) startLater(s *service, why string) {
	if time.Since(s.began) > lastPause {
		s.pause = firstPause
	}
	s.say(fmt.Sprintf("%s%s; it starts again in %s", endMark, why, s.pause))
	time.AfterFunc(s.pause, func() { k.again <- s })
	s.pause = min(2*s.pause, lastPause)
}

// say is for people: a log that is full keeps nobody from running.
func (s *service) say(text string) {
	fmt.Fprintf(s.log, "time=%q level=warning msg=%q\n", time.Now().Format(time.RFC3339Nano), text) //nolint:errcheck // see above
}

// ended takes note of a process that has ended, if it was a service's.
func (k *keeper) ended(pid int, status syscall.WaitStatus) {
	for _, s := range k.services {
		if s.pid != pid {
			continue
		}
		s.pid = 0
		if !k.ending {
			k.startLater(s, describe(status))
		}
	}
}

// end asks the services to end, and starts none any more.
func (k *keeper) end() {
	k.ending = true
	for _, s := range k.services {
		if s.pid != 0 {
			_ = unix.Kill(s.pid, unix.SIGTERM) // it may have ended just now
			_ = unix.Kill(s.pid, unix.SIGCONT)
		}
	}
}

// exit is a process that has ended.
type exit struct {
	pid    int
	status syscall.WaitStatus
}

// reap waits for every process that has no other parent, until the engine is the one that ended.
func reap(engine int, ended chan<- exit) {
	for {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, 0, nil)
		switch {
		case errors.Is(err, syscall.EINTR):
			continue
		case err != nil: // there is none left to wait for
			pid = engine
		}
		ended <- exit{pid, status}
		if pid == engine {
			return
		}
	}
}

// logMarks are how long the logs of services are now.
func (b *box) logMarks(all []machine.Service) map[string]int64 {
	marks := map[string]int64{}
	for _, s := range all {
		marks[s.Name] = b.logSize(serviceLog(s.Name))
	}
	return marks
}

// checkServices is an error if a service has ended since its log was as long as that, which one that can start never does so soon.
func (b *box) checkServices(marks map[string]int64) error {
	for name, from := range marks {
		path := b.file(serviceLog(name))
		text, err := os.ReadFile(path)
		if err != nil {
			return fmt.Errorf("look into the log of the %s: %w", name, err)
		}
		if int64(len(text)) < from { // it was rotated
			from = 0
		}
		if said := string(text[from:]); strings.Contains(said, endMark) {
			return fmt.Errorf("start the %s of %s: it has ended; its log (%s) says: \n  %s", name, b.name, path, strings.Join(tail(said), "\n  "))
		}
	}
	return nil
}
