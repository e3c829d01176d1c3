// Package libvirt is the driver for virtual machines of a libvirt on this computer: qemu:///system, which may make networks and lives
// from boot to shutdown, or qemu:///session, which needs no rights.
//
// It speaks libvirt's RPC itself (go-libvirt), one connection for each piece of work. A machine is a domain, found again by its UUID, a
// volume on top of its image's in a storage pool, and a seed (vmseed). On a network whose addresses libvirt gives, the machine's is
// reserved before it boots, so that it is the same for good; elsewhere libvirt says what the machine has. Without KVM a machine is
// emulated, which is said loudly.
package libvirt

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	rpc "github.com/digitalocean/go-libvirt"

	"berth/internal/hostkvm"
	"berth/internal/machine"
	"berth/internal/vmimage"
	"berth/internal/vmlogin"
	"berth/internal/vmseed"
)

// Driver implements machine.Driver, Power, Saver, PreChecker and Locator.
type Driver struct {
	// AwaitBoot has Create and Start return when the machine has booted as far as its sshd.
	AwaitBoot bool
}

// The files in a machine's folder. All else is libvirt's.
const (
	imageFile = "image.img" // until libvirt has it
	seedFile  = "seed.iso"
	keyFile   = "id_ed25519"
)

const (
	enginePort = 2376
	sshPort    = 22
	loopback   = "127.0.0.1"
)

// vm is this driver's part of config.json.
type vm struct {
	URI      string
	UUID     string
	MAC      string
	CPU      int
	Memory   int // MB
	DiskSize int // MB
	Type     string
	Network  string
	Pool     string
	Image    string
	Base     string `json:",omitempty"` // the image's volume
	Address  string `json:",omitempty"` // reserved on the network
}

func readVM(i machine.Instance) (vm, error) {
	v := vm{}
	if len(i.Raw) == 0 {
		return v, errors.New("its record does not say what it is like")
	}
	err := json.Unmarshal(i.Raw, &v)
	return v, err
}

func (v vm) id() (id rpc.UUID, err error) {
	b, err := hex.DecodeString(strings.ReplaceAll(v.UUID, "-", ""))
	if err == nil && len(b) != len(id) {
		err = errors.New("it has not 16 bytes")
	}
	if err != nil {
		return id, fmt.Errorf("UUID %q: %w", v.UUID, err)
	}
	copy(id[:], b)
	return id, nil
}

func (v vm) diskName() string { return "berth-" + v.UUID + ".qcow2" }
func (v vm) seedName() string { return "berth-" + v.UUID + "-seed.iso" }

func file(i machine.Instance, name string) string { return filepath.Join(i.Dir, name) }

// Create implements machine.Driver.
func (d Driver) Create(ctx context.Context, spec machine.Spec) (machine.Instance, error) {
	i := machine.Instance{Name: spec.Name, Dir: spec.Dir}
	set, err := readSettings(spec)
	if err := errors.Join(err, ctx.Err()); err != nil {
		return i, err
	}
	if err := with(ctx, set.URI, askTime, func(c conn) error { return c.chooseType(&set.vm, spec.Progress) }); err != nil {
		return i, err
	}
	set.UUID, set.MAC = newIdentity()
	i.SSHUser, i.SSHPort, i.SSHKeyPath = set.user, sshPort, file(i, keyFile)
	if set.Network == userNetwork {
		if i, err = givePorts(i); err != nil {
			return i, err
		}
	}
	if i.Raw, err = json.Marshal(set.vm); err != nil {
		return i, err
	}
	if err := spec.Keep(i); err != nil {
		return i, err
	}
	if err := makeFiles(ctx, spec, &set, i); err != nil {
		return i, err
	}
	if i, err = define(ctx, spec, &set.vm, i); err != nil {
		return i, err
	}
	spec.Progress("Starting the virtual machine...")
	err = with(ctx, set.URI, workTime, func(c conn) error {
		dom, err := c.domain(set.vm)
		if err != nil {
			return err
		}
		return c.DomainCreate(dom)
	})
	if err != nil {
		return i, err
	}
	return d.await(ctx, i, set.vm, spec.Progress)
}

