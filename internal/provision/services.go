package provision

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"regexp"
	"strings"
)

// Program is what services run: a file on this computer.
type Program struct {
	Path     string
	OS, Arch string // that it runs on, in Go's words
}

// Service is the Program with arguments, which is to go on running on the host, and to start when the host does.
type Service struct {
	Name        string   // of the unit
	Description string   // for people
	Args        []string // the program's
	Env         []string // NAME=VALUE; only root gets to see it
	Port        int      // where it takes connections; 0 for none
}

var serviceRule = regexp.MustCompile(`^[a-z][a-z0-9-]*$`)

func (s Service) check() error {
	if !serviceRule.MatchString(s.Name) {
		return fmt.Errorf("service %q: want a name of small letters, digits and hyphens", s.Name)
	}
	for _, arg := range s.Args {
		if !printable(arg) {
			return fmt.Errorf("service %s: argument %q: it holds control characters", s.Name, arg)
		}
	}
	for _, kv := range s.Env {
		if !envRule.MatchString(kv) || !printable(kv) {
			return fmt.Errorf("service %s: its environment: want NAME=VALUE without control characters", s.Name) // it may be secret
		}
	}
	return nil
}

// stateDir is the services' own machine store, which is empty.
const stateDir = "/var/lib/berth"

// programPath is where the program is put: below the one tree that every system leaves to its owner.
func (h *host) programPath() string {
	if h.family == flatcar { // whose /usr cannot be written
		return "/opt/bin/berth"
	}
	return "/usr/local/bin/berth"
}

// architectures are Go's words for what `uname -m` says.
var architectures = map[string]string{
	"x86_64": "amd64", "aarch64": "arm64", "armv6l": "arm", "armv7l": "arm", "armv8l": "arm", "i386": "386", "i486": "386", "i586": "386", "i686": "386",
	"ppc64le": "ppc64le", "s390x": "s390x", "riscv64": "riscv64", "loongarch64": "loong64",
}

// installProgram has the program on the host, if there is a service to run it.
func (h *host) installProgram(ctx context.Context) error {
	if len(h.config.Services) == 0 {
		return nil
	}
	there, err := h.hostSum(ctx, h.programPath())
	if err != nil {
		return err
	}
	p := h.config.Program
	if p.OS != "linux" || p.Arch != h.arch {
		return h.otherProgram(ctx, there)
	}
	f, err := os.Open(p.Path)
	if err != nil {
		return fmt.Errorf("read this program: %w", err)
	}
	defer f.Close() //nolint:errcheck // read only
	sum := sha256.New()
	size, err := io.Copy(sum, f)
	if err == nil {
		_, err = f.Seek(0, io.SeekStart)
	}
	if err != nil {
		return fmt.Errorf("read this program: %w", err)
	}
	if h.programSum = hex.EncodeToString(sum.Sum(nil)); h.programSum == there {
		return nil
	}
	h.say("Copying berth to the remote machine (%d MiB)...", size>>20)
	return h.putProgram(ctx, f)
}

// otherProgram does with the program that is there, where ours would not run.
func (h *host) otherProgram(ctx context.Context, there string) error {
	path, p := h.programPath(), h.config.Program
	if there != "" {
		if _, err := h.sh(ctx, "run "+quote(path)+" version", nil); err != nil {
			return err
		}
		h.programSum = there
		return nil
	}
	return advise(fmt.Sprintf("Put a berth for linux/%s there as %s, and provision again.", h.arch, path),
		"this berth is for %s/%s and the host is linux/%s: it could not run there", p.OS, p.Arch, h.arch)
}

// hostSum is the SHA-256 of a file of the host's; "" if there is none.
func (h *host) hostSum(ctx context.Context, path string) (string, error) {
	said, err := h.sh(ctx, "f="+quote(path)+`; if [ -f "$f" ]; then sha256sum <"$f" | cut -c 1-64; fi`, nil)
	if err != nil {
		return "", fmt.Errorf("look at %s: %w", path, err)
	}
	return lastLine(said), nil
}

