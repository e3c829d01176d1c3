package local

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"regexp"
	"strings"

	"berth/internal/machine"
)

// hostName is what a box can be called: it becomes the host name in it, of which Linux allows 64 characters and DNS 63.
var hostName = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?$`)

const maxName = 63

// PreCreateCheck implements machine.PreChecker.
func (Driver) PreCreateCheck(ctx context.Context, spec machine.Spec) error {
	if os.Geteuid() != 0 {
		return errors.New("the local driver makes network namespaces, mounts and firewall rules: run berth as root")
	}
	if len(spec.Name) > maxName || !hostName.MatchString(spec.Name) {
		return fmt.Errorf("%q cannot be a host name: use up to %d letters, digits, dots and dashes", spec.Name, maxName)
	}
	set, err := readSettings(spec)
	if err != nil {
		return err
	}
	if err := checkPrograms(set.engine); err != nil {
		return err
	}
	if err := checkCgroups(); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	return checkNetwork(newBox(spec, set), set.address)
}

// checkPrograms looks for what dockerd itself starts, where it will look.
func checkPrograms(engine string) error {
	path := enginePath(engine)
	var missing, packages []string
	for _, p := range []struct{ program, in string }{{"containerd", "containerd"}, {"runc", "runc"}, {"iptables", "iptables"}} {
		if _, err := lookPath(p.program, path); err != nil {
			missing, packages = append(missing, p.program), append(packages, p.in)
		}
	}
	if len(missing) > 0 {
		return fmt.Errorf("%s needs %s, not found in %s: apt-get install %s", engine, strings.Join(missing, ", "), path, strings.Join(packages, " "))
	}
	return nil
}

func checkCgroups() error {
	hierarchies, err := findHierarchies()
	if err != nil {
		return err
	}
	have := map[string]bool{}
	for _, h := range hierarchies {
		for _, c := range h.controllers {
			have[c] = true
		}
	}
	var missing []string
	for _, c := range []string{"cpu", "memory", "pids"} {
		if !have[c] {
			missing = append(missing, c)
		}
	}
	if len(missing) > 0 {
		return fmt.Errorf("this kernel or container offers no cgroups for %s below /sys/fs/cgroup: mount them, or use another computer", strings.Join(missing, ", "))
	}
	for _, h := range hierarchies {
		if err := h.writable(); err != nil {
			return fmt.Errorf("cgroups cannot be made: %w (in a container, berth needs --privileged)", err)
		}
	}
	return nil
}

// checkNetwork refuses a range or an address that something else on this computer has.
func checkNetwork(b *box, fixed netip.Addr) error {
	if err := checkRange(b.Subnet, b.Bridge); err != nil {
		return err
	}
	taken, err := b.takenAddresses()
	if err != nil {
		return err
	}
	_, err = pickAddress(b.Subnet, fixed, taken)
	return err
}
