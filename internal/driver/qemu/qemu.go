// Package qemu is the driver for virtual machines on this computer, by QEMU alone: no daemon, no root, nothing to set up but the
// program. A machine is a folder of files and, while it runs, one process that belongs to no command and outlives it.
//
// A machine boots a cloud image (vmimage) that a small disk (vmseed) tells who it is; Docker comes by provisioning over SSH, as on
// any other host. All state is in the machine's folder: its disk on top of the shared image, and beside a running process its
// pid file and the sockets that lead to it. Where the computer can help (KVM, HVF, WHPX) it does; else the machine is emulated,
// which is said loudly.
package qemu

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"berth/internal/machine"
	"berth/internal/vmimage"
	"berth/internal/vmlogin"
	"berth/internal/vmseed"
)

// Driver implements machine.Driver, Power, Saver, PreChecker and Locator. The zero value returns as soon as a machine's
// process runs.
type Driver struct {
	// AwaitBoot has Create and Start return when the machine has booted as far as its sshd.
	AwaitBoot bool
}

// The files in a machine's folder.
const (
	imageFile  = "image.img" // shared with the cache and other machines, never written
	diskFile   = "disk.qcow2"
	extraFile  = "disk-%d.qcow2"
	seedFile   = "seed.iso"
	varsFile   = "uefi-vars.fd"
	keyFile    = "id_ed25519"
	pidFile    = "qemu.pid"
	logFile    = "qemu.log"
	serialFile = "serial.log"
	oldSerial  = "serial.log.old" // of the start before
	savedFile  = "memory.saved"   // holds the memory of a machine that was saved
	savedPart  = "memory.part"
	qmpSocket  = "qmp.sock"
	gaSocket   = "agent.sock"
	shareSock  = "share-%d.sock"
)

const (
	enginePort = 2376 // in the machine
	sshPort    = 22
	loopback   = "127.0.0.1"
)

// vm is this driver's part of config.json.
type vm struct {
	UUID      string
	MAC       string
	Arch      string // as QEMU calls it
	Accel     string // as asked for
	CPU       int
	Memory    int // MB
	DiskSize  int // MB
	ExtraDisk []int
	Network   string
	Static    string    `json:",omitempty"` // the fixed address
	Firmware  string    `json:",omitempty"`
	Mounts    []share   `json:",omitempty"`
	Forwards  []forward `json:",omitempty"`
	Image     string
}

// share is a folder of this computer in the machine.
type share struct{ Host, Tag, Guest, Type string }

// forward is a port of this computer that leads into the machine.
type forward struct{ Host, Guest int }

func readVM(i machine.Instance) (vm, error) {
	v := vm{}
	if len(i.Raw) == 0 {
		return v, errors.New("its record does not say what it is like")
	}
	err := json.Unmarshal(i.Raw, &v)
	return v, err
}

func file(i machine.Instance, name string) string { return filepath.Join(i.Dir, name) }

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// Create implements machine.Driver.
func (d Driver) Create(ctx context.Context, spec machine.Spec) (machine.Instance, error) {
	i := machine.Instance{Name: spec.Name, Dir: spec.Dir}
	set, err := readSettings(spec)
	if err := errors.Join(err, ctx.Err()); err != nil {
		return i, err
	}
	how, err := set.accelerator()
	if err != nil {
		return i, err
	}
	if how.name == tcg {
		spec.Progress("WARNING: the machine is emulated in software, ten times slower or more: " + how.why)
	}
	v := set.newVM()
	if i, err = v.instance(i, set); err != nil {
		return i, err
	}
	if err := spec.Keep(i); err != nil {
		return i, err
	}
	if err := makeFiles(ctx, spec, set, v, i); err != nil {
		return i, err
	}
	spec.Progress("Starting the virtual machine...")
	if i, err = d.launch(ctx, i, v); err != nil {
		return i, err
	}
	return d.await(ctx, i, v, spec.Progress, false)
}

// newVM is a machine with a name and an interface of its own.
func (s settings) newVM() vm {
	id := make([]byte, 16)
	rand.Read(id) //nolint:errcheck // it never fails: crypto/rand crashes the program instead
	id[6], id[8] = id[6]&0x0f|0x40, id[8]&0x3f|0x80
	return vm{
		UUID: fmt.Sprintf("%x-%x-%x-%x-%x", id[:4], id[4:6], id[6:8], id[8:10], id[10:]),
		MAC:  fmt.Sprintf("52:54:00:%02x:%02x:%02x", id[13], id[14], id[15]), // QEMU's own range
		Arch: s.arch, Accel: s.accel, CPU: s.cpus, Memory: s.memory, DiskSize: s.disk, ExtraDisk: s.extra,
		Network: s.network.String(), Static: s.staticAddress(), Firmware: s.firmware, Mounts: s.mounts, Forwards: s.forwards,
		Image: s.image.Name,
	}
}

