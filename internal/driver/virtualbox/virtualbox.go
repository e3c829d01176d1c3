// Package virtualbox is the driver for virtual machines of Oracle's VirtualBox, from 5.0 on, with docker-machine's flags.
//
// All it does goes through VBoxManage, whose words it knows (manager, parse.go). A machine boots a cloud image (vmimage) that a small
// disk (vmseed) tells who it is, in the place of boot2docker; Docker comes by provisioning over SSH. SSH takes a port of
// 127.0.0.1 that VirtualBox's NAT leads into the machine; the engine has a fixed address on a host-only network, which this computer and
// VirtualBox's other machines see. VirtualBox keeps the machine's state; it is found again by its UUID.
package virtualbox

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"berth/internal/machine"
	"berth/internal/vmimage"
	"berth/internal/vmlogin"
	"berth/internal/vmseed"
)

// Shell runs commands on a machine.
type Shell interface {
	// Run runs a command of a POSIX shell there and returns what it wrote to stdout.
	Run(ctx context.Context, i machine.Instance, command string) (string, error)
}

// Driver implements machine.Driver, Power, Saver, PreChecker and Locator.
type Driver struct {
	// Shell asks machines for addresses that are not fixed: those that docker-machine made. nil where none is to be asked.
	Shell Shell
	// AwaitBoot has Create and Start return when the machine has booted as far as its sshd.
	AwaitBoot bool
}

// The files in a machine's folder. VirtualBox has its own in a folder with the machine's name.
const (
	imageFile  = "image.img" // until the disk is made of it
	diskFile   = "disk.vmdk"
	seedFile   = "seed.iso"
	keyFile    = "id_ed25519"
	serialFile = "serial.log"
)

const (
	enginePort = 2376
	sshPort    = 22
	loopback   = "127.0.0.1"
	sshRule    = "ssh" // the NAT rule's name
	addressKey = "berth/address"
)

// vm is this driver's part of config.json: docker-machine's fields, and ours.
type vm struct {
	VBoxManager         struct{}
	HostInterfaces      struct{}
	CPU                 int
	Memory              int // MB
	DiskSize            int // MB
	NatNicType          string
	Boot2DockerURL      string
	Boot2DockerImportVM string
	HostDNSResolver     bool
	HostOnlyCIDR        string
	HostOnlyNicType     string
	HostOnlyPromiscMode string
	UIType              string
	HostOnlyNoDHCP      bool
	NoShare             bool
	DNSProxy            bool
	NoVTXCheck          bool
	ShareFolder         string

	UUID    string `json:",omitempty"` // "" for one of docker-machine's, which goes by its name
	Image   string `json:",omitempty"`
	Address string `json:",omitempty"` // the fixed one on the host-only network
}

func readVM(i machine.Instance) (vm, error) {
	v := vm{}
	if len(i.Raw) == 0 {
		return v, errors.New("its record does not say what it is like")
	}
	err := json.Unmarshal(i.Raw, &v)
	return v, err
}

// handle is what VBoxManage calls the machine.
func (v vm) handle(i machine.Instance) string {
	if v.UUID != "" {
		return v.UUID
	}
	return i.Name
}

func file(i machine.Instance, name string) string { return filepath.Join(i.Dir, name) }

// Create implements machine.Driver.
func (d Driver) Create(ctx context.Context, spec machine.Spec) (machine.Instance, error) {
	i := machine.Instance{Name: spec.Name, Dir: spec.Dir}
	set, err := readSettings(spec)
	if err := errors.Join(err, ctx.Err()); err != nil {
		return i, err
	}
	m, ver, err := open(ctx)
	if err != nil {
		return i, err
	}
	for _, w := range set.warnings {
		spec.Progress("WARNING: " + w)
	}
	if err := set.chooseCIDR(ver, spec.Progress); err != nil {
		return i, err
	}
	set.UUID, set.Image, set.natMAC, set.hostMAC = newUUID(), set.image.Name, newMAC(), newMAC()
	i.SSHHost, i.SSHUser, i.SSHKeyPath = loopback, set.user, file(i, keyFile)
	if i.Raw, err = json.Marshal(set.vm); err != nil {
		return i, err
	}
	if err := spec.Keep(i); err != nil {
		return i, err
	}
	public, err := makeFiles(ctx, m, spec, set, i)
	if err != nil {
		return i, err
	}
	spec.Progress("Creating VirtualBox VM...")
	if i, err = define(ctx, m, spec, set, i, public); err != nil {
		return i, err
	}
	spec.Progress("Starting the VM...")
	if i, err = d.boot(ctx, m, i, spec.Progress); err != nil {
		return i, err
	}
	return d.await(ctx, m, i, spec.Progress)
}

