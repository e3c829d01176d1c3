package overlay

import (
	"maps"
	"strconv"

	"berth/internal/fleet"
)

// labels are the settings as they stand on a cluster that berth formed.
func (s Settings) labels() map[string]string {
	l := map[string]string{labelOurs: "1"}
	if s.Encrypted {
		l[labelEncrypted] = "1"
	}
	if s.MTU > 0 {
		l[labelMTU] = strconv.Itoa(s.MTU)
	}
	if s.DataInterface != "" {
		l[labelData] = s.DataInterface
	}
	return l
}

// read takes the settings from such labels.
func (s Settings) read(labels map[string]string) Settings {
	s.Encrypted, s.DataInterface = labels[labelEncrypted] != "", labels[labelData]
	s.MTU, _ = strconv.Atoi(labels[labelMTU]) // without one it is 0
	return s
}

// same tells whether labels say the same, whatever else they say.
func (s Settings) same(labels map[string]string) bool {
	kept := maps.Clone(labels)
	maps.DeleteFunc(kept, func(k, _ string) bool {
		return k != labelOurs && k != labelEncrypted && k != labelMTU && k != labelData
	})
	return maps.Equal(kept, s.labels())
}

func (k *Keeper) settings() Settings {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.set
}

// Options that new networks get; the first is the engines' own, the second their overlay driver's.
const (
	optionMTU       = "com.docker.network.driver.mtu"
	optionEncrypted = "encrypted"
)

// usualMTU is what overlay networks take for that of the hosts' links unless they are told.
const usualMTU = 1500

// Defaults are the driver options of new overlay networks, and whether networks without a driver are to be such.
func (k *Keeper) Defaults() (options map[string]string, on bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	options = map[string]string{}
	if k.set.Encrypted {
		options[optionEncrypted] = ""
	}
	if mtu := k.mtu(); mtu > 0 {
		options[optionMTU] = strconv.Itoa(mtu)
	}
	return options, k.status.On
}

// mtu is what was said, or else the least that an engine was told to use for its own bridges, if that is less than usual. The caller
// holds mu.
func (k *Keeper) mtu() int {
	if k.set.MTU > 0 {
		return k.set.MTU
	}
	least := usualMTU
	for _, n := range k.o.Fleet.Snapshot().Nodes() {
		for _, w := range n.Networks {
			if w.Name == "bridge" && n.State == fleet.Healthy {
				if mtu := w.MTU(); mtu > 0 {
					least = min(least, mtu)
				}
			}
		}
	}
	if least == usualMTU {
		return 0
	}
	return least
}
