//go:build !unix

package vboxsim

// Where there is no such QEMU, machines only count as running.

func qemuWanted() bool                           { return false }
func (s *sim) bootQEMU(*machine) error           { return nil }
func (s *sim) refresh(*machine)                  {}
func controlQEMU(*machine, string) error         { return nil }
func makeBridge(string) error                    { return nil }
func removeBridge(string) error                  { return nil }
func addressBridge(string, string, string) error { return nil }
func removeTap(*machine)                         {}
