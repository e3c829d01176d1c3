// Command vboxsim is a VBoxManage for tests, where VirtualBox cannot be had: see the package of that name.
package main

import (
	"os"

	"berth/internal/driver/virtualbox/vboxsim"
)

func main() { os.Exit(vboxsim.Main(os.Args[1:], os.Stdin, os.Stdout, os.Stderr)) }
