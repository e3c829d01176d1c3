package provision

import "context"

// Upgrade brings the host's engine to the newest version of the packages it came from, and then does all that Provision does. An engine
// that is the newest goes on running.
func Upgrade(ctx context.Context, r Runner, c Config) (before, after string, err error) {
	if err := c.check(); err != nil {
		return "", "", err
	}
	h := newHost(r, c)
	err = h.walk(ctx, []step{
		{"look at the host", h.look},
		{"upgrade Docker", h.upgrade},
	})
	if err != nil {
		return "", "", err
	}
	before = h.version
	result, err := Provision(ctx, r, c)
	return before, result.Engine, err
}

func (h *host) upgrade(ctx context.Context) error {
	if !h.installed {
		return nil // Provision installs the newest
	}
	if err := h.keep(ctx); err != nil {
		return err
	}
	script, err := h.upgradeScript()
	if err != nil {
		return err
	}
	h.say("Upgrading docker...")
	if err := h.withPackages(ctx, script); err != nil {
		return err
	}
	return h.restartOld(ctx)
}

// restartOld restarts an engine that still runs as it was before its package was upgraded. Most packages see to that themselves.
func (h *host) restartOld(ctx context.Context) error {
	const script = `unset DOCKER_HOST DOCKER_CONTEXT DOCKER_TLS_VERIFY DOCKER_API_VERSION
new=$(dockerd --version | sed -n 's/^Docker version \([^ ,]*\).*/\1/p')
if old=$(timeout 10 docker -H unix:///var/run/docker.sock version --format '{{.Server.Version}}' 2>/dev/null) && [ "$old" != "$new" ]; then echo old; fi`
	said, err := h.sh(ctx, script, nil)
	if err != nil || lastLine(said) != "old" {
		return err
	}
	_, err = h.init.start(ctx, h, true)
	return err
}

// upgradeScript upgrades the packages that the engine came in, and what they need.
func (h *host) upgradeScript() (string, error) {
	const own = `dockerd=$(readlink -f "$(command -v dockerd)")
`
	const none = `
[ -n "$package" ] || { echo "no package owns $dockerd"; exit 1; }
`
	switch h.family {
	case debian:
		return own + `package=$(dpkg-query -S "$dockerd" 2>/dev/null | sed -n 's/[:,].*//p' | head -n 1)` + none + aptUpdate + `
for p in docker-ce-cli docker-cli containerd.io containerd runc; do
  if dpkg-query -W -f '${Status}' $p 2>/dev/null | grep -q ' installed$'; then package="$package $p"; fi
done
run apt-get -qq -y --only-upgrade -o Dpkg::Options::=--force-confold install $package`, nil
	case redhat:
		return own + `package=$(rpm -qf --qf '%{NAME}' "$dockerd")` + none + `
for p in docker-ce-cli containerd.io; do if rpm -q $p >/dev/null 2>&1; then package="$package $p"; fi; done
run $(command -v dnf || command -v yum) -y -q upgrade $package`, nil
	case suse:
		return "export ZYPP_LOCK_TIMEOUT=300\nrun zypper --non-interactive --quiet update docker", nil
	case alpine:
		return "run apk --wait 300 update\nrun apk --wait 300 add --upgrade docker docker-engine docker-cli containerd runc", nil
	case arch:
		return "", advise("Upgrade all of it there, with pacman -Syu.", "%s does not take single packages newer than the rest", h.os.pretty())
	case flatcar:
		return "", advise("update_engine_client -update does it there.", "on %s the engine is a part of the system and is upgraded with it", h.os.pretty())
	}
	return "", advise("Upgrade it there.", "%s is not a system whose packages berth knows", h.os.pretty())
}