// putProgram writes the program and does not let it stand before it has run there.
func (h *host) putProgram(ctx context.Context, content io.Reader) error {
	path := h.programPath()
	script := fmt.Sprintf("f=%s want=%s\n", quote(path), h.programSum) + `
mkdir -p "${f%/*}"
umask 077
t=$(mktemp "$f.XXXXXX")
trap 'rm -f "$t"' EXIT
cat >"$t"
[ "$(sha256sum <"$t" | cut -c 1-64)" = "$want" ] || { echo "$f did not arrive whole"; exit 1; }
chmod 755 "$t"
run "$t" version
mv -f "$t" "$f"`
	if _, err := h.sh(ctx, script, content); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}

// startServices has the services running.
func (h *host) startServices(ctx context.Context) error {
	for _, s := range h.config.Services {
		revision := h.revision(s)
		if err := h.init.putService(ctx, h, s, revision); err != nil {
			return fmt.Errorf("%s: %w", s.Name, err)
		}
		runs, err := h.servicePID(ctx, revision)
		if err != nil {
			return fmt.Errorf("%s: %w", s.Name, err)
		}
		if runs == "" {
			h.say("Starting %s...", s.Name)
		}
		if err := h.init.startService(ctx, h, s, runs == ""); err != nil {
			return err
		}
		if runs != "" {
			continue
		}
		if _, err := h.sh(ctx, h.whichScript(revision)+h.init.serviceLogs(s)+stayScript, nil); err != nil {
			return err
		}
	}
	return nil
}

// revisionVar tells in a service's environment what it was started with.
const revisionVar = "BERTH_SERVICE"

// revision changes with whatever a service reads when it starts only. Certificates it reads anew, but not the authority's.
func (h *host) revision(s Service) string {
	sum := sha256.New()
	fmt.Fprintf(sum, "%q %q %q %q", h.programSum, s.Args, s.Env, h.config.CA) //nolint:errcheck // a hash takes all
	return s.Name + "-" + hex.EncodeToString(sum.Sum(nil)[:8])
}

// serviceEnv is a service's environment.
func serviceEnv(s Service, revision string) []string {
	return append([]string{"MACHINE_STORAGE_PATH=" + stateDir, revisionVar + "=" + revision}, s.Env...)
}

// whichScript prints the number of the process that runs the program with that revision. Init systems know of processes that they
// have just lost, or of their own that watch over them.
func (h *host) whichScript(revision string) string {
	return fmt.Sprintf("program=%s mark=%s\n", quote(h.programPath()), quote(revisionVar+"="+revision)) + `
which_one() {
  for p in /proc/[0-9]*; do
    [ "$(readlink "$p/exe" 2>/dev/null)" = "$program" ] || continue
    if tr '\000' '\n' <"$p/environ" 2>/dev/null | grep -qxF "$mark"; then echo "${p#/proc/}"; return; fi
  done
}
`
}

func (h *host) servicePID(ctx context.Context, revision string) (string, error) {
	said, err := h.sh(ctx, h.whichScript(revision)+"which_one", nil)
	return lastLine(said), err
}

// stayScript waits until one process was there for a while: one that cannot work ends at once, and is then started again and again.
const stayScript = `
n=0 same=0 before=
while [ $same -lt 4 ]; do
  now=$(which_one)
  if [ -n "$now" ] && [ "$now" = "$before" ]; then same=$((same+1)); else same=0; fi
  before=$now
  n=$((n+1))
  if [ $n -gt 24 ]; then logs; echo "it does not go on running"; exit 1; fi
  sleep 0.5
done`

// envFile is an environment as systemd reads it from a file.
func envFile(env []string) string {
	var b strings.Builder
	for _, kv := range env {
		name, value, _ := strings.Cut(kv, "=")
		fmt.Fprintf(&b, "%s=\"%s\"\n", name, strings.NewReplacer(`\`, `\\`, `"`, `\"`, "`", "\\`", `$`, `\$`).Replace(value))
	}
	return b.String()
}
