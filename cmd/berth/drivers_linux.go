package main

import (
	"berth/internal/driver/local"
	"berth/internal/machine"
)

// platformDrivers make hosts on this computer, with what Linux has for it.
func platformDrivers() map[string]machine.Driver {
	return map[string]machine.Driver{"local": local.Driver{}}
}

// platformMain runs the program as the first process of a local machine, if it was started as that.
func platformMain(argv []string) (handled bool) { return local.InitMain(argv) }
