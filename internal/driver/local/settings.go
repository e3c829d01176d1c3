package local

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"berth/internal/machine"
)

// settings are the driver's flags, understood.
type settings struct {
	subnet  netip.Prefix
	address netip.Addr // not valid: any free one
	engine  string     // dockerd's absolute path
}

func readSettings(spec machine.Spec) (settings, error) {
	var set settings
	var err error
	if set.subnet, err = parseSubnet(spec.String(flagSubnet)); err != nil {
		return settings{}, err
	}
	if text := spec.String(flagAddress); text != "" {
		if set.address, err = parseAddress(text, set.subnet); err != nil {
			return settings{}, err
		}
	}
	if set.engine, err = findEngine(spec.String(flagEngine)); err != nil {
		return settings{}, err
	}
	return set, nil
}

func parseSubnet(text string) (netip.Prefix, error) {
	if text == "" {
		text = defaultSubnet
	}
	p, err := netip.ParsePrefix(text)
	switch {
	case err != nil:
		return netip.Prefix{}, fmt.Errorf("--%s: %q is not a range like %s", flagSubnet, text, defaultSubnet)
	case !p.Addr().Is4() || p.Bits() < 8 || p.Bits() > 30:
		return netip.Prefix{}, fmt.Errorf("--%s: %s is not an IPv4 range between /8 and /30", flagSubnet, text)
	case p.Addr().IsLoopback() || p.Addr().IsMulticast() || p.Addr().IsUnspecified() || p.Addr().IsLinkLocalUnicast():
		return netip.Prefix{}, fmt.Errorf("--%s: machines cannot have addresses in %s", flagSubnet, text)
	}
	return p.Masked(), nil
}

func parseAddress(text string, subnet netip.Prefix) (netip.Addr, error) {
	a, err := netip.ParseAddr(text)
	switch {
	case err != nil:
		return netip.Addr{}, fmt.Errorf("--%s: %q is not an IP address", flagAddress, text)
	case !subnet.Contains(a):
		return netip.Addr{}, fmt.Errorf("--%s: %s is not in %s (--%s)", flagAddress, a, subnet, flagSubnet)
	case a == gateway(subnet):
		return netip.Addr{}, fmt.Errorf("--%s: %s is this computer's own address on the bridge", flagAddress, a)
	case a == subnet.Addr() || !subnet.Contains(a.Next()):
		return netip.Addr{}, fmt.Errorf("--%s: %s stands for the whole of %s", flagAddress, a, subnet)
	}
	return a, nil
}

// gateway is this computer's address on the bridge: the first of the subnet.
func gateway(subnet netip.Prefix) netip.Addr { return subnet.Addr().Next() }

// systemPath is where an engine finds its programs, whatever the user's own PATH says.
var systemPath = []string{"/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"}

// enginePath is the PATH of an engine: its own folder comes first, so that a dockerd which came with its own containerd, runc,
// docker-proxy and docker-init uses those.
func enginePath(engine string) string {
	return strings.Join(slices.Insert(slices.Clone(systemPath), 0, filepath.Dir(engine)), ":")
}

func findEngine(flag string) (string, error) {
	if flag == "" {
		path, err := lookPath("dockerd", os.Getenv("PATH")+":"+strings.Join(systemPath, ":"))
		if err != nil {
			return "", fmt.Errorf("no dockerd on this computer: apt-get install docker.io, or name another with --%s PATH", flagEngine)
		}
		return path, nil
	}
	path, err := filepath.Abs(flag)
	if err != nil {
		return "", fmt.Errorf("--%s: %w", flagEngine, err)
	}
	if info, err := os.Stat(path); err == nil && info.IsDir() {
		path = filepath.Join(path, "dockerd")
	}
	if err := executable(path); err != nil {
		return "", fmt.Errorf("--%s: %w", flagEngine, err)
	}
	return path, nil
}

// lookPath is exec.LookPath for a PATH that is not this process's own.
func lookPath(name, path string) (string, error) {
	for _, dir := range filepath.SplitList(path) {
		if !filepath.IsAbs(dir) {
			continue
		}
		if p := filepath.Join(dir, name); executable(p) == nil {
			return p, nil
		}
	}
	return "", fmt.Errorf("no %s in %s", name, path)
}

func executable(path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() || info.Mode().Perm()&0o111 == 0 {
		return &os.PathError{Op: "run", Path: path, Err: errors.New("not a program")}
	}
	return nil
}
