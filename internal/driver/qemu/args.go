package qemu

import (
	"fmt"
	"strconv"
	"strings"

	"berth/internal/machine"
)

// arguments are QEMU's: the whole machine, the same at each start.
func arguments(i machine.Instance, v vm, how acceleration) ([]string, error) {
	kind := "q35"
	if v.Arch != "x86_64" {
		kind = "virt"
	}
	a := args{
		"-name", "guest=" + escape(i.Name), "-uuid", v.UUID, "-nodefaults", "-no-user-config", "-display", "none",
		"-machine", kind + ",accel=" + how.name, "-cpu", how.cpu(), "-smp", strconv.Itoa(v.CPU), "-m", strconv.Itoa(v.Memory) + "M",
		"-rtc", "base=utc",
		"-pidfile", file(i, pidFile),
		"-qmp", "unix:" + escape(file(i, qmpSocket)) + ",server=on,wait=off",
		"-chardev", "file,id=serial,append=on,path=" + escape(file(i, serialFile)), "-serial", "chardev:serial",
		"-device", "virtio-rng-pci",
		"-device", "virtio-serial-pci",
		"-chardev", "socket,id=agent,server=on,wait=off,path=" + escape(file(i, gaSocket)),
		"-device", "virtserialport,chardev=agent,name=org.qemu.guest_agent.0",
	}
	if err := a.firmware(i, v); err != nil {
		return nil, err
	}
	a.disk("disk", file(i, diskFile), "qcow2,discard=unmap,detect-zeroes=unmap")
	a.disk("seed", file(i, seedFile), "raw,readonly=on")
	for n := range v.ExtraDisk {
		a.disk(fmt.Sprintf("extra%d", n+1), file(i, fmt.Sprintf(extraFile, n+1)), "qcow2,discard=unmap")
	}
	a.network(i, v)
	a.shares(i, v)
	return append(a, detached...), nil
}

type args []string

func (a *args) add(more ...string) { *a = append(*a, more...) }

// escape keeps commas of names from ending QEMU's words.
func escape(s string) string { return strings.ReplaceAll(s, ",", ",,") }

func (a *args) firmware(i machine.Instance, v vm) error {
	if v.Firmware == firmwareBIOS || v.Firmware == "" {
		return nil
	}
	u, err := findFirmware(v)
	if err != nil {
		return err
	}
	a.add("-drive", "if=pflash,unit=0,format=raw,readonly=on,file="+escape(u.code))
	if exists(file(i, varsFile)) {
		a.add("-drive", "if=pflash,unit=1,format=raw,file="+escape(file(i, varsFile)))
	}
	return nil
}

// disk is one whose serial number tells it from others, in the machine: /dev/disk/by-id/virtio-NAME.
func (a *args) disk(name, path, format string) {
	a.add("-drive", "if=none,id="+name+",file="+escape(path)+",format="+format)
	a.add("-device", "virtio-blk-pci,drive="+name+",serial="+name)
}

func (a *args) network(i machine.Instance, v vm) {
	n := parseNetwork(v.Network)
	netdev := ""
	switch n.kind {
	case userNetwork:
		// The name is what the machine's DHCP tells it, too.
		netdev = "user,id=net,hostname=" + escape(i.Name)
		for _, f := range append([]forward{{i.SSHPort, sshPort}, {i.EnginePort, enginePort}}, v.Forwards...) {
			netdev += fmt.Sprintf(",hostfwd=tcp:%s:%d-:%d", loopback, f.Host, f.Guest)
		}
	case bridgeNetwork:
		netdev = "bridge,id=net,br=" + n.name
	case tapNetwork:
		netdev = "tap,id=net"
		if n.name != "" {
			netdev += ",script=no,downscript=no,ifname=" + n.name
		}
	}
	a.add("-netdev", netdev, "-device", "virtio-net-pci,netdev=net,mac="+v.MAC)
}

// shares are folders of this computer. virtiofs works on memory that its server sees as well.
func (a *args) shares(i machine.Instance, v vm) {
	shared := false
	for n, m := range v.Mounts {
		id := fmt.Sprintf("share%d", n+1)
		if m.Type == mount9p {
			// As the owner of QEMU's process, and with what others own kept apart.
			a.add("-fsdev", "local,id="+id+",security_model=mapped-xattr,path="+escape(m.Host))
			a.add("-device", "virtio-9p-pci,fsdev="+id+",mount_tag="+m.Tag)
			continue
		}
		shared = true
		a.add("-chardev", "socket,id="+id+",path="+escape(file(i, fmt.Sprintf(shareSock, n+1))))
		a.add("-device", "vhost-user-fs-pci,chardev="+id+",tag="+m.Tag)
	}
	if shared {
		a.add("-object", fmt.Sprintf("memory-backend-memfd,id=memory,size=%dM,share=on", v.Memory), "-numa", "node,memdev=memory")
	}
}
