package provision

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
)

// StepError is a step that failed.
type StepError struct {
	Step    string // what was to be done
	Command string // the program that failed; "" if it was none in particular
	Output  string // what it said
	Advice  string // what to do about it; "" if nobody knows
	Err     error
}

// outputLines is how much of a program's output an error shows: the end, where the reason is.
const outputLines = 12

func (e *StepError) Error() string {
	var b strings.Builder
	b.WriteString(e.Step)
	if e.Command != "" {
		fmt.Fprintf(&b, ": %s", e.Command)
	}
	fmt.Fprintf(&b, ": %v", e.Err)
	for _, line := range lastLines(e.Output, outputLines) {
		b.WriteString("\n    " + line)
	}
	if e.Advice != "" {
		b.WriteString("\n" + e.Advice)
	}
	return b.String()
}

func (e *StepError) Unwrap() error { return e.Err }

// asStep names the step that err happened in.
func asStep(name string, err error) error {
	if e, ok := errors.AsType[*StepError](err); ok {
		named := *e
		named.Step = name
		return &named
	}
	return fmt.Errorf("%s: %w", name, err)
}

// advise is an error of our own that says what to do.
func advise(advice, format string, args ...any) error {
	return &StepError{Err: fmt.Errorf(format, args...), Advice: advice}
}

func lastLines(text string, n int) []string {
	var lines []string
	for line := range strings.Lines(text) {
		if line = strings.TrimRight(line, " \t\r\n"); line != "" {
			lines = append(lines, line)
		}
	}
	return lines[max(0, len(lines)-n):]
}

// symptom is what programs on the host say of a trouble that has a known way out.
type symptom struct {
	text   *regexp.Regexp
	advice string
}

// symptoms, the most telling first: one trouble often shows the signs of another behind it.
var symptoms = []symptom{
	{
		regexp.MustCompile(`No space left on device|n.t (have )?enough free (disk )?space|Disk quota exceeded|[Ii]nsufficient (disk )?space|needs [0-9.]+ ?[KMG]i?B (more space )?on the`),
		"A disk of the host is full: make room there (df -h shows which).",
	},
	{
		regexp.MustCompile(`Read-only file system`),
		"The host's disk cannot be written: look at its mounts, and at dmesg for a disk that is failing.",
	},
	{
		regexp.MustCompile(`sudo: .*(password is required|terminal is required|no tty present|must have a tty)`),
		"The user may not become root without a password: give it `NOPASSWD: ALL` in /etc/sudoers.d, or log in as root.",
	},
	{
		lockText,
		"Another program is installing packages there: wait for its end (ps -ef | grep -E 'apt|dpkg|dnf|yum|zypp').",
	},
	{
		regexp.MustCompile(`is not valid yet|certificate is not yet valid|certificate has expired`),
		"The host's clock seems to be wrong (date): TLS and signed packages depend on it.",
	},
	{
		regexp.MustCompile(`Temporary failure (in name resolution|resolving)|Could not resolve|Couldn't resolve host|bad address|Name or service not known`),
		"The host cannot resolve names: look at its /etc/resolv.conf and its network.",
	},
	{
		regexp.MustCompile(`Failed to fetch|Could not connect to|Unable to connect|Failed to connect to|Connection timed out|Network is unreachable|Cannot initiate the connection|No route to host|Failed to download|temporary error|Connection refused|Operation timed out|Timeout was reached`),
		"The host does not get through to the packages: look at its network, its proxy, and its list of package mirrors.",
	},
	{
		regexp.MustCompile(`Unable to locate package|has no installation candidate|No match for argument|Unable to find a match|unable to select packages|target not found|No provider of|nothing provides`),
		"The host's package sources have no such package. Name another way with --engine-install-url (a script's URL, or distro), or install Docker there and provision again.",
	},
	{
		regexp.MustCompile(`dpkg was interrupted|Unmet dependencies|half-installed`),
		"Packages on the host are in disorder: repair it there with `dpkg --configure -a` and `apt-get -f install`.",
	},
	{
		regexp.MustCompile(`specified both as a flag and in the configuration file`),
		"The host's own settings of the engine name that option, too: take it out of the unit, of /etc/default/docker, /etc/sysconfig/docker or /etc/conf.d/docker.",
	},
	{
		regexp.MustCompile(`unable to configure the Docker daemon|don't match any configuration option|unknown flag|invalid argument .* for .* flag`),
		"The engine does not take its settings: mend /etc/docker/daemon.json there, or what was given with --engine-opt.",
	},
}

var lockText = regexp.MustCompile(`Could not get lock|Unable to acquire the dpkg frontend lock|Unable to lock|is locked by another process|System management is locked|unable to lock database|another process is using`)

// advice says what to do about what a program said.
func (h *host) advice(said string) string {
	for _, s := range symptoms {
		if s.text.MatchString(said) {
			return s.advice
		}
	}
	return ""
}
