package provision

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

const (
	daemonJSON   = "/etc/docker/daemon.json"
	engineSocket = "unix:///var/run/docker.sock"
)

// configure writes daemon.json and the service's settings. daemon.json takes all that it has fields for and that berth knows; the
// rest are flags. An engine refuses an option that stands in both, so what the service's command says of our fields moves into
// daemon.json, its -H above all.
func (h *host) configure(ctx context.Context) error {
	words, err := h.init.command(ctx, h)
	if err != nil {
		return err
	}
	command := splitCommand(words)
	path := nonEmpty(command.configFile, daemonJSON)
	before, err := h.readFile(ctx, path)
	if err != nil {
		return err
	}
	doc, err := parseDocument(before)
	if err != nil {
		return advise("Mend it there, or move it away; then provision again.", "the host's %s: %w", path, err)
	}
	flags, err := h.fill(doc, command)
	if err != nil {
		return fmt.Errorf("the host's %s: %w", path, err)
	}
	written := false
	if doc.changed {
		if written, err = h.replaceFile(ctx, path, "644", doc.encode()); err != nil {
			return err
		}
	}
	var own []string // the command, where it must be another than the service's own
	if !slices.Equal(command.rest, words) || len(flags) > 0 {
		own = command.rest
	}
	reset, err := h.init.setCommand(ctx, h, own, flags, h.config.Engine.Env)
	if written || reset {
		h.say("Setting Docker configuration on the remote daemon...")
	}
	if err != nil {
		return err
	}
	h.changed = h.changed || written || reset
	if h.changed {
		return nil
	}
	// An earlier attempt may have got no further than here.
	h.changed, err = h.newerThanEngine(ctx, path, dropIn, openrcConf, CAPath, CertPath, KeyPath)
	return err
}

// newerThanEngine tells whether one of the files is younger than the engine's start.
func (h *host) newerThanEngine(ctx context.Context, paths ...string) (bool, error) {
	script := "pid=/var/run/docker.pid\n[ -e $pid ] || exit 0\nfor f in"
	for _, p := range paths {
		script += " " + quote(p)
	}
	said, err := h.sh(ctx, script+`; do
  if [ -e "$f" ] && [ -n "$(find "$f" -newer $pid)" ]; then echo newer; exit 0; fi
done`, nil)
	return lastLine(said) == "newer", err
}

// fill puts what berth wants into daemon.json and returns what must be flags.
func (h *host) fill(doc *document, command engineCommand) ([]string, error) {
	e := h.config.Engine
	var flags []string
	var failed error
	for _, f := range e.Flags {
		name, value, has := strings.Cut(f, "=")
		switch key := configKey(name); {
		case key == "hosts":
			command.hosts = append(command.hosts, value)
		case key == "labels":
			command.labels = append(command.labels, value)
		case key == "storage-driver":
			e.StorageDriver = value
		case key == "registry-mirrors":
			command.mirrors = append(command.mirrors, value)
		case key == "insecure-registries":
			command.insecure = append(command.insecure, value)
		case strings.HasPrefix(name, "tls"):
			failed = fmt.Errorf("engine option %q: berth sets up TLS by itself", f)
		case doc.has(key):
			failed = doc.override(key, value, has)
		default:
			flags = append(flags, "--"+f)
		}
		if failed != nil {
			return nil, failed
		}
	}
	hosts := slices.Concat(command.hosts, []string{h.tcp()})
	if !slices.ContainsFunc(append(doc.list("hosts"), hosts...), localSocket) {
		hosts = slices.Insert(hosts, 0, engineSocket)
	}
	doc.add("hosts", hosts, sameText)
	doc.add("labels", slices.Concat(command.labels, e.Labels), sameLabel)
	doc.add("registry-mirrors", slices.Concat(command.mirrors, e.RegistryMirrors), sameText)
	doc.add("insecure-registries", slices.Concat(command.insecure, e.InsecureRegistries), sameText)
	if driver := nonEmpty(e.StorageDriver, command.storageDriver); driver != "" {
		doc.set("storage-driver", driver)
	}
	doc.set("tlsverify", true)
	doc.set("tlscacert", CAPath)
	doc.set("tlscert", CertPath)
	doc.set("tlskey", KeyPath)
	return flags, doc.err
}

// tcp is where clients reach the engine.
func (h *host) tcp() string {
	if h.config.IPv6 {
		return "tcp://[::]:" + strconv.Itoa(h.config.Port)
	}
	return "tcp://0.0.0.0:" + strconv.Itoa(h.config.Port)
}

// localSocket tells whether the host's own clients reach the engine there.
func localSocket(host string) bool {
	return host == "fd://" || host == engineSocket || host == "unix:///run/docker.sock" || host == "unix://"
}

func sameText(a, b string) bool { return a == b }

// sameLabel: of two labels with one key the later one counts.
func sameLabel(a, b string) bool {
	ka, _, _ := strings.Cut(a, "=")
	kb, _, _ := strings.Cut(b, "=")
	return ka == kb
}

// configKey is what daemon.json calls an option that dockerd takes by that name: lists have a plural there.
func configKey(flag string) string {
	plural := map[string]string{
		"host": "hosts", "label": "labels", "registry-mirror": "registry-mirrors", "insecure-registry": "insecure-registries",
		"dns-opt": "dns-opts", "dns-search": "dns-search", "exec-opt": "exec-opts", "storage-opt": "storage-opts", "log-opt": "log-opts",
		"add-runtime": "runtimes", "default-ulimit": "default-ulimits", "default-address-pool": "default-address-pools",
		"authorization-plugin": "authorization-plugins", "cdi-spec-dir": "cdi-spec-dirs", "graph": "data-root",
	}
	return nonEmpty(plural[flag], flag)
}

// engineCommand is the service's command, and what it says of options that move into daemon.json.
type engineCommand struct {
	rest                             []string
	hosts, labels, mirrors, insecure []string
	storageDriver, configFile        string
}

// splitCommand takes the options that berth sets in daemon.json out of a command.
func splitCommand(words []string) engineCommand {
	c := engineCommand{rest: []string{}}
	for i := 0; i < len(words); i++ {
		name, value, inline := strings.Cut(unquote(words[i]), "=")
		if short, ok := strings.CutPrefix(name, "-H"); ok && short != "" {
			name, value, inline = "-H", strings.TrimPrefix(unquote(words[i]), "-H"), true
		}
		next := func() string {
			if !inline && i+1 < len(words) {
				i++
				return unquote(words[i])
			}
			return value
		}
		switch name {
		case "-H", "--host":
			c.hosts = append(c.hosts, strings.TrimPrefix(next(), "="))
		case "--label":
			c.labels = append(c.labels, next())
		case "--registry-mirror":
			c.mirrors = append(c.mirrors, next())
		case "--insecure-registry":
			c.insecure = append(c.insecure, next())
		case "-s", "--storage-driver":
			c.storageDriver = next()
		case "--tlscacert", "--tlscert", "--tlskey":
			next() // berth has its own
		case "--tls", "--tlsverify":
		case "--config-file":
			at := i
			c.configFile = next()
			c.rest = append(c.rest, words[at:i+1]...)
		default:
			c.rest = append(c.rest, words[i])
		}
	}
	return c
}
