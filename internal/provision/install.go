package provision

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// roomKiB is what an engine's packages take while they are installed.
const roomKiB = 400 << 10

// install puts an engine on a host that has none. One that is there is kept, whatever version it is.
func (h *host) install(ctx context.Context) error {
	if h.installed {
		return h.keep(ctx)
	}
	if err := h.canInstall(ctx); err != nil {
		return err
	}
	script, err := h.installScript()
	if err != nil {
		return err
	}
	h.say("Installing Docker...")
	if err := h.withPackages(ctx, script); err != nil {
		return h.otherWay(err)
	}
	if h.installed, err = h.init.knowsEngine(ctx, h); err != nil {
		return err
	}
	if !h.installed {
		return advise("Look into it there: berth ssh.", "the installation ended well, but there is no service called docker")
	}
	h.changed = true // it may run with the options of its package
	return nil
}

// keep says so where another version was asked for.
func (h *host) keep(ctx context.Context) error {
	said, err := h.sh(ctx, `dockerd --version 2>/dev/null | sed -n 's/^Docker version \([^ ,]*\).*/\1/p'`, nil)
	if err != nil {
		return err
	}
	if h.ran, err = h.init.running(ctx, h); err != nil {
		return err
	}
	h.version = lastLine(said)
	if want := h.config.Engine.Version; want != "" && h.version != "" && !strings.HasPrefix(h.version, want) {
		h.say("Docker %s is there already and is kept, although %s was asked for", h.version, want)
	}
	return nil
}

// canInstall refuses what would only break off in the middle.
func (h *host) canInstall(ctx context.Context) error {
	const self = "Install one there that is a service called docker, and provision again."
	switch {
	case h.config.Engine.InstallURL == None:
		return advise(self, "there is no Docker Engine on the host, and none is to be installed")
	case h.family == unknown && !isURL(h.config.Engine.InstallURL):
		return advise(self, "%s is not a system that berth can install Docker on (it can on Debian, Ubuntu, RHEL, Fedora, SUSE, Alpine, Arch, and what is like them)", h.os.pretty())
	case h.family == flatcar:
		return advise(self, "%s has its engine as a part of the system, but here there is none", h.os.pretty())
	}
	stray, err := h.sh(ctx, `command -v dockerd || :`, nil)
	if err != nil {
		return err
	}
	if path := lastLine(stray); path != "" {
		return advise("Remove it there (a snap, or one put there by hand), or make it a service called docker; then provision again.",
			"the host has an engine at %s that is not a service", path)
	}
	if h.free >= 0 && h.free < roomKiB {
		return advise("Make room there: df -h shows where it went.",
			"the host's disk has %d MiB left, and Docker takes about %d", h.free>>10, roomKiB>>10)
	}
	return nil
}

// otherWay adds to a failure that there is another way to an engine, where there is.
func (h *host) otherWay(err error) error {
	e, ok := errors.AsType[*StepError](err)
	if !ok || !strings.Contains(e.Command, DefaultURL) || h.family != debian {
		return err
	}
	e.Advice = strings.TrimSpace(e.Advice + "\nA host that reaches nothing but its distribution's packages can have Docker from there: --engine-install-url " + Distro)
	return e
}

// isURL tells a script that the user chose from Docker's own, which knows only some distributions.
func isURL(install string) bool {
	return strings.HasPrefix(install, "http") && strings.TrimSuffix(install, "/") != DefaultURL
}

// installScript is how an engine gets onto this kind of host.
func (h *host) installScript() (string, error) {
	e := h.config.Engine
	switch {
	case isURL(e.InstallURL):
		return h.fetchAndRun(e.InstallURL), nil
	case e.InstallURL != Distro && slices.Contains([]string{"debian", "ubuntu", "raspbian"}, h.os.id()):
		return h.fetchAndRun(DefaultURL), nil
	}
	switch h.family {
	case debian:
		return h.debianPackages(), nil
	case redhat:
		return h.redhatPackages(), nil
	case alpine:
		return h.alpinePackages(), nil
	}
	if e.Version != "" {
		return "", advise("Leave out the version, or name a script that knows how with --engine-install-url.",
			"on %s there is only the engine of its packages, not version %s", h.os.pretty(), e.Version)
	}
	if h.family == suse {
		return h.susePackages(), nil
	}
	return "run pacman -S --noconfirm --needed docker || run pacman -Sy --noconfirm --needed docker", nil
}

