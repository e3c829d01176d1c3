package qemu

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"runtime"

	"github.com/shirou/gopsutil/v4/disk"
	"github.com/shirou/gopsutil/v4/mem"

	"berth/internal/machine"
	"berth/internal/vmimage"
	"berth/internal/vmlogin"
)

// hostName is what a machine can be called inside, of which DNS allows 63 characters.
var hostName = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?$`)

const (
	maxName   = 63
	leastRoom = 1024 // MB for a machine's first files
	// maxSocket is what the systems allow as a socket's path, with room for the longest of ours.
	maxSocket = 104
)

// PreCreateCheck implements machine.PreChecker.
func (d Driver) PreCreateCheck(ctx context.Context, spec machine.Spec) error {
	if len(spec.Name) > maxName || !hostName.MatchString(spec.Name) {
		return fmt.Errorf("%q cannot be a host name: use up to %d letters, digits, dots and dashes", spec.Name, maxName)
	}
	s, err := readSettings(spec)
	if err != nil {
		return err
	}
	if s.network.kind == userNetwork && spec.Bool("swarm") {
		return fmt.Errorf("--swarm: a Swarm's members reach each other, and on the user network nobody reaches the machine: use --%s bridge:NAME", flagNetwork)
	}
	if longest := filepath.Join(spec.Dir, "share-10.sock.pid"); len(longest) >= maxSocket {
		return fmt.Errorf("the store's path is too long for the sockets that lead to a machine (%d characters, %d at most): use a shorter one with --storage-path", len(longest), maxSocket)
	}
	if _, err := findQEMU(s.arch); err != nil {
		return err
	}
	if _, err := findImageTool(); err != nil {
		return err
	}
	if _, err := s.accelerator(); err != nil {
		return err
	}
	if s.firmware == firmwareUEFI {
		if _, err := findFirmware(vm{Arch: s.arch, Firmware: s.firmware}); err != nil {
			return err
		}
	}
	if err := s.checkNetwork(); err != nil {
		return err
	}
	if err := s.checkMemory(); err != nil {
		return err
	}
	return s.checkRoom(ctx, spec)
}

func (s settings) checkNetwork() error {
	for _, f := range s.forwards {
		if err := vmlogin.PortFree(f.Host); err != nil {
			return fmt.Errorf("--%s %d:%d: the port cannot be had: %w", flagForward, f.Host, f.Guest, err)
		}
	}
	if s.network.name == "" || runtime.GOOS != "linux" {
		return nil
	}
	if _, err := net.InterfaceByName(s.network.name); err != nil {
		return fmt.Errorf("--%s %s: there is no such interface", flagNetwork, s.network)
	}
	if s.network.kind == bridgeNetwork && !exists("/sys/class/net/"+s.network.name+"/bridge") {
		return fmt.Errorf("--%s %s: it is no bridge", flagNetwork, s.network)
	}
	return nil
}

func (s settings) checkMemory() error {
	m, err := mem.VirtualMemory()
	if err != nil {
		return nil //nolint:nilerr // where the system does not tell, QEMU will
	}
	if have := m.Available >> 20; have < uint64(s.memory) { //nolint:gosec // positive
		return fmt.Errorf("--%s %d: this computer has %d MB left", flagMemory, s.memory, have)
	}
	return nil
}

// checkRoom asks for the image, and for the disk that it and the machine's first files take.
func (s settings) checkRoom(ctx context.Context, spec machine.Spec) error {
	cache := vmimage.Cache{Dir: vmimage.Dir(spec.CacheDir)}
	size, err := cache.Check(ctx, s.image)
	if err != nil {
		return err
	}
	dir := spec.Dir
	for !exists(dir) && dir != filepath.Dir(dir) {
		dir = filepath.Dir(dir)
	}
	usage, err := disk.Usage(dir)
	if err != nil {
		return nil //nolint:nilerr // where the file system does not tell, the writing will
	}
	if need, free := size>>20+leastRoom, int64(usage.Free>>20); free < need { //nolint:gosec // far below
		return fmt.Errorf("%s has %d MB free, and the image and the machine's first files need %d", dir, free, need)
	}
	return checkWritable(dir)
}

// checkWritable finds out early what would stop a create late.
func checkWritable(dir string) error {
	f, err := os.CreateTemp(dir, ".berth-check-*")
	if err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	return os.Remove(f.Name())
}
