// Package vmseed writes the small disk from which a cloud image learns, at its first boot, what it is to be: its name, who is let in,
// how its network is, what is mounted.
//
// The disk is an ISO 9660 file system with what cloud-init's NoCloud reads, or a config drive for systems that have no cloud-init.
// It knows no hypervisor: any that shows the disk to the machine will do. It holds no secret but what it is given; the file is the
// owner's alone all the same.
package vmseed

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"

	"github.com/diskfs/go-diskfs/backend/file"
	"github.com/diskfs/go-diskfs/filesystem/iso9660"
)

// Seed is what a machine is told.
type Seed struct {
	InstanceID string // another one has cloud-init do everything anew
	Hostname   string
	User       string // is made, may do everything, and gets in with the key
	Key        string // public, as authorized_keys has it
	Agent      bool   // have qemu-guest-agent, by which the hypervisor can ask for addresses and set the clock
	// DHCP are the MACs of interfaces that ask for their addresses. Without them, and without Network, the first one does.
	DHCP    []string
	Network *Network
	Mounts  []Mount
	// ConfigDrive writes the form of OpenStack's config drive instead of NoCloud's.
	ConfigDrive bool
}

// Network is an interface with a fixed address.
type Network struct {
	MAC         string
	Address     netip.Prefix
	Gateway     netip.Addr   // may be invalid, for none
	Nameservers []netip.Addr // may be empty
}

// Mount is a folder of the computer that the machine is on.
type Mount struct {
	Tag, Path string
	Type      string // 9p, virtiofs or vboxsf
}

// Write makes the disk. A file that is there is replaced.
func (s Seed) Write(path string) (err error) {
	files, err := s.files()
	if err != nil {
		return fmt.Errorf("write the first settings: %w", err)
	}
	if err := writeISO(path, s.label(), files); err != nil {
		return fmt.Errorf("write the first settings: %w", err)
	}
	return nil
}

func (s Seed) label() string {
	if s.ConfigDrive {
		return "config-2"
	}
	return "cidata"
}

// files are the disk's, by path.
func (s Seed) files() (map[string][]byte, error) {
	user, err := s.userData()
	if err != nil {
		return nil, err
	}
	if s.ConfigDrive {
		meta, err := encode(map[string]any{
			"uuid": s.InstanceID, "hostname": s.Hostname, "public_keys": map[string]string{"berth": s.Key},
		})
		return map[string][]byte{"openstack/latest/user_data": user, "openstack/latest/meta_data.json": meta}, err
	}
	meta, err := encode(map[string]any{"instance-id": s.InstanceID, "local-hostname": s.Hostname})
	if err != nil {
		return nil, err
	}
	files := map[string][]byte{"user-data": user, "meta-data": meta}
	if s.Network != nil || len(s.DHCP) > 0 {
		files["network-config"], err = encode(s.networkConfig())
	}
	return files, err
}

// agentScript has the guest agent, if it can be had: a machine is one without it, too.
const agentScript = `command -v qemu-ga >/dev/null 2>&1 && exit 0
if command -v apt-get >/dev/null 2>&1; then
	apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq -y --no-install-recommends install qemu-guest-agent
elif command -v dnf >/dev/null 2>&1; then dnf -q -y install qemu-guest-agent
elif command -v zypper >/dev/null 2>&1; then zypper -q -n install qemu-guest-agent
elif command -v apk >/dev/null 2>&1; then
	apk add -q qemu-guest-agent && rc-update -q add qemu-guest-agent && rc-service -q qemu-guest-agent start
fi
systemctl start qemu-guest-agent 2>/dev/null || true
`

// userData is a cloud-config. JSON is YAML, and needs no care with quotes.
func (s Seed) userData() ([]byte, error) {
	keys := []string{s.Key}
	c := map[string]any{"hostname": s.Hostname, "ssh_authorized_keys": keys}
	if !s.ConfigDrive {
		c = map[string]any{
			"hostname":          s.Hostname,
			"preserve_hostname": false,
			"users": []any{map[string]any{
				"name": s.User, "gecos": "berth", "shell": "/bin/sh", "sudo": "ALL=(ALL) NOPASSWD:ALL", "lock_passwd": true,
				"ssh_authorized_keys": keys,
			}},
			"ssh_pwauth":     false,
			"disable_root":   true,
			"growpart":       map[string]any{"mode": "auto", "devices": []string{"/"}},
			"resize_rootfs":  true,
			"package_update": false,
		}
		var commands [][]string
		if s.Agent {
			commands = append(commands, []string{"sh", "-c", agentScript})
		}
		if len(commands) > 0 {
			c["runcmd"] = commands
		}
		if mounts := s.mounts(); len(mounts) > 0 {
			c["mounts"] = mounts
		}
	}
	text, err := encode(c)
	return append([]byte("#cloud-config\n"), text...), err
}

// mounts are lines of fstab. A folder that is not there any more keeps no machine from booting.
func (s Seed) mounts() (lines [][]string) {
	for _, m := range s.Mounts {
		options := "rw,nofail,_netdev"
		switch m.Type {
		case "9p":
			options = "trans=virtio,version=9p2000.L,msize=131072,cache=none," + options
		case "vboxsf": // which knows no owners: all is the user's that was made
			options = "uid=1000,gid=1000," + options
		}
		lines = append(lines, []string{m.Tag, m.Path, m.Type, options, "0", "0"})
	}
	return lines
}

// networkConfig is cloud-init's, version 2. Interfaces are named differently everywhere; the MAC tells.
func (s Seed) networkConfig() map[string]any {
	nics := map[string]any{}
	for n, mac := range s.DHCP {
		nics[fmt.Sprintf("dhcp%d", n+1)] = map[string]any{"match": map[string]string{"macaddress": mac}, "dhcp4": true}
	}
	if s.Network != nil {
		nics["first"] = s.Network.config()
	}
	return map[string]any{"version": 2, "ethernets": nics}
}

func (n *Network) config() map[string]any {
	e := map[string]any{
		"match": map[string]string{"macaddress": n.MAC}, "dhcp4": false, "addresses": []string{n.Address.String()},
	}
	if n.Gateway.IsValid() {
		to := "0.0.0.0/0"
		if n.Gateway.Is6() {
			to = "::/0"
		}
		e["routes"] = []map[string]string{{"to": to, "via": n.Gateway.String()}}
	}
	if len(n.Nameservers) > 0 {
		e["nameservers"] = map[string]any{"addresses": n.Nameservers}
	}
	return e
}

func encode(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	err := e.Encode(v)
	return b.Bytes(), err
}

// isoSize is far more than the few files need.
const isoSize = 4 << 20

// writeISO makes an ISO 9660 file system with long names, in the way that Linux and in the way that others read them.
func writeISO(path, label string, files map[string][]byte) (err error) {
	dir, err := os.MkdirTemp(filepath.Dir(path), ".seed-*")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	tree := filepath.Join(dir, "tree")
	for name, data := range files {
		to := filepath.Join(tree, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(to), 0o700); err != nil {
			return err
		}
		if err := os.WriteFile(to, data, 0o600); err != nil {
			return err
		}
	}
	image := filepath.Join(dir, "iso")
	f, err := os.OpenFile(image, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	err = fillISO(f, tree, label)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(image, path)
}

func fillISO(f *os.File, tree, label string) error {
	fs, err := iso9660.Create(file.New(f, false), isoSize, 0, 0, tree)
	if err != nil {
		return err
	}
	return fs.Finalize(iso9660.FinalizeOptions{RockRidge: true, Joliet: true, VolumeIdentifier: label})
}
