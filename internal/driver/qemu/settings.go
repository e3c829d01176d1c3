package qemu

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"

	"github.com/docker/go-units"

	"berth/internal/machine"
	"berth/internal/vmimage"
	"berth/internal/vmseed"
)

const (
	flagImage     = "vm-image"
	flagChecksum  = "vm-image-checksum"
	flagCPUs      = "qemu-cpus"
	flagMemory    = "qemu-memory"
	flagDisk      = "qemu-disk-size"
	flagExtra     = "qemu-extra-disk"
	flagNetwork   = "qemu-network"
	flagAddress   = "qemu-ip-address"
	flagGateway   = "qemu-gateway"
	flagDNS       = "qemu-dns"
	flagForward   = "qemu-forward"
	flagMount     = "qemu-mount"
	flagMountType = "qemu-mount-type"
	flagFirmware  = "qemu-firmware"
	flagArch      = "qemu-arch"
	flagAccel     = "qemu-accel"
	flagUser      = "qemu-ssh-user"
)

const defaultUser = "berth"

// Flags implements machine.Flagged.
func (Driver) Flags() []machine.Flag {
	var known []string
	for _, n := range vmimage.Names() {
		known = append(known, n[0])
	}
	return []machine.Flag{
		{Name: flagImage, Usage: "Cloud image to boot: " + strings.Join(known, ", ") + "; or a URL or a file", EnvVar: "VM_IMAGE", Default: vmimage.Default},
		{Name: flagChecksum, Usage: "What the image must have: sha256:HEX, sha512:HEX, or the URL of its publisher's list", EnvVar: "VM_IMAGE_CHECKSUM", Default: ""},
		{Name: flagCPUs, Usage: "Number of CPUs (-1 for all of this computer's)", EnvVar: "QEMU_CPUS", Default: 2},
		{Name: flagMemory, Usage: "Memory in MB", EnvVar: "QEMU_MEMORY", Default: 2048},
		{Name: flagDisk, Usage: "Size of the disk in MB; it takes only what is used", EnvVar: "QEMU_DISK_SIZE", Default: 20000},
		{Name: flagExtra, Usage: "Further empty disk, its size in MB or as 10G", EnvVar: "QEMU_EXTRA_DISK", Default: []string(nil)},
		{Name: flagNetwork, Usage: "user (ports of 127.0.0.1 lead into the machine), bridge:NAME, tap:NAME or tap", EnvVar: "QEMU_NETWORK", Default: "user"},
		{Name: flagAddress, Usage: "Fixed address on a bridge or tap, as 10.0.0.5/24 (default by DHCP)", EnvVar: "QEMU_IP_ADDRESS", Default: ""},
		{Name: flagGateway, Usage: "Gateway of the fixed address", EnvVar: "QEMU_GATEWAY", Default: ""},
		{Name: flagDNS, Usage: "Name server of the fixed address", EnvVar: "QEMU_DNS", Default: []string(nil)},
		{Name: flagForward, Usage: "Port of 127.0.0.1 that leads into the machine on the user network, HOST:MACHINE", EnvVar: "QEMU_FORWARD", Default: []string(nil)},
		{Name: flagMount, Usage: "Folder of this computer in the machine, FOLDER:TAG[:PATH]; without a PATH at /mnt/TAG", EnvVar: "QEMU_MOUNT", Default: []string(nil)},
		{Name: flagMountType, Usage: "How folders are mounted: virtiofs, 9p, or auto for virtiofs where virtiofsd is installed", EnvVar: "QEMU_MOUNT_TYPE", Default: mountAuto},
		{Name: flagFirmware, Usage: "bios, uefi, or a file with UEFI code (default bios on x86_64, else uefi)", EnvVar: "QEMU_FIRMWARE", Default: ""},
		{Name: flagArch, Usage: "Architecture: x86_64 or aarch64 (default this computer's)", EnvVar: "QEMU_ARCH", Default: ""},
		{Name: flagAccel, Usage: "kvm, hvf, whpx, tcg (emulation), or auto for the fastest there is", EnvVar: "QEMU_ACCEL", Default: "auto"},
		{Name: flagUser, Usage: "User that berth gets in as", EnvVar: "QEMU_SSH_USER", Default: defaultUser},
	}
}

// settings are the flags, understood.
type settings struct {
	image        vmimage.Source
	cpus         int
	memory, disk int // MB
	extra        []int
	network      network
	address      netip.Prefix
	gateway      netip.Addr
	dns          []netip.Addr
	forwards     []forward
	mounts       []share
	firmware     string
	arch         string // as QEMU calls it
	accel        string
	user         string
}