// instance is where the machine will be found.
func (v vm) instance(i machine.Instance, set settings) (machine.Instance, error) {
	var err error
	i.SSHUser, i.SSHPort, i.SSHKeyPath = set.user, sshPort, file(i, keyFile)
	if set.network.kind == userNetwork {
		if i, err = v.givePorts(i); err != nil {
			return i, err
		}
	}
	if set.address.IsValid() {
		i.IPAddress = set.address.Addr().String()
	}
	i.Raw, err = json.Marshal(v)
	return i, err
}

// makeFiles makes all that the machine needs before it can run.
func makeFiles(ctx context.Context, spec machine.Spec, set settings, v vm, i machine.Instance) error {
	cache := vmimage.Cache{Dir: vmimage.Dir(spec.CacheDir)}
	if _, err := cache.Place(ctx, set.image, file(i, imageFile), reporter{spec}); err != nil {
		return err
	}
	spec.Progress("Creating the disk...")
	if err := makeDisks(ctx, i, v); err != nil {
		return err
	}
	if v.Firmware != firmwareBIOS {
		if err := makeVars(i, v); err != nil {
			return err
		}
	}
	spec.Progress("Creating the SSH key...")
	public, err := vmlogin.NewKey(file(i, keyFile), spec.Name)
	if err != nil {
		return fmt.Errorf("create the SSH key: %w", err)
	}
	seed := vmseed.Seed{
		InstanceID: v.UUID, Hostname: spec.Name, User: set.user, Key: public, Agent: true,
		Network: set.seedNetwork(v.MAC), ConfigDrive: set.image.ConfigDrive,
	}
	for _, m := range v.Mounts {
		seed.Mounts = append(seed.Mounts, vmseed.Mount{Tag: m.Tag, Path: m.Guest, Type: m.Type})
	}
	return errors.Join(seed.Write(file(i, seedFile)), ctx.Err())
}

// reporter shows a machine's create what vmimage does.
type reporter struct{ spec machine.Spec }

func (r reporter) Line(text string)                   { r.spec.Progress(text) }
func (r reporter) Bar(what string, done, total int64) { r.spec.Bar(what, done, total) }

// State implements machine.Driver.
func (d Driver) State(ctx context.Context, i machine.Instance) (machine.State, error) {
	if !exists(file(i, diskFile)) {
		return machine.StateNotFound, nil
	}
	p, err := findProcess(i)
	if err != nil {
		return machine.StateNone, err
	}
	if !p.runs() {
		if exists(file(i, savedFile)) {
			return machine.StateSaved, nil
		}
		return machine.StateStopped, nil
	}
	status, err := askStatus(ctx, i)
	if err != nil {
		if gone, _ := p.gone(); gone { // meanwhile
			return machine.StateStopped, nil
		}
		return machine.StateError, fmt.Errorf("ask QEMU (process %d): %w", p.pid, err)
	}
	return stateOf(i, status)
}

// stateOf puts QEMU's run states into a machine's.
func stateOf(i machine.Instance, status string) (machine.State, error) {
	switch status {
	case "running":
		return machine.StateRunning, nil
	case "paused", "suspended":
		return machine.StatePaused, nil
	case "prelaunch", "inmigrate", "restore-vm":
		return machine.StateStarting, nil
	case "postmigrate":
		if exists(file(i, savedFile)) {
			return machine.StateSaved, nil
		}
		return machine.StateStopping, nil
	case "shutdown", "save-vm", "finish-migrate":
		return machine.StateStopping, nil
	case "io-error":
		return machine.StateError, errors.New("it was halted since its disk could not be written: make room on this computer's disk, then start it")
	}
	return machine.StateError, fmt.Errorf("QEMU says %q", status)
}

// Remove implements machine.Driver.
func (d Driver) Remove(ctx context.Context, i machine.Instance) error {
	if err := endProcess(ctx, i); err != nil {
		return err
	}
	names := []string{
		imageFile, seedFile, varsFile, keyFile, keyFile + ".pub", pidFile, logFile, serialFile, oldSerial, savedFile, savedPart, qmpSocket, gaSocket,
	}
	for _, pattern := range []string{"disk-*.qcow2", "share-*.sock", "share-*.sock.pid"} {
		found, err := filepath.Glob(filepath.Join(escapeGlob(i.Dir), pattern))
		if err != nil {
			return err
		}
		for _, f := range found {
			names = append(names, filepath.Base(f))
		}
	}
	// The disk goes last: as long as it is there, the machine is.
	for _, name := range append(names, diskFile) {
		if err := os.Remove(file(i, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// Locate implements machine.Locator: the router of a bridge may give a machine another address.
func (d Driver) Locate(ctx context.Context, i machine.Instance) (machine.Instance, machine.State, error) {
	state, err := d.State(ctx, i)
	if err != nil || state != machine.StateRunning {
		return i, state, err
	}
	v, err := readVM(i)
	if err != nil || v.onLoopback() || v.Static != "" {
		return i, state, err
	}
	const look = 3 * time.Second
	ctx, cancel := context.WithTimeout(ctx, look)
	defer cancel()
	if a := findAddress(ctx, i, v); a.IsValid() {
		i.IPAddress = a.String()
	}
	return i, state, nil
}
