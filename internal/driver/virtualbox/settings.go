package virtualbox

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"

	"berth/internal/machine"
	"berth/internal/vmimage"
)

const (
	flagImage     = "vm-image"
	flagChecksum  = "vm-image-checksum"
	flagMemory    = "virtualbox-memory"
	flagCPUs      = "virtualbox-cpu-count"
	flagDisk      = "virtualbox-disk-size"
	flagISO       = "virtualbox-boot2docker-url"
	flagImport    = "virtualbox-import-boot2docker-vm"
	flagResolver  = "virtualbox-host-dns-resolver"
	flagNATType   = "virtualbox-nat-nictype"
	flagCIDR      = "virtualbox-hostonly-cidr"
	flagType      = "virtualbox-hostonly-nictype"
	flagPromisc   = "virtualbox-hostonly-nicpromisc"
	flagNoDHCP    = "virtualbox-hostonly-no-dhcp"
	flagUI        = "virtualbox-ui-type"
	flagNoShare   = "virtualbox-no-share"
	flagNoProxy   = "virtualbox-no-dns-proxy"
	flagNoCheck   = "virtualbox-no-vtx-check"
	flagShare     = "virtualbox-share-folder"
	flagUser      = "virtualbox-ssh-user"
	defaultUser   = "berth"
	defaultNIC    = "82540EM"
	defaultImage  = "debian-13-generic" // the kernel for clouds lacks VirtualBox's disks, interfaces and folders
	imagesInStock = "debian-13-generic, ubuntu-24.04, fedora-44"
)

// Flags implements machine.Flagged: docker-machine's, and what is new since machines boot cloud images.
func (Driver) Flags() []machine.Flag {
	return []machine.Flag{
		{Name: flagMemory, Usage: "Size of memory for host in MB", EnvVar: "VIRTUALBOX_MEMORY_SIZE", Default: 1024},
		{Name: flagCPUs, Usage: "number of CPUs for the machine (-1 to use the number of CPUs available)", EnvVar: "VIRTUALBOX_CPU_COUNT", Default: 1},
		{Name: flagDisk, Usage: "Size of disk for host in MB", EnvVar: "VIRTUALBOX_DISK_SIZE", Default: 20000},
		{Name: flagImage, Usage: "Cloud image to boot: a name such as " + imagesInStock + "; or a URL or a file", EnvVar: "VM_IMAGE", Default: ""},
		{Name: flagChecksum, Usage: "What the image must have: sha256:HEX, sha512:HEX, or the URL of its publisher's list", EnvVar: "VM_IMAGE_CHECKSUM", Default: ""},
		{Name: flagISO, Usage: "The image's URL, as --vm-image. boot2docker's ISOs are not booted any more", EnvVar: "VIRTUALBOX_BOOT2DOCKER_URL", Default: ""},
		{Name: flagImport, Usage: "Accepted for old scripts: nothing is imported any more", EnvVar: "VIRTUALBOX_BOOT2DOCKER_IMPORT_VM", Default: ""},
		{Name: flagResolver, Usage: "Use the host DNS resolver", EnvVar: "VIRTUALBOX_HOST_DNS_RESOLVER", Default: false},
		{Name: flagNATType, Usage: "Specify the Network Adapter Type", EnvVar: "VIRTUALBOX_NAT_NICTYPE", Default: defaultNIC},
		{Name: flagCIDR, Usage: "Specify the Host Only CIDR (default " + oldCIDR + ", or " + newCIDR + " where VirtualBox does not allow that one)", EnvVar: "VIRTUALBOX_HOSTONLY_CIDR", Default: ""},
		{Name: flagType, Usage: "Specify the Host Only Network Adapter Type", EnvVar: "VIRTUALBOX_HOSTONLY_NIC_TYPE", Default: defaultNIC},
		{Name: flagPromisc, Usage: "Specify the Host Only Network Adapter Promiscuous Mode", EnvVar: "VIRTUALBOX_HOSTONLY_NIC_PROMISC", Default: "deny"},
		{Name: flagUI, Usage: "Specify the UI Type: (gui|sdl|headless|separate)", EnvVar: "VIRTUALBOX_UI_TYPE", Default: "headless"},
		{Name: flagNoDHCP, Usage: "Disable the Host Only DHCP Server", EnvVar: "VIRTUALBOX_HOSTONLY_NO_DHCP", Default: false},
		{Name: flagNoShare, Usage: "Disable the mount of your home directory", EnvVar: "VIRTUALBOX_NO_SHARE", Default: false},
		{Name: flagNoProxy, Usage: "Disable proxying all DNS requests to the host", EnvVar: "VIRTUALBOX_NO_DNS_PROXY", Default: false},
		{Name: flagNoCheck, Usage: "Disable checking for the availability of hardware virtualization before the vm is started", EnvVar: "VIRTUALBOX_NO_VTX_CHECK", Default: false},
		{Name: flagShare, Usage: "Mount the specified directory instead of the default home location. Format: dir:name", EnvVar: "VIRTUALBOX_SHARE_FOLDER", Default: ""},
		{Name: flagUser, Usage: "User that berth gets in as", EnvVar: "VIRTUALBOX_SSH_USER", Default: defaultUser},
	}
}