// architectures are QEMU's names, by Go's.
var architectures = map[string]string{"amd64": "x86_64", "arm64": "aarch64"}

// goArch is Go's name of one of QEMU's.
func goArch(arch string) string {
	for g, q := range architectures {
		if q == arch {
			return g
		}
	}
	return ""
}

var (
	userRule = regexp.MustCompile(`^[a-z_][a-z0-9_-]{0,31}$`)
	tagRule  = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.-]{0,30}$`)
	nicRule  = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.-]{0,14}$`)
)

const (
	leastMemory = 64  // MB
	leastDisk   = 1   // MB
	mostCPUs    = 255 // of a q35
)

func readSettings(spec machine.Spec) (settings, error) {
	s := settings{
		cpus: spec.Int(flagCPUs), memory: spec.Int(flagMemory), disk: spec.Int(flagDisk),
		firmware: spec.String(flagFirmware), accel: spec.String(flagAccel), user: spec.String(flagUser),
	}
	if s.cpus == -1 {
		s.cpus = runtime.NumCPU()
	}
	switch {
	case s.cpus < 1 || s.cpus > mostCPUs:
		return s, fmt.Errorf("--%s %d: want 1 to %d, or -1 for all of this computer's", flagCPUs, s.cpus, mostCPUs)
	case s.memory < leastMemory:
		return s, fmt.Errorf("--%s %d: want at least %d MB", flagMemory, s.memory, leastMemory)
	case s.disk < leastDisk:
		return s, fmt.Errorf("--%s %d: want its size in MB", flagDisk, s.disk)
	case !userRule.MatchString(s.user):
		return s, fmt.Errorf("--%s %q: that is no user's name", flagUser, s.user)
	}
	for _, read := range []func(machine.Spec) error{s.readArch, s.readImage, s.readExtra, s.readNetwork, s.readForwards, s.readMounts} {
		if err := read(spec); err != nil {
			return s, err
		}
	}
	return s, nil
}

func (s *settings) readArch(spec machine.Spec) error {
	s.arch = spec.String(flagArch)
	switch s.arch {
	case "":
		s.arch = architectures[runtime.GOARCH]
	case "amd64", "arm64":
		s.arch = architectures[s.arch]
	}
	if goArch(s.arch) == "" {
		return fmt.Errorf("--%s %q: want x86_64 or aarch64", flagArch, spec.String(flagArch))
	}
	switch s.firmware {
	case "":
		s.firmware = firmwareBIOS
		if s.arch != "x86_64" {
			s.firmware = firmwareUEFI
		}
	case firmwareBIOS:
		if s.arch != "x86_64" {
			return fmt.Errorf("--%s bios: only x86_64 has one", flagFirmware)
		}
	case firmwareUEFI:
	default:
		path, err := filepath.Abs(s.firmware)
		if err == nil {
			_, err = os.Stat(path)
		}
		if err != nil {
			return fmt.Errorf("--%s: want bios, uefi or a file: %w", flagFirmware, err)
		}
		s.firmware = path
	}
	return nil
}

func (s *settings) readImage(spec machine.Spec) error {
	var err error
	s.image, err = vmimage.Find(spec.String(flagImage), spec.String(flagChecksum), goArch(s.arch))
	if err != nil {
		return fmt.Errorf("--%s: %w", flagImage, err)
	}
	if s.image.User != "" && s.user == defaultUser {
		s.user = s.image.User
	}
	return nil
}

func (s *settings) readExtra(spec machine.Spec) error {
	for _, given := range spec.Strings(flagExtra) {
		mb, err := strconv.Atoi(given)
		if err != nil {
			var bytes int64
			bytes, err = units.RAMInBytes(given)
			mb = int(bytes >> 20)
		}
		if err != nil || mb < leastDisk {
			return fmt.Errorf("--%s %q: want a size in MB, or as 10G", flagExtra, given)
		}
		s.extra = append(s.extra, mb)
	}
	return nil
}

// network is how the machine reaches others.
type network struct{ kind, name string }

const (
	userNetwork   = "user"
	bridgeNetwork = "bridge"
	tapNetwork    = "tap"
)

func (n network) String() string {
	if n.name == "" {
		return n.kind
	}
	return n.kind + ":" + n.name
}

func parseNetwork(text string) network {
	kind, name, _ := strings.Cut(text, ":")
	return network{kind, name}
}

