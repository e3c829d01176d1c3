package libvirt

import (
	"cmp"
	"fmt"
	"regexp"
	"runtime"
	"strings"

	"berth/internal/machine"
	"berth/internal/vmimage"
)

const (
	flagImage    = "vm-image"
	flagChecksum = "vm-image-checksum"
	flagURI      = "libvirt-uri"
	flagNetwork  = "libvirt-network"
	flagPool     = "libvirt-pool"
	flagCPUs     = "libvirt-cpu-count"
	flagMemory   = "libvirt-memory"
	flagDisk     = "libvirt-disk-size"
	flagType     = "libvirt-type"
	flagUser     = "libvirt-ssh-user"
	defaultUser  = "berth"
)

// Flags implements machine.Flagged.
func (Driver) Flags() []machine.Flag {
	var known []string
	for _, n := range vmimage.Names() {
		known = append(known, n[0])
	}
	return []machine.Flag{
		{Name: flagImage, Usage: "Cloud image to boot: " + strings.Join(known, ", ") + "; or a URL or a file", EnvVar: "VM_IMAGE", Default: vmimage.Default},
		{Name: flagChecksum, Usage: "What the image must have: sha256:HEX, sha512:HEX, or the URL of its publisher's list", EnvVar: "VM_IMAGE_CHECKSUM", Default: ""},
		{Name: flagURI, Usage: systemURI + " or " + sessionURI + "; with ?socket=PATH where it listens elsewhere", EnvVar: "LIBVIRT_URI", Default: systemURI},
		{Name: flagNetwork, Usage: "libvirt's network, bridge:NAME, or user (ports of 127.0.0.1 lead into the machine) (default default, in a session user)", EnvVar: "LIBVIRT_NETWORK", Default: ""},
		{Name: flagPool, Usage: "Storage pool for the disks; default is made if it is not there", EnvVar: "LIBVIRT_POOL", Default: defaultPool},
		{Name: flagCPUs, Usage: "Number of CPUs (-1 for all of this computer's)", EnvVar: "LIBVIRT_CPU_COUNT", Default: 2},
		{Name: flagMemory, Usage: "Memory in MB", EnvVar: "LIBVIRT_MEMORY", Default: 2048},
		{Name: flagDisk, Usage: "Size of the disk in MB; it takes only what is used", EnvVar: "LIBVIRT_DISK_SIZE", Default: 20000},
		{Name: flagType, Usage: "kvm, qemu (emulation), or auto for kvm where it is there", EnvVar: "LIBVIRT_TYPE", Default: typeAuto},
		{Name: flagUser, Usage: "User that berth gets in as", EnvVar: "LIBVIRT_SSH_USER", Default: defaultUser},
	}
}

const (
	typeAuto = "auto"
	typeKVM  = "kvm"
	typeQEMU = "qemu" // without KVM: emulated

	userNetwork = "user"
	bridgeStart = "bridge:"

	leastMemory = 64 // MB
	leastDisk   = 1
	mostCPUs    = 255
)

var (
	userRule = regexp.MustCompile(`^[a-z_][a-z0-9_-]{0,31}$`)
	nameRule = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.+-]{0,80}$`)
)

// settings are the flags, understood.
type settings struct {
	vm
	image vmimage.Source
	user  string
}

func readSettings(spec machine.Spec) (settings, error) {
	s := settings{vm: vm{
		URI: spec.String(flagURI), Network: spec.String(flagNetwork), Pool: spec.String(flagPool), Type: spec.String(flagType),
		CPU: spec.Int(flagCPUs), Memory: spec.Int(flagMemory), DiskSize: spec.Int(flagDisk),
	}, user: spec.String(flagUser)}
	e, err := parseURI(s.URI)
	if err != nil {
		return s, fmt.Errorf("--%s: %w", flagURI, err)
	}
	if s.Network == "" {
		s.Network = "default"
		if e.session { // which may make no networks
			s.Network = userNetwork
		}
	}
	if s.CPU == -1 {
		s.CPU = runtime.NumCPU()
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
	case s.Type != typeAuto && s.Type != typeKVM && s.Type != typeQEMU:
		return s, fmt.Errorf("--%s %q: want %s, %s or %s", flagType, s.Type, typeKVM, typeQEMU, typeAuto)
	case !nameRule.MatchString(strings.TrimPrefix(s.Network, bridgeStart)):
		return s, fmt.Errorf("--%s %q: want a network's name, bridge:NAME or user", flagNetwork, s.Network)
	case !nameRule.MatchString(s.Pool):
		return s, fmt.Errorf("--%s %q: want a pool's name", flagPool, s.Pool)
	}
	s.image, err = vmimage.Find(cmp.Or(spec.String(flagImage), vmimage.Default), spec.String(flagChecksum), runtime.GOARCH)
	if err != nil {
		return s, fmt.Errorf("--%s: %w", flagImage, err)
	}
	if s.image.User != "" && s.user == defaultUser {
		s.user = s.image.User
	}
	return s, nil
}
