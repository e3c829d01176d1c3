package virtualbox

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"time"
)

// Bounds of one run of VBoxManage: most answer at once; one that starts or saves a machine, or writes a disk, has much to do.
const (
	askTime  = 30 * time.Second
	workTime = 15 * time.Minute
	retries  = 5
	pause    = 100 * time.Millisecond
)

// manager runs VBoxManage.
type manager struct{ program string }

// errNoVBoxManage is docker-machine's text, and how to get it.
var errNoVBoxManage = errors.New("VBoxManage not found. Make sure VirtualBox is installed and VBoxManage is in the path.\n" +
	"VirtualBox can be had from https://www.virtualbox.org/wiki/Downloads or, on Ubuntu, by apt-get install virtualbox. " +
	"Without it, -d qemu makes virtual machines too, and -d local hosts that need none")

// findManager looks for VBoxManage on PATH and, on Windows, where its installer puts it.
func findManager() (manager, error) {
	if path, err := exec.LookPath("VBoxManage"); err == nil {
		return manager{path}, nil
	}
	if path, err := exec.LookPath("vboxmanage"); err == nil {
		return manager{path}, nil
	}
	var dirs []string
	switch runtime.GOOS {
	case "windows":
		dirs = []string{
			os.Getenv("VBOX_INSTALL_PATH"), os.Getenv("VBOX_MSI_INSTALL_PATH"), installDir(),
			filepath.Join(os.Getenv("ProgramFiles"), "Oracle", "VirtualBox"),
		}
	case "darwin":
		dirs = []string{"/Applications/VirtualBox.app/Contents/MacOS"}
	}
	for _, dir := range dirs {
		if dir == "" {
			continue
		}
		if path, err := exec.LookPath(filepath.Join(dir, "VBoxManage")); err == nil {
			return manager{path}, nil
		}
	}
	return manager{}, errNoVBoxManage
}

// manageError is a run of VBoxManage that failed.
type manageError struct {
	args   []string
	output string // what it complained of
	err    error  // how it ended; nil if well
}

func (e *manageError) Error() string {
	text := "VBoxManage " + strings.Join(e.args, " ")
	if e.output != "" {
		return text + ": " + e.output
	}
	return fmt.Sprintf("%s: %v", text, e.err)
}
func (e *manageError) Unwrap() error { return e.err }

// said tells whether VBoxManage complained of that. Its exit status is 1 whatever is wrong, so there is nothing but the text.
func said(err error, text string) bool {
	failed, ok := errors.AsType[*manageError](err)
	return ok && strings.Contains(failed.output, text)
}

// What VBoxManage says, in all its versions.
const (
	saysNoMachine    = "Could not find a registered machine"
	saysNotReady     = "The object is not ready"
	saysNotRunning   = "is not currently running"
	saysLocked       = "is already locked"
	saysDenied       = "E_ACCESSDENIED"
	saysNotFound     = "VBOX_E_OBJECT_NOT_FOUND"
	saysNoDriver     = "kernel module is not loaded"
	saysNoCharDev    = "character device /dev/vboxdrv does not exist"
	saysUnregistered = "VBOX_E_OBJECT_NOT_FOUND"
)

// run gives VBoxManage a command that answers soon.
func (m manager) run(ctx context.Context, args ...string) (string, error) {
	return m.runFor(ctx, askTime, nil, args...)
}

// work gives VBoxManage one that takes its time.
func (m manager) work(ctx context.Context, stdin io.Reader, args ...string) (string, error) {
	return m.runFor(ctx, workTime, stdin, args...)
}

func (m manager) runFor(ctx context.Context, limit time.Duration, stdin io.Reader, args ...string) (out string, err error) {
	limited, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("no answer after %s", limit))
	defer cancel()
	for range retries {
		out, err = m.once(limited, stdin, args...)
		if !said(err, saysNotReady) || stdin != nil {
			break
		}
		select { // VirtualBox's own service is just starting
		case <-limited.Done():
		case <-time.After(pause):
		}
	}
	switch {
	case ctx.Err() != nil:
		return out, ctx.Err()
	case limited.Err() != nil && err != nil:
		return out, fmt.Errorf("VBoxManage %s: %w", args[0], context.Cause(limited))
	}
	return out, err
}

