package local

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"

	"github.com/google/renameio/v2"

	"berth/internal/machine"
)

// Files of a box, below the machine's directory.
const (
	boxDir     = "local"
	recordFile = "box.json"    // what the box is
	engineFile = "engine.json" // what its engine is started with
	etcDir     = "etc-docker"  // /etc/docker in the box
	dataDir    = "data"        // /var/lib/docker in the box
	hostsFile  = "hosts"
	resolvFile = "resolv.conf"
	logFile    = "engine.log"
)

var errNoBox = errors.New("no box was made for it")

// box is one machine on this computer. Its exported fields are kept in the instance's Raw and in the record file; NetNS, Bridge,
// HostVeth and Cgroup are there for people to read, and always derived from ID and Subnet.
type box struct {
	ID       string       `json:"BoxID"`
	NetNS    string       // below /run/netns
	Bridge   string       // shared by all boxes of the subnet
	HostVeth string       // the bridge's end of the box's cable
	Cgroup   string       // in every hierarchy
	Subnet   netip.Prefix // of the bridge
	Address  netip.Addr   // not valid until it is claimed
	Engine   string       // dockerd's path

	name string
	dir  string // the machine's
}

var boxID = regexp.MustCompile(`^[0-9a-f]{10}$`)

func newBox(spec machine.Spec, set settings) *box {
	sum := sha256.Sum256([]byte(spec.StoreID + "\x00" + spec.Name))
	b := &box{ID: hex.EncodeToString(sum[:5]), Subnet: set.subnet, Engine: set.engine, name: spec.Name, dir: spec.Dir}
	b.derive()
	return b
}

// derive fills in the names. The kernel allows interfaces 15 characters.
func (b *box) derive() {
	b.NetNS = "berth-" + b.ID
	b.HostVeth = vethPrefix + b.ID
	b.Cgroup = "/berth-" + b.ID
	sum := sha256.Sum256([]byte(b.Subnet.String()))
	b.Bridge = "berth" + hex.EncodeToString(sum[:4])
}

// loadBox finds a box by its instance or, where that was lost, by the record in the machine's directory.
func loadBox(i machine.Instance) (*box, error) {
	b := &box{name: i.Name, dir: i.Dir}
	text := []byte(i.Raw)
	if len(text) > 0 {
		if err := json.Unmarshal(text, b); err != nil {
			return nil, fmt.Errorf("read the driver's fields of %s: %w", i.Name, err)
		}
	}
	if b.ID == "" {
		var err error
		if text, err = os.ReadFile(b.file(recordFile)); errors.Is(err, os.ErrNotExist) {
			return nil, errNoBox
		} else if err != nil {
			return nil, fmt.Errorf("read record: %w", err)
		}
		if err := json.Unmarshal(text, b); err != nil {
			return nil, fmt.Errorf("read %s: %w", b.file(recordFile), err)
		}
	}
	if !boxID.MatchString(b.ID) || !b.Subnet.IsValid() {
		return nil, fmt.Errorf("the record of %s is damaged: BoxID %q, Subnet %q", i.Name, b.ID, b.Subnet)
	}
	b.derive()
	return b, nil
}

func (b *box) save() error {
	if err := os.MkdirAll(b.file(""), 0o700); err != nil {
		return fmt.Errorf("write record: %w", err)
	}
	text, err := json.MarshalIndent(b, "", "    ")
	if err != nil {
		return fmt.Errorf("write record: %w", err)
	}
	if err := renameio.WriteFile(b.file(recordFile), text, 0o600); err != nil {
		return fmt.Errorf("write record: %w", err)
	}
	return nil
}

func (b *box) file(name string) string { return filepath.Join(b.dir, boxDir, name) }

// exists: something of the box is left, be it only its record.
func (b *box) exists() bool {
	for _, path := range []string{b.file(recordFile), netnsPath(b.NetNS)} {
		if _, err := os.Stat(path); err == nil {
			return true
		}
	}
	return false
}

func (b *box) instance() machine.Instance {
	i := machine.Instance{Name: b.name, Dir: b.dir, EnginePort: enginePort}
	if b.Address.IsValid() {
		i.IPAddress = b.Address.String()
	}
	raw, err := json.Marshal(b)
	if err != nil { // strings and addresses: they cannot fail to be written
		panic(err)
	}
	i.Raw = raw
	return i
}
