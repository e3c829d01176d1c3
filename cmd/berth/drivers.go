package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"berth/internal/driver/none"
	"berth/internal/machine"
)

// drivers are the providers that berth can make hosts with.
func drivers() map[string]machine.Driver {
	d := map[string]machine.Driver{
		"none": none.New(),
	}
	maps.Copy(d, platformDrivers())
	return d
}

func (p *program) driver(name string) (machine.Driver, error) {
	d, ok := p.drivers[name]
	if !ok {
		known := strings.Join(slices.Sorted(maps.Keys(p.drivers)), ", ")
		return nil, fmt.Errorf("Driver %q not found. This berth has: %s", name, known) //nolint:staticcheck,revive // docker-machine's text
	}
	return d, nil
}