// newIdentity is a UUID, and a MAC of QEMU's own range.
func newIdentity() (uuid, mac string) {
	id := make([]byte, 19)
	rand.Read(id) //nolint:errcheck // it never fails: crypto/rand crashes the program instead
	id[6], id[8] = id[6]&0x0f|0x40, id[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", id[:4], id[4:6], id[6:8], id[8:10], id[10:16]), fmt.Sprintf("52:54:00:%02x:%02x:%02x", id[16], id[17], id[18])
}

// chooseType takes KVM where libvirt has it and it works: libvirt looks no further than at /dev/kvm.
func (c conn) chooseType(v *vm, progress func(string)) error {
	if v.Type == typeQEMU {
		progress(emulated + " as asked for")
		return nil
	}
	_, err := c.ConnectGetDomainCapabilities(nil, rpc.OptString{arch()}, nil, rpc.OptString{typeKVM}, 0)
	if err != nil {
		err = fmt.Errorf("libvirt has no KVM: %w", err)
	} else {
		err = hostkvm.Broken()
	}
	switch {
	case err == nil:
		v.Type = typeKVM
	case v.Type == typeKVM:
		return fmt.Errorf("--%s %s: %w", flagType, typeKVM, err)
	default:
		v.Type = typeQEMU
		progress(emulated + " " + err.Error())
	}
	return nil
}

const emulated = "WARNING: the machine is emulated in software, ten times slower or more:"

// givePorts has ports of this computer lead to the machine's sshd and engine.
func givePorts(i machine.Instance, taken ...int) (machine.Instance, error) {
	var err error
	i.IPAddress, i.InnerPort = loopback, enginePort
	if i.SSHPort, err = vmlogin.FreePort(taken...); err != nil {
		return i, err
	}
	i.EnginePort, err = vmlogin.FreePort(append(taken, i.SSHPort)...)
	return i, err
}

// makeFiles makes what libvirt is given.
func makeFiles(ctx context.Context, spec machine.Spec, set *settings, i machine.Instance) error {
	cache := vmimage.Cache{Dir: vmimage.Dir(spec.CacheDir)}
	image, err := cache.Place(ctx, set.image, file(i, imageFile), reporter{spec})
	if err != nil {
		return err
	}
	set.Image, set.Base = set.image.Name, baseName(image.Digest)
	spec.Progress("Creating the SSH key...")
	public, err := vmlogin.NewKey(file(i, keyFile), spec.Name)
	if err != nil {
		return fmt.Errorf("create the SSH key: %w", err)
	}
	seed := vmseed.Seed{InstanceID: set.UUID, Hostname: spec.Name, User: set.user, Key: public, Agent: true, ConfigDrive: set.image.ConfigDrive}
	return errors.Join(seed.Write(file(i, seedFile)), ctx.Err())
}

// reporter shows a machine's create what vmimage does.
type reporter struct{ spec machine.Spec }

func (r reporter) Line(text string)                   { r.spec.Progress(text) }
func (r reporter) Bar(what string, done, total int64) { r.spec.Bar(what, done, total) }

// define makes the volumes, reserves the address and tells libvirt what the machine is like.
func define(ctx context.Context, spec machine.Spec, v *vm, i machine.Instance) (machine.Instance, error) {
	unlock, err := lock(ctx)
	if err != nil {
		return i, err
	}
	defer unlock()
	err = with(ctx, v.URI, workTime, func(c conn) error {
		spec.Progress("Creating the disk...")
		if err := c.makeVolumes(ctx, spec, *v, i); err != nil {
			return err
		}
		if v.Address, err = c.reserve(*v, i.Name, spec.Progress); err != nil {
			return err
		}
		if v.Address != "" {
			i.IPAddress = v.Address
		}
		if i.Raw, err = json.Marshal(v); err != nil {
			return err
		}
		text, err := c.domainXML(*v, i)
		if err != nil {
			return err
		}
		_, err = c.DomainDefineXML(text)
		return err
	})
	for _, name := range []string{imageFile, seedFile} { // libvirt has them
		if gone := os.Remove(file(i, name)); gone != nil && !errors.Is(gone, fs.ErrNotExist) {
			err = errors.Join(err, gone)
		}
	}
	return i, err
}

func (c conn) domain(v vm) (rpc.Domain, error) {
	id, err := v.id()
	if err != nil {
		return rpc.Domain{}, err
	}
	return c.DomainLookupByUUID(id)
}

// State implements machine.Driver.
func (d Driver) State(ctx context.Context, i machine.Instance) (machine.State, error) {
	v, err := readVM(i)
	if err != nil { // nothing was ever asked of libvirt
		return machine.StateNotFound, nil //nolint:nilerr // see above
	}
	state := machine.StateNone
	err = with(ctx, v.URI, askTime, func(c conn) error {
		var err error
		state, err = c.state(v)
		return err
	})
	return state, err
}

// state is the machine's, in libvirt's eyes.
func (c conn) state(v vm) (machine.State, error) {
	dom, err := c.domain(v)
	if missing(err) {
		return machine.StateNotFound, nil
	}
	if err != nil {
		return machine.StateNone, err
	}
	n, _, err := c.DomainGetState(dom, 0)
	if err != nil {
		return machine.StateNone, err
	}
	switch rpc.DomainState(n) { //nolint:exhaustive // the rest is below
	case rpc.DomainRunning, rpc.DomainBlocked:
		return machine.StateRunning, nil
	case rpc.DomainPaused, rpc.DomainPmsuspended:
		return machine.StatePaused, nil
	case rpc.DomainShutdown:
		return machine.StateStopping, nil
	case rpc.DomainShutoff:
		saved, err := c.DomainHasManagedSaveImage(dom, 0)
		if saved != 0 {
			return machine.StateSaved, err
		}
		return machine.StateStopped, err
	case rpc.DomainCrashed:
		return machine.StateError, errors.New("it has crashed: kill it, then start it")
	}
	return machine.StateError, fmt.Errorf("libvirt says that its state is %d", n)
}

// Remove implements machine.Driver.
func (d Driver) Remove(ctx context.Context, i machine.Instance) error {
	v, err := readVM(i)
	if err != nil { // nothing was ever asked of libvirt
		return removeFiles(i)
	}
	unlock, err := lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	err = with(ctx, v.URI, workTime, func(c conn) error {
		dom, err := c.domain(v)
		if err == nil {
			if err := c.off(dom); err != nil {
				return err
			}
			const all = rpc.DomainUndefineManagedSave | rpc.DomainUndefineSnapshotsMetadata | rpc.DomainUndefineNvram
			err = c.DomainUndefineFlags(dom, all)
		}
		return errors.Join(unlessMissing(err), c.release(v), c.removeVolumes(v))
	})
	if err != nil {
		return err
	}
	return removeFiles(i)
}

func removeFiles(i machine.Instance) error {
	if i.Dir == "" {
		return nil
	}
	for _, name := range []string{imageFile, seedFile, keyFile, keyFile + ".pub"} {
		if err := os.Remove(file(i, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// Locate implements machine.Locator: on a bridge, a machine may be given another address.
func (d Driver) Locate(ctx context.Context, i machine.Instance) (machine.Instance, machine.State, error) {
	v, err := readVM(i)
	if err != nil {
		return i, machine.StateNotFound, nil //nolint:nilerr // nothing was ever asked of libvirt
	}
	state := machine.StateNone
	err = with(ctx, v.URI, askTime, func(c conn) error {
		var err error
		if state, err = c.state(v); err != nil || state != machine.StateRunning || v.Network == userNetwork || v.Address != "" {
			return err
		}
		if a := c.address(v); a.IsValid() {
			i.IPAddress = a.String()
		}
		return nil
	})
	return i, state, err
}