// open finds VirtualBox.
func open(ctx context.Context) (manager, version, error) {
	m, err := findManager()
	if err != nil {
		return m, version{}, err
	}
	v, err := m.version(ctx)
	return m, v, err
}

func newUUID() string {
	id := make([]byte, 16)
	rand.Read(id) //nolint:errcheck // it never fails: crypto/rand crashes the program instead
	id[6], id[8] = id[6]&0x0f|0x40, id[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", id[:4], id[4:6], id[6:8], id[8:10], id[10:])
}

// newMAC is of VirtualBox's own range, and as it writes them.
func newMAC() string {
	b := make([]byte, 3)
	rand.Read(b) //nolint:errcheck // it never fails: crypto/rand crashes the program instead
	return fmt.Sprintf("080027%X", b)
}

// colons is a MAC as everybody else writes it.
func colons(mac string) string {
	var pairs []string
	for ; len(mac) >= 2; mac = mac[2:] {
		pairs = append(pairs, strings.ToLower(mac[:2]))
	}
	return strings.Join(pairs, ":")
}

// chooseCIDR is the host-only network's, as asked for or as VirtualBox lets us.
func (s *settings) chooseCIDR(v version, progress func(string)) error {
	asked := s.cidr.IsValid()
	if !asked {
		s.cidr = netip.MustParsePrefix(oldCIDR)
	}
	ok, err := allowed(v, allowFile, s.cidr)
	if err == nil && !ok && !asked {
		s.cidr = netip.MustParsePrefix(newCIDR)
		if ok, err = allowed(v, allowFile, s.cidr); ok {
			progress("The host-only network is " + newCIDR + ", since VirtualBox does not allow " + oldCIDR)
		}
	}
	if err != nil {
		return err
	}
	if !ok {
		return notAllowed(s.cidr)
	}
	s.HostOnlyCIDR = s.cidr.String()
	return nil
}

// makeFiles makes the disk and the key. It returns the key's public half.
func makeFiles(ctx context.Context, m manager, spec machine.Spec, set settings, i machine.Instance) (string, error) {
	cache := vmimage.Cache{Dir: vmimage.Dir(spec.CacheDir)}
	if _, err := cache.Place(ctx, set.image, file(i, imageFile), reporter{spec}); err != nil {
		return "", err
	}
	spec.Progress("Creating the disk...")
	if err := makeDisk(ctx, m, spec, set, i); err != nil {
		return "", err
	}
	if err := os.Remove(file(i, imageFile)); err != nil { // the disk is a copy
		return "", err
	}
	spec.Progress("Creating the SSH key...")
	public, err := vmlogin.NewKey(file(i, keyFile), spec.Name)
	if err != nil {
		return "", fmt.Errorf("create the SSH key: %w", err)
	}
	return public, ctx.Err()
}

// reporter shows a machine's create what vmimage does.
type reporter struct{ spec machine.Spec }

func (r reporter) Line(text string)                   { r.spec.Progress(text) }
func (r reporter) Bar(what string, done, total int64) { r.spec.Bar(what, done, total) }

// define tells VirtualBox what the machine is like, and the machine who it is.
func define(ctx context.Context, m manager, spec machine.Spec, set settings, i machine.Instance, public string) (machine.Instance, error) {
	args := []string{"createvm", "--basefolder", i.Dir, "--name", i.Name, "--uuid", set.UUID, "--ostype", "Linux26_64", "--register"}
	if _, err := m.run(ctx, args...); err != nil {
		return i, err
	}
	if err := m.modify(ctx, set.UUID, set.hardware(i)); err != nil {
		return i, err
	}
	i, err := takeAddress(ctx, m, i, &set)
	if err != nil {
		return i, err
	}
	seed := vmseed.Seed{
		InstanceID: set.UUID, Hostname: spec.Name, User: set.user, Key: public, ConfigDrive: set.image.ConfigDrive,
		DHCP: []string{colons(set.natMAC)},
	}
	if set.Address != "" {
		seed.Network = &vmseed.Network{MAC: colons(set.hostMAC), Address: netip.PrefixFrom(netip.MustParseAddr(set.Address), set.cidr.Bits())}
	}
	if set.share.name != "" {
		seed.Mounts = []vmseed.Mount{{Tag: set.share.name, Path: "/" + set.share.name, Type: "vboxsf"}}
	}
	if err := seed.Write(file(i, seedFile)); err != nil {
		return i, err
	}
	return i, attach(ctx, m, set, i)
}

// hardware is what the machine is made of, for modifyvm.
func (s settings) hardware(i machine.Instance) []string {
	return []string{
		"--firmware", "bios", "--bioslogofadein", "off", "--bioslogofadeout", "off", "--bioslogodisplaytime", "0", "--biosbootmenu", "disabled",
		"--cpus", fmt.Sprint(s.CPU), "--memory", fmt.Sprint(s.Memory), "--acpi", "on", "--ioapic", "on", "--rtcuseutc", "on",
		"--natdnshostresolver1", onOff(s.HostDNSResolver), "--natdnsproxy1", onOff(s.DNSProxy), "--cpuhotplug", "off", "--pae", "on",
		"--hpet", "on", "--hwvirtex", "on", "--nestedpaging", "on", "--largepages", "on", "--vtxvpid", "on", "--accelerate3d", "off",
		"--boot1", "disk", "--boot2", "none", "--boot3", "none", "--boot4", "none",
		"--nic1", "nat", "--nictype1", s.NatNicType, "--cableconnected1", "on", "--macaddress1", s.natMAC, "--macaddress2", s.hostMAC,
		// Some images do not boot without a serial line, and all say there what goes wrong.
		"--uart1", "0x3F8", "4", "--uartmode1", "file", file(i, serialFile),
	}
}

func onOff(b bool) string {
	if b {
		return "on"
	}
	return "off"
}

// attach plugs in the disks, and shares the folder.
func attach(ctx context.Context, m manager, set settings, i machine.Instance) error {
	id := set.UUID
	steps := [][]string{
		{"storagectl", id, "--name", "SATA", "--add", "sata", "--hostiocache", "on"},
		{"storageattach", id, "--storagectl", "SATA", "--port", "0", "--device", "0", "--type", "dvddrive", "--medium", file(i, seedFile)},
		{"storageattach", id, "--storagectl", "SATA", "--port", "1", "--device", "0", "--type", "hdd", "--medium", file(i, diskFile)},
	}
	if set.share.name != "" {
		steps = append(steps,
			[]string{"sharedfolder", "add", id, "--name", set.share.name, "--hostpath", set.share.host},
			[]string{"setextradata", id, "VBoxInternal2/SharedFoldersEnableSymlinksCreate/" + set.share.name, "1"})
	}
	for _, args := range steps {
		if _, err := m.run(ctx, args...); err != nil {
			return err
		}
	}
	return nil
}

// modify changes a machine that is off.
func (m manager) modify(ctx context.Context, id string, args []string) error {
	_, err := m.run(ctx, append([]string{"modifyvm", id}, args...)...)
	return err
}

// info is what VirtualBox knows of a machine; nil if it knows none.
func (m manager) info(ctx context.Context, id string) (map[string]string, error) {
	out, err := m.run(ctx, "showvminfo", id, "--machinereadable")
	if said(err, saysNoMachine) {
		return nil, nil //nolint:nilnil // that there is none is no error
	}
	if err != nil {
		return nil, err
	}
	return parseInfo(out), nil
}

// State implements machine.Driver.
func (d Driver) State(ctx context.Context, i machine.Instance) (machine.State, error) {
	_, _, state, err := d.look(ctx, i)
	return state, err
}

// look is what VirtualBox knows of the machine.
func (d Driver) look(ctx context.Context, i machine.Instance) (manager, map[string]string, machine.State, error) {
	v, err := readVM(i)
	if err != nil { // nothing was ever asked of VirtualBox
		return manager{}, nil, machine.StateNotFound, nil //nolint:nilerr // see above
	}
	m, err := findManager()
	if err != nil {
		return m, nil, machine.StateNone, err
	}
	info, err := m.info(ctx, v.handle(i))
	if err != nil {
		return m, nil, machine.StateNone, err
	}
	if info == nil || v.UUID == "" && !owns(i, info) {
		return m, nil, machine.StateNotFound, nil
	}
	state, err := stateOf(info["VMState"])
	return m, info, state, err
}

// owns tells whether a machine that goes by its name is this store's, and not another with the same name.
func owns(i machine.Instance, info map[string]string) bool {
	rel, err := filepath.Rel(i.Dir, info["CfgFile"])
	return err == nil && filepath.IsLocal(rel)
}

// stateOf puts VirtualBox's states into a machine's.
func stateOf(state string) (machine.State, error) {
	switch state {
	case "running", "teleporting", "livesnapshotting", "onlinesnapshotting", "deletingsnapshotlive":
		return machine.StateRunning, nil
	case "paused", "teleportingpausedvm", "deletingsnapshotlivepaused":
		return machine.StatePaused, nil
	case "saved", "aborted-saved":
		return machine.StateSaved, nil
	case "poweroff", "aborted", "teleported":
		return machine.StateStopped, nil
	case "starting", "restoring", "settingup", "teleportingin":
		return machine.StateStarting, nil
	case "stopping", "saving":
		return machine.StateStopping, nil
	case "gurumeditation":
		return machine.StateError, errors.New("VirtualBox has halted it after an error of its own (guru meditation): kill it, then start it")
	}
	return machine.StateError, fmt.Errorf("VirtualBox says %q", state)
}

// Remove implements machine.Driver.
func (d Driver) Remove(ctx context.Context, i machine.Instance) error {
	v, err := readVM(i)
	if err != nil { // nothing was ever asked of VirtualBox
		return removeFiles(i)
	}
	m, info, _, err := d.look(ctx, i)
	if info == nil {
		if err != nil {
			return err
		}
		return removeFiles(i)
	}
	if err := m.powerOff(ctx, v.handle(i)); err != nil {
		return err
	}
	const unlockTime = 15 * time.Second // VirtualBox's process goes after the machine
	limited, cancel := context.WithTimeout(ctx, unlockTime)
	defer cancel()
	for {
		_, err := m.work(ctx, nil, "unregistervm", v.handle(i), "--delete")
		switch {
		case err == nil, said(err, saysNoMachine):
			return removeFiles(i)
		case !said(err, saysLocked):
			return err
		}
		select {
		case <-limited.Done():
			return err
		case <-time.After(pollTime):
		}
	}
}

// removeFiles removes what is ours, also of a create that broke off before VirtualBox had it.
func removeFiles(i machine.Instance) error {
	if i.Dir == "" {
		return nil
	}
	for _, name := range []string{imageFile, diskFile, seedFile, keyFile, keyFile + ".pub", serialFile} {
		if err := os.Remove(file(i, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// Locate implements machine.Locator. Where an address is not fixed, the machine is asked.
func (d Driver) Locate(ctx context.Context, i machine.Instance) (machine.Instance, machine.State, error) {
	_, info, state, err := d.look(ctx, i)
	if err != nil || state != machine.StateRunning {
		return i, state, err
	}
	i.SSHHost = loopback // docker-machine does not write it
	if v, err := readVM(i); err != nil || v.Address != "" || d.Shell == nil {
		return i, state, err
	}
	const askTime = 5 * time.Second
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	if a, err := d.ask(ctx, i, info); err == nil {
		i.IPAddress = a.String()
	}
	return i, state, nil
}

// console is the end of what the machine wrote on its serial line.
func console(i machine.Instance) string {
	const most = 600
	text, err := os.ReadFile(file(i, serialFile))
	if err != nil {
		return ""
	}
	if text = []byte(strings.TrimSpace(string(text))); len(text) > most {
		text = text[len(text)-most:]
	}
	return strings.ToValidUTF8(string(text), "")
}
