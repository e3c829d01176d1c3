package virtualbox

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"regexp"
	"runtime"

	"github.com/klauspost/cpuid/v2"
	"github.com/shirou/gopsutil/v4/disk"
	"github.com/shirou/gopsutil/v4/mem"

	"berth/internal/machine"
	"berth/internal/vmimage"
)

// hostName is what a machine can be called inside, of which DNS allows 63 characters.
var hostName = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?$`)

const maxName = 63

// noVTX is docker-machine's text, and what to do.
const noVTX = "This computer doesn't have VT-X/AMD-v enabled. Enabling it in the BIOS is mandatory.\n" +
	"In a virtual machine, its hypervisor has to allow nested virtualization. Without it, -d qemu emulates machines, slowly, and -d local makes hosts that need none. " +
	"(To skip this check, use --" + flagNoCheck + ")"

// PreCreateCheck implements machine.PreChecker.
func (d Driver) PreCreateCheck(ctx context.Context, spec machine.Spec) error {
	if len(spec.Name) > maxName || !hostName.MatchString(spec.Name) {
		return fmt.Errorf("%q cannot be a host name: use up to %d letters, digits, dots and dashes", spec.Name, maxName)
	}
	set, err := readSettings(spec)
	if err != nil {
		return err
	}
	m, ver, err := open(ctx)
	if err != nil {
		return err
	}
	if runtime.GOARCH != "amd64" {
		return fmt.Errorf("this driver makes machines with an amd64 CPU, and this computer's is %s: use -d qemu", runtime.GOARCH)
	}
	if !set.NoVTXCheck && !virtualizes() {
		return errors.New(noVTX) //nolint:revive,staticcheck // docker-machine's text
	}
	if err := set.chooseCIDR(ver, silent); err != nil {
		return err
	}
	if err := checkNetwork(ctx, m, set); err != nil {
		return err
	}
	info, err := m.info(ctx, spec.Name)
	if err != nil {
		return err
	}
	if info != nil {
		return fmt.Errorf("VirtualBox has a machine called %s already (%s): choose another name, or remove that one with VBoxManage unregistervm %s --delete", spec.Name, info["CfgFile"], spec.Name)
	}
	if err := set.checkMemory(); err != nil {
		return err
	}
	return set.checkRoom(ctx, spec)
}

// virtualizes tells whether the CPU, as this system sees it, runs virtual machines. Where a hypervisor has it already, it may still.
func virtualizes() bool {
	return cpuid.CPU.Supports(cpuid.VMX) || cpuid.CPU.Supports(cpuid.SVM)
}

func checkNetwork(ctx context.Context, m manager, set settings) error {
	all, err := m.adapters(ctx)
	if err != nil {
		return err
	}
	_, err = pick(all, set.cidr)
	return err
}

func (s settings) checkMemory() error {
	m, err := mem.VirtualMemory()
	if err != nil {
		return nil //nolint:nilerr // where the system does not tell, VirtualBox will
	}
	if have := m.Available >> 20; have < uint64(s.Memory) { //nolint:gosec // positive
		return fmt.Errorf("--%s %d: this computer has %d MB left", flagMemory, s.Memory, have)
	}
	return nil
}

// checkRoom asks for the image, and for the disk that it takes in the cache and, unpacked, as the machine's own.
func (s settings) checkRoom(ctx context.Context, spec machine.Spec) error {
	cache := vmimage.Cache{Dir: vmimage.Dir(spec.CacheDir)}
	size, err := cache.Check(ctx, s.image)
	if err != nil {
		return err
	}
	dir := spec.Dir
	usage, err := disk.Usage(dir)
	for err != nil && dir != filepath.Dir(dir) {
		dir = filepath.Dir(dir)
		usage, err = disk.Usage(dir)
	}
	if err != nil {
		return nil //nolint:nilerr // where the file system does not tell, the writing will
	}
	const unpacked = 4                                                             // times what publishers compress it to, at most
	if need, free := (size>>20)*(1+unpacked), int64(usage.Free>>20); free < need { //nolint:gosec // far below
		return fmt.Errorf("%s has %d MB free, and the image and the machine's disk need %d", dir, free, need)
	}
	return nil
}