// Limits of VirtualBox's.
const (
	mostCPUs    = 32
	leastMemory = 64 // MB
	leastDisk   = 16 // MB
)

var (
	userRule = regexp.MustCompile(`^[a-z_][a-z0-9_-]{0,31}$`)
	tagRule  = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_./-]{0,60}$`)
	wordRule = regexp.MustCompile(`^[A-Za-z0-9-]+$`)
)

// settings are the flags, understood.
type settings struct {
	vm
	image    vmimage.Source
	cidr     netip.Prefix // this computer's address on the host-only network; invalid for a default
	user     string
	share    share // "" for none
	warnings []string

	natMAC, hostMAC string
}

// share is a folder of this computer in the machine.
type share struct{ host, name string }

func readSettings(spec machine.Spec) (settings, error) {
	s := settings{vm: vm{
		CPU: spec.Int(flagCPUs), Memory: spec.Int(flagMemory), DiskSize: spec.Int(flagDisk),
		NatNicType: spec.String(flagNATType), HostOnlyNicType: spec.String(flagType), HostOnlyPromiscMode: spec.String(flagPromisc),
		Boot2DockerURL: spec.String(flagISO), Boot2DockerImportVM: spec.String(flagImport), UIType: spec.String(flagUI),
		HostDNSResolver: spec.Bool(flagResolver), DNSProxy: !spec.Bool(flagNoProxy), HostOnlyNoDHCP: spec.Bool(flagNoDHCP),
		NoShare: spec.Bool(flagNoShare), NoVTXCheck: spec.Bool(flagNoCheck), ShareFolder: spec.String(flagShare),
		HostOnlyCIDR: spec.String(flagCIDR),
	}, user: spec.String(flagUser)}
	if s.CPU == -1 {
		s.CPU = min(runtime.NumCPU(), mostCPUs)
	}
	switch {
	case s.CPU < 1 || s.CPU > mostCPUs:
		return s, fmt.Errorf("--%s %d: want 1 to %d, or -1 for all of this computer's", flagCPUs, s.CPU, mostCPUs)
	case s.Memory < leastMemory:
		return s, fmt.Errorf("--%s %d: want at least %d MB", flagMemory, s.Memory, leastMemory)
	case s.DiskSize < leastDisk:
		return s, fmt.Errorf("--%s %d: want its size in MB", flagDisk, s.DiskSize)
	case !userRule.MatchString(s.user):
		return s, fmt.Errorf("--%s %q: that is no user's name", flagUser, s.user)
	case !slices.Contains([]string{"gui", "sdl", "headless", "separate"}, s.UIType):
		return s, fmt.Errorf("--%s %q: want gui, sdl, headless or separate", flagUI, s.UIType)
	case !slices.Contains([]string{"deny", "allow-vms", "allow-all"}, s.HostOnlyPromiscMode):
		return s, fmt.Errorf("--%s %q: want deny, allow-vms or allow-all", flagPromisc, s.HostOnlyPromiscMode)
	}
	for flag, kind := range map[string]string{flagNATType: s.NatNicType, flagType: s.HostOnlyNicType} {
		if !wordRule.MatchString(kind) {
			return s, fmt.Errorf("--%s %q: want an interface that VirtualBox knows, such as %s or virtio", flag, kind, defaultNIC)
		}
	}
	err := errors.Join(s.readCIDR(), s.readImage(spec), s.readShare())
	return s, err
}

func (s *settings) readCIDR() error {
	if s.HostOnlyCIDR == "" {
		return nil
	}
	var err error
	s.cidr, err = parseCIDR(s.HostOnlyCIDR)
	if err != nil {
		return fmt.Errorf("--%s %q: %w", flagCIDR, s.HostOnlyCIDR, err)
	}
	return nil
}

// readImage takes the image from --vm-image or, as old scripts name one, from --virtualbox-boot2docker-url. A boot2docker is none.
func (s *settings) readImage(spec machine.Spec) error {
	ref, flag := spec.String(flagImage), flagImage
	if strings.EqualFold(filepath.Ext(s.Boot2DockerURL), ".iso") || strings.Contains(s.Boot2DockerURL, "/boot2docker/") {
		s.warnings = append(s.warnings, "boot2docker is not made any more, and --"+flagISO+" passed by: the machine boots "+cmp.Or(ref, defaultImage))
	} else if ref == "" && s.Boot2DockerURL != "" {
		ref, flag = s.Boot2DockerURL, flagISO
	}
	if s.Boot2DockerImportVM != "" {
		s.warnings = append(s.warnings, "boot2docker is not made any more, and --"+flagImport+" passed by: the machine begins anew")
	}
	var err error
	if s.image, err = vmimage.Find(cmp.Or(ref, defaultImage), spec.String(flagChecksum), runtime.GOARCH); err != nil {
		return fmt.Errorf("--%s: %w", flag, err)
	}
	if s.image.User != "" && s.user == defaultUser {
		s.user = s.image.User
	}
	return nil
}

// readShare is the folder that the machine shares: a given one, else everybody's homes as docker-machine has it.
func (s *settings) readShare() error {
	if s.NoShare {
		return nil
	}
	if s.ShareFolder == "" {
		s.share = defaultShare()
		if _, err := os.Stat(s.share.host); err != nil {
			s.share = share{}
		}
		return nil
	}
	at := strings.LastIndex(s.ShareFolder, ":")
	if at < 1 || runtime.GOOS == "windows" && at == 1 || !tagRule.MatchString(s.ShareFolder[at+1:]) || strings.Contains(s.ShareFolder[at+1:], "..") {
		return fmt.Errorf("--%s %q: want DIR:NAME, the name of letters, digits and dashes", flagShare, s.ShareFolder)
	}
	dir, err := filepath.Abs(s.ShareFolder[:at])
	if err != nil {
		return fmt.Errorf("--%s: %w", flagShare, err)
	}
	if info, err := os.Stat(dir); err != nil {
		return fmt.Errorf("--%s: %w", flagShare, err)
	} else if !info.IsDir() {
		return fmt.Errorf("--%s: %s is no folder", flagShare, dir)
	}
	s.share = share{dir, s.ShareFolder[at+1:]}
	return nil
}

// defaultShare is docker-machine's: paths of this computer are the same in the machine where that can be.
func defaultShare() share {
	switch runtime.GOOS {
	case "windows":
		return share{`\\?\c:\Users`, "c/Users"}
	case "darwin":
		return share{"/Users", "Users"}
	}
	return share{"/home", "hosthome"}
}
