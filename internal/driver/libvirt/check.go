package libvirt

import (
	"context"
	"fmt"
	"regexp"

	"github.com/shirou/gopsutil/v4/mem"

	"berth/internal/machine"
	"berth/internal/vmimage"
)

// hostName is what a machine can be called inside, of which DNS allows 63 characters.
var hostName = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?$`)

const maxName = 63

// PreCreateCheck implements machine.PreChecker.
func (d Driver) PreCreateCheck(ctx context.Context, spec machine.Spec) error {
	if len(spec.Name) > maxName || !hostName.MatchString(spec.Name) {
		return fmt.Errorf("%q cannot be a host name: use up to %d letters, digits, dots and dashes", spec.Name, maxName)
	}
	set, err := readSettings(spec)
	if err != nil {
		return err
	}
	cache := vmimage.Cache{Dir: vmimage.Dir(spec.CacheDir)}
	size, err := cache.Check(ctx, set.image)
	if err != nil {
		return err
	}
	if m, err := mem.VirtualMemory(); err == nil && m.Available>>20 < uint64(set.Memory) { //nolint:gosec // positive
		return fmt.Errorf("--%s %d: this computer has %d MB left", flagMemory, set.Memory, m.Available>>20)
	}
	unlock, err := lock(ctx) // the pool may have to be made
	if err != nil {
		return err
	}
	defer unlock()
	return with(ctx, set.URI, askTime, func(c conn) error {
		if err := c.chooseType(&set.vm, silent); err != nil {
			return err
		}
		if _, err := c.DomainLookupByName(spec.Name); err == nil {
			return fmt.Errorf("libvirt has a machine called %s already: choose another name, or remove that one with virsh -c %s undefine %s", spec.Name, c.name, spec.Name)
		} else if !missing(err) {
			return err
		}
		if set.named() {
			if _, err := c.network(set.Network, silent); err != nil {
				return err
			}
		}
		pool, err := c.pool(set.Pool)
		if err != nil {
			return err
		}
		return c.room(set, pool, size)
	})
}