// once runs VBoxManage. It sometimes ends well after an error, which it then only complained of.
func (m manager) once(ctx context.Context, stdin io.Reader, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, m.program, args...)
	var out, errs bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = stdin, &out, &errs
	cmd.Env = append(os.Environ(), "LC_ALL=C") // it speaks the user's language else
	cmd.WaitDelay = 5 * time.Second            // VirtualBox's service may inherit the pipes
	err := cmd.Run()
	if errors.Is(err, exec.ErrWaitDelay) {
		err = nil
	}
	if err != nil || strings.Contains(errs.String(), "error:") {
		return out.String(), &manageError{args, complaint(errs.String()), err}
	}
	return out.String(), nil
}

// complaint is the first of what VBoxManage complains of, and the code by which it can be looked up; the rest is about its sources.
func complaint(text string) string {
	var lines []string
	for _, line := range strings.Split(text, "\n") {
		line = strings.TrimSpace(line)
		found := strings.Contains(line, "error:")
		_, line, _ = cutPrefixes(line)
		switch {
		case !found || line == "" || strings.HasPrefix(line, "Context: "):
		case len(lines) > 0 && !strings.HasPrefix(line, "Details: ") && !strings.HasPrefix(line, "Code "):
		default:
			lines = append(lines, line)
		}
	}
	if len(lines) == 0 {
		return strings.TrimSpace(text)
	}
	return strings.Join(lines, "; ")
}

// cutPrefixes cuts "VBoxManage: error: ", or the path that old versions write before it.
func cutPrefixes(line string) (before, after string, found bool) {
	if before, after, found = strings.Cut(line, "error: "); found {
		return before, after, true
	}
	return "", line, false
}

// version is VirtualBox's.
type version struct{ major, minor, patch int }

var versionRule = regexp.MustCompile(`^(\d+)\.(\d+)\.(\d+)`)

// version asks for VirtualBox's. Complaints about its kernel module come before it, on the same stream, and are an error: nothing
// would start.
func (m manager) version(ctx context.Context) (version, error) {
	out, err := m.run(ctx, "--version")
	if err != nil {
		return version{}, err
	}
	v, ok := parseVersion(out)
	switch {
	case strings.Contains(out, saysNoDriver), strings.Contains(out, saysNoCharDev):
		return v, errors.New("VirtualBox's kernel module is not loaded, so that no machine would start: " +
			"run sudo /sbin/vboxconfig, or install virtualbox-dkms and the kernel's headers (with Secure Boot, the module must be signed too)")
	case !ok:
		return v, fmt.Errorf("VBoxManage --version said %q, which is no version", strings.TrimSpace(out))
	case v.before(5, 0, 0):
		return v, fmt.Errorf("VirtualBox %s is too old: berth works with 5.0 and newer", v)
	}
	return v, nil
}

// parseVersion finds the version in the last line of what VBoxManage said.
func parseVersion(out string) (version, bool) {
	lines := strings.Split(strings.TrimSpace(out), "\n")
	m := versionRule.FindStringSubmatch(strings.TrimSpace(lines[len(lines)-1]))
	if m == nil {
		return version{}, false
	}
	n := [3]int{}
	for i := range n {
		var err error
		if n[i], err = strconv.Atoi(m[i+1]); err != nil {
			return version{}, false
		}
	}
	return version{n[0], n[1], n[2]}, true
}

func (v version) String() string { return fmt.Sprintf("%d.%d.%d", v.major, v.minor, v.patch) }

func (v version) before(major, minor, patch int) bool {
	for _, n := range [][2]int{{v.major, major}, {v.minor, minor}, {v.patch, patch}} {
		if n[0] != n[1] {
			return n[0] < n[1]
		}
	}
	return false
}