// fetchAndRun runs a script from the web once it is there whole.
func (h *host) fetchAndRun(url string) string {
	return "url=" + quote(url) + " version=" + quote(h.config.Engine.Version) + "\n" + h.getCurl() + `
t=$(mktemp)
trap 'rm -f "$t"' EXIT
if command -v curl >/dev/null 2>&1; then run curl -fsSL --connect-timeout 20 --retry 2 -o "$t" "$url"
else run wget -q -T 20 -O "$t" "$url"; fi
[ -s "$t" ] || { echo "$url is empty"; exit 1; }
printf '$ sh %s\n' "$url"
[ -z "$version" ] || export VERSION="$version"
sh "$t"`
}

// getCurl installs curl where nothing else could fetch a file over HTTPS.
func (h *host) getCurl() string {
	const missing = "command -v curl >/dev/null 2>&1 || command -v wget >/dev/null 2>&1 || { "
	switch h.family {
	case debian:
		return missing + aptUpdate + "; run apt-get -qq -y --no-install-recommends install curl ca-certificates; }"
	case redhat:
		return missing + "run $(command -v dnf || command -v yum) -y -q install curl; }"
	case suse:
		return missing + "run zypper --non-interactive --quiet install curl; }"
	case alpine:
		return missing + "run apk --wait 300 add curl; }"
	case arch:
		return missing + "run pacman -Sy --noconfirm --needed curl; }"
	}
	return ":"
}

// aptUpdate fails where a source does not answer, in place of a warning that nobody reads.
const aptUpdate = "run apt-get -qq -o APT::Update::Error-Mode=any -o Acquire::Retries=2 update"

// debianPackages installs Debian's own engine. Newer releases have the client in a package of its own; an engine on a kernel with
// AppArmor cannot start containers without its parser.
func (h *host) debianPackages() string {
	return "version=" + quote(h.config.Engine.Version) + "\n" + aptUpdate + `
packages="docker.io iptables"
if [ -n "$version" ]; then
  found=$(apt-cache madison docker.io | awk '{print $3}' | awk -v v="$version" 'index($0, v) == 1' | head -n 1)
  [ -n "$found" ] || { printf '$ apt-cache madison docker.io\n'; apt-cache madison docker.io; echo "there is no version $version"; exit 1; }
  packages="docker.io=$found iptables"
fi
if [ -n "$(apt-cache madison docker-cli)" ]; then packages="$packages docker-cli"; fi
if [ "$(cat /sys/module/apparmor/parameters/enabled 2>/dev/null)" = Y ]; then packages="$packages apparmor"; fi
run apt-get -qq -y --no-install-recommends install $packages`
}

// redhatPackages takes the distribution's engine where there is one, and else Docker's repository, which exists for the distributions
// that the others are rebuilds of.
func (h *host) redhatPackages() string {
	version := ""
	if v := h.config.Engine.Version; v != "" {
		version = "-" + v + "*"
	}
	pm := "pm=$(command -v dnf || command -v yum)\n"
	switch id := h.os.id(); {
	case id == "amzn":
		return pm + "run $pm -y -q install " + quote("docker"+version)
	case id == "fedora" && h.config.Engine.InstallURL == Distro:
		return pm + "run $pm -y -q install " + quote("moby-engine"+version) + " docker-cli"
	case id == "fedora" || id == "rhel":
		return pm + h.dockerRepo(id, version)
	}
	return pm + h.dockerRepo("centos", version)
}

func (h *host) dockerRepo(id, version string) string {
	url := "https://download.docker.com/linux/" + id + "/docker-ce.repo"
	return h.getCurl() + `
repo=/etc/yum.repos.d/docker-ce.repo
[ -s $repo ] || { run curl -fsSL --connect-timeout 20 -o $repo.new ` + url + ` && mv $repo.new $repo; }
run $pm -y -q install ` + quote("docker-ce"+version) + " " + quote("docker-ce-cli"+version) + " containerd.io"
}

// alpinePackages turns the community repository on if it has to: docker is in there.
func (h *host) alpinePackages() string {
	version := ""
	if v := h.config.Engine.Version; v != "" {
		version = "=~" + v
	}
	return `run apk --wait 300 update
if ! apk search -q -e docker | grep -qx docker; then
  run sed -i 's|^#\(http.*/community\)$|\1|' /etc/apk/repositories
  run apk --wait 300 update
fi
run apk --wait 300 add ` + quote("docker"+version)
}

func (h *host) susePackages() string {
	script := "export ZYPP_LOCK_TIMEOUT=300\n"
	if id := h.os.id(); id == "sles" || id == "sled" {
		module := fmt.Sprintf("sle-module-containers/%s/", h.os["VERSION_ID"])
		script += "if command -v SUSEConnect >/dev/null 2>&1; then run SUSEConnect --product " + quote(module) + "$(uname -m); fi\n"
	}
	return script + "run zypper --non-interactive --quiet install docker"
}
