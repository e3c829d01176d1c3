package provision

import (
	"context"
	"fmt"
	"strconv"
	"strings"
)

// host is the machine that is worked on, and what became known of it.
type host struct {
	runner Runner
	config Config
	become string // how a user becomes root, before a command; "" for root
	user   string
	os     osRelease
	init   service
	family family
	arch   string // in Go's words
	free   int    // KiB on the disk that takes the packages; -1 if not known

	installed bool   // an engine is there, as a service
	ran       bool   // and it ran when we came
	version   string // of the engine
	changed   bool   // something that the engine reads only when it starts
	restarted bool
	kept      []kept // what can be taken back

	programSum string // SHA-256 of the program that is there for services
}

func newHost(r Runner, c Config) *host {
	if c.Progress == nil {
		c.Progress = func(string) {}
	}
	if c.LockWait == 0 {
		c.LockWait = defaultLockWait
	}
	return &host{runner: r, config: c, free: -1}
}

func (h *host) say(format string, args ...any) {
	if len(args) > 0 {
		format = fmt.Sprintf(format, args...)
	}
	h.config.Progress(format)
}

// lookScript tells, as the user who logged in, everything that decides how to go on.
const lookScript = `PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin"
LC_ALL=C
export PATH LC_ALL
uid=$(id -u)
echo "uid $uid"
echo "user $(id -un 2>/dev/null || echo "$uid")"
echo "kernel $(uname -s)"
echo "arch $(uname -m)"
if [ "$uid" != 0 ]; then
  for as in sudo doas; do
    command -v $as >/dev/null 2>&1 || continue
    echo "tool $as"
    if $as -n true </dev/null >/dev/null 2>&1; then echo "become $as -n"; break; fi
    $as -n true </dev/null 2>&1 | sed 's/^/refused /'
  done
fi
if [ -d /run/systemd/system ]; then echo "init systemd"
elif [ -x /sbin/openrc-run ] || [ -x /usr/sbin/openrc-run ]; then echo "init openrc"
else echo "init $(cat /proc/1/comm 2>/dev/null)"; fi
for dir in /var/cache /var /; do
  [ -d $dir ] && df -Pk $dir 2>/dev/null | awk 'NR==2 {print "free " $4}' && break
done
for f in /etc/os-release /usr/lib/os-release; do
  [ -r $f ] && sed 's/^/os /' $f && break
done
exit 0
`

// look finds out what the host is, and how to become root there.
func (h *host) look(ctx context.Context) error {
	h.say("Detecting the provisioner...")
	said, err := h.exec(ctx, lookScript, nil)
	if err != nil {
		return err
	}
	facts := readFacts(said)
	h.os = parseOSRelease(strings.Join(facts["os"], "\n"))
	h.family = h.os.family()
	h.user = facts.one("user")
	if h.arch = architectures[facts.one("arch")]; h.arch == "" {
		h.arch = facts.one("arch")
	}
	if n, err := strconv.Atoi(facts.one("free")); err == nil {
		h.free = n
	}
	if kernel := facts.one("kernel"); kernel != "Linux" {
		return advise("Docker Engines run on Linux.", "the host runs %q", kernel)
	}
	if err := h.findRoot(facts); err != nil {
		return err
	}
	if h.init = services(facts.one("init")); h.init == nil {
		return advise("Run an engine there yourself and use it as it is: berth create --no-install.",
			"%s was booted by %q, neither by systemd nor by OpenRC: an engine could not be started with it", h.os.pretty(), facts.one("init"))
	}
	if h.installed, err = h.init.knowsEngine(ctx, h); err != nil {
		return err
	}
	h.say("Provisioning with %s(%s)...", nonEmpty(h.os.id(), "an unknown system"), h.init.name())
	return nil
}

func (h *host) findRoot(facts facts) error {
	if facts.one("uid") == "0" {
		return nil
	}
	if h.become = facts.one("become"); h.become != "" {
		return nil
	}
	tool := facts.one("tool")
	if tool == "" {
		return advise("Log in as root, or install sudo there.", "user %s is not root, and the host has no sudo", h.user)
	}
	return &StepError{
		Err:     fmt.Errorf("user %s cannot become root: %s needs a password, or refuses", h.user, tool),
		Output:  strings.Join(facts["refused"], "\n"),
		Advice:  fmt.Sprintf("Give it the right there: echo '%s ALL=(ALL) NOPASSWD: ALL' > /etc/sudoers.d/%s. Or log in as root.", h.user, h.user),
		Command: tool + " -n true",
	}
}

// facts are the lines of a script's answer by their first words.
type facts map[string][]string

func readFacts(said string) facts {
	f := facts{}
	for line := range strings.Lines(said) {
		key, value, _ := strings.Cut(strings.TrimRight(line, "\r\n"), " ")
		f[key] = append(f[key], value)
	}
	return f
}

// one is the first of a kind; "" if there is none.
func (f facts) one(key string) string {
	if len(f[key]) == 0 {
		return ""
	}
	return strings.TrimSpace(f[key][0])
}

func nonEmpty(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}

// waitFirstBoot lets cloud-init finish, which rewrites package sources and holds their locks. Not every host has it, and one where it
// failed or hangs may do all the same.
func (h *host) waitFirstBoot(ctx context.Context) error {
	const script = `command -v cloud-init >/dev/null 2>&1 || exit 0
case "$(cloud-init status 2>/dev/null)" in *running*) ;; *) exit 0 ;; esac
run timeout 300 cloud-init status --wait || true`
	_, err := h.sh(ctx, script, nil)
	return err
}

// setHostname gives the host its name, and makes the name resolve there.
func (h *host) setHostname(ctx context.Context) error {
	name := h.config.Hostname
	if name == "" {
		return nil
	}
	script := "name=" + quote(name) + `
if [ "$(cat /proc/sys/kernel/hostname)" != "$name" ] || [ "$(cat /etc/hostname 2>/dev/null)" != "$name" ]; then
  if ! hostnamectl set-hostname "$name" 2>/dev/null; then
    echo "$name" >/etc/hostname
    run hostname "$name"
  fi
  echo changed
fi
if ! awk -v name="$name" '!/^[ \t]*#/ {for (i = 2; i <= NF; i++) if ($i == name) found = 1} END {exit !found}' /etc/hosts; then
  printf '127.0.1.1\t%s\n' "$name" >>/etc/hosts
fi`
	said, err := h.sh(ctx, script, nil)
	if err == nil && lastLine(said) == "changed" {
		h.say("Set the host name to %s", name)
	}
	return err
}
