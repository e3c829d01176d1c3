package libvirt

import (
	"encoding/xml"
	"fmt"
	"runtime"
	"strings"

	"berth/internal/machine"
)

// arch is this computer's architecture, as libvirt calls it.
func arch() string {
	if runtime.GOARCH == "arm64" {
		return "aarch64"
	}
	return "x86_64"
}

// domainXML is the machine as libvirt wants it told.
func (c conn) domainXML(v vm, i machine.Instance) (string, error) {
	pool, err := c.StoragePoolLookupByName(v.Pool)
	if err != nil {
		return "", err
	}
	paths := [2]string{}
	for n, name := range []string{v.diskName(), v.seedName()} {
		vol, err := c.StorageVolLookupByName(pool, name)
		if err != nil {
			return "", err
		}
		if paths[n], err = c.StorageVolGetPath(vol); err != nil {
			return "", err
		}
	}
	return describe(v, i, paths[0], paths[1]), nil
}

// describe writes the domain. A session's user network is QEMU's own, which old libvirts cannot give ports: it is handed to QEMU
// as it is, in a slot that libvirt does not use.
func describe(v vm, i machine.Instance, disk, seed string) string {
	kind, firmware, cpu := "q35", "", "<cpu mode='host-passthrough'/>"
	if arch() != "x86_64" {
		kind, firmware = "virt", " firmware='efi'"
	}
	if v.Type == typeQEMU {
		cpu = ""
		if arch() != "x86_64" {
			cpu = "<cpu mode='custom'><model>max</model></cpu>"
		}
	}
	network, command := "", ""
	switch bridge, isBridge := strings.CutPrefix(v.Network, bridgeStart); {
	case v.Network == userNetwork:
		command = fmt.Sprintf(`
  <qemu:commandline>
    <qemu:arg value='-netdev'/>
    <qemu:arg value='user,id=berth,hostname=%s,hostfwd=tcp:%s:%d-:%d,hostfwd=tcp:%s:%d-:%d'/>
    <qemu:arg value='-device'/>
    <qemu:arg value='virtio-net-pci,netdev=berth,mac=%s,bus=pcie.0,addr=0x10'/>
  </qemu:commandline>`, quote(i.Name), loopback, i.SSHPort, sshPort, loopback, i.EnginePort, enginePort, quote(v.MAC))
	case isBridge:
		network = fmt.Sprintf("<interface type='bridge'><source bridge='%s'/><mac address='%s'/><model type='virtio'/></interface>", quote(bridge), quote(v.MAC))
	default:
		network = fmt.Sprintf("<interface type='network'><source network='%s'/><mac address='%s'/><model type='virtio'/></interface>", quote(v.Network), quote(v.MAC))
	}
	return fmt.Sprintf(`<domain type='%s' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>
  <name>%s</name>
  <uuid>%s</uuid>
  <title>machine %s of berth</title>
  <memory unit='MiB'>%d</memory>
  <vcpu>%d</vcpu>
  <os%s><type arch='%s' machine='%s'>hvm</type><boot dev='hd'/></os>
  <features><acpi/></features>
  %s
  <clock offset='utc'/>
  <on_poweroff>destroy</on_poweroff>
  <on_reboot>restart</on_reboot>
  <on_crash>destroy</on_crash>
  <devices>
    <disk type='file' device='disk'><driver name='qemu' type='qcow2' discard='unmap'/><source file='%s'/><target dev='vda' bus='virtio'/></disk>
    <disk type='file' device='disk'><driver name='qemu' type='raw'/><source file='%s'/><target dev='vdb' bus='virtio'/><readonly/></disk>
    %s
    <serial type='pty'><target port='0'/></serial>
    <console type='pty'><target type='serial' port='0'/></console>
    <channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel>
    <rng model='virtio'><backend model='random'>/dev/urandom</backend></rng>
  </devices>%s
</domain>
`, v.Type, quote(i.Name), v.UUID, quote(i.Name), v.Memory, v.CPU, firmware, arch(), kind, cpu, quote(disk), quote(seed), network, command)
}

// quote has text stand for itself in XML.
func quote(s string) string {
	var b strings.Builder
	if err := xml.EscapeText(&b, []byte(s)); err != nil {
		return "" // a strings.Builder takes everything
	}
	return b.String()
}