func (s *settings) readNetwork(spec machine.Spec) error {
	text := spec.String(flagNetwork)
	s.network = parseNetwork(text)
	named := nicRule.MatchString(s.network.name)
	switch {
	case text == userNetwork, text == tapNetwork:
	case named && (s.network.kind == bridgeNetwork || s.network.kind == tapNetwork):
	default:
		return fmt.Errorf("--%s %q: want user, bridge:NAME, tap:NAME or tap", flagNetwork, text)
	}
	if err := s.readAddress(spec); err != nil {
		return err
	}
	if s.network.kind == userNetwork && s.address.IsValid() {
		return fmt.Errorf("--%s: on the user network there is nothing but 127.0.0.1; it is for a bridge or a tap", flagAddress)
	}
	return nil
}

func (s *settings) readAddress(spec machine.Spec) (err error) {
	text, gateway, dns := spec.String(flagAddress), spec.String(flagGateway), spec.Strings(flagDNS)
	if text == "" {
		if gateway != "" || len(dns) > 0 {
			return fmt.Errorf("--%s and --%s go with --%s", flagGateway, flagDNS, flagAddress)
		}
		return nil
	}
	if s.address, err = netip.ParsePrefix(text); err != nil {
		return fmt.Errorf("--%s %q: want an address with its network's length, as 10.0.0.5/24", flagAddress, text)
	}
	if gateway != "" {
		if s.gateway, err = netip.ParseAddr(gateway); err != nil {
			return fmt.Errorf("--%s %q: want an address", flagGateway, gateway)
		}
	}
	for _, d := range dns {
		a, err := netip.ParseAddr(d)
		if err != nil {
			return fmt.Errorf("--%s %q: want an address", flagDNS, d)
		}
		s.dns = append(s.dns, a)
	}
	return nil
}

func (s settings) staticAddress() string {
	if !s.address.IsValid() {
		return ""
	}
	return s.address.String()
}

func (s settings) seedNetwork(mac string) *vmseed.Network {
	if !s.address.IsValid() {
		return nil
	}
	return &vmseed.Network{MAC: mac, Address: s.address, Gateway: s.gateway, Nameservers: s.dns}
}

func (s *settings) readForwards(spec machine.Spec) error {
	for _, text := range spec.Strings(flagForward) {
		host, guest, ok := strings.Cut(text, ":")
		h, hostErr := strconv.ParseUint(host, 10, 16)
		g, guestErr := strconv.ParseUint(guest, 10, 16)
		if !ok || errors.Join(hostErr, guestErr) != nil || h == 0 || g == 0 {
			return fmt.Errorf("--%s %q: want two ports, HOST:MACHINE", flagForward, text)
		}
		s.forwards = append(s.forwards, forward{int(h), int(g)})
	}
	if len(s.forwards) > 0 && s.network.kind != userNetwork {
		return fmt.Errorf("--%s: on a %s the machine has an address of its own", flagForward, s.network.kind)
	}
	return nil
}

const (
	mountAuto     = "auto"
	mount9p       = "9p"
	mountVirtiofs = "virtiofs"
)

func (s *settings) readMounts(spec machine.Spec) error {
	kind := spec.String(flagMountType)
	switch kind {
	case mountAuto, "":
		kind = mount9p
		if virtiofsd() != "" {
			kind = mountVirtiofs
		}
	case mount9p, mountVirtiofs:
	default:
		return fmt.Errorf("--%s %q: want virtiofs, 9p or auto", flagMountType, kind)
	}
	for _, text := range spec.Strings(flagMount) {
		m, err := parseShare(text, kind)
		if err != nil {
			return fmt.Errorf("--%s %q: %w", flagMount, text, err)
		}
		s.mounts = append(s.mounts, m)
	}
	if len(s.mounts) > 0 && s.image.ConfigDrive {
		return fmt.Errorf("--%s: image %s cannot be told to mount a folder", flagMount, s.image.Name)
	}
	return nil
}

func parseShare(text, kind string) (share, error) {
	rest, drive := text, ""
	if len(rest) > 1 && rest[1] == ':' && runtime.GOOS == "windows" { // C:\…
		drive, rest = rest[:2], rest[2:]
	}
	parts := strings.SplitN(rest, ":", 3)
	if len(parts) < 2 || !tagRule.MatchString(parts[1]) {
		return share{}, errors.New("want FOLDER:TAG or FOLDER:TAG:PATH, the tag of up to 31 letters and digits")
	}
	host, err := filepath.Abs(drive + parts[0])
	if err != nil {
		return share{}, err
	}
	info, err := os.Stat(host)
	if err != nil {
		return share{}, err
	}
	if !info.IsDir() {
		return share{}, errors.New("it is no folder")
	}
	m := share{Host: host, Tag: parts[1], Guest: "/mnt/" + parts[1], Type: kind}
	if len(parts) == 3 {
		m.Guest = parts[2]
	}
	if !strings.HasPrefix(m.Guest, "/") {
		return share{}, errors.New("its path in the machine must begin with /")
	}
	return m, nil
}
