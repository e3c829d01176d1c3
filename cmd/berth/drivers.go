package main

import (
	"maps"

	"berth/internal/driver/generic"
	"berth/internal/driver/libvirt"
	"berth/internal/driver/none"
	"berth/internal/driver/qemu"
	"berth/internal/driver/virtualbox"
	"berth/internal/machine"
)

// drivers are the providers that berth can make hosts with.
func drivers() map[string]machine.Driver {
	d := map[string]machine.Driver{
		"generic":    generic.New(sshShell{}),
		"libvirt":    libvirt.Driver{AwaitBoot: true},
		"none":       none.New(),
		"qemu":       qemu.Driver{AwaitBoot: true},
		"virtualbox": virtualbox.Driver{Shell: sshShell{}, AwaitBoot: true},
	}
	maps.Copy(d, platformDrivers())
	return d
}

// driver is one of berth's own, or a plugin on PATH.
func (p *program) driver(name string) (machine.Driver, error) {
	if d, ok := p.drivers[name]; ok {
		return d, nil
	}
	d, err := p.plugin(name)
	if err != nil {
		return nil, p.missingDriver(err)
	}
	return d, nil
}
