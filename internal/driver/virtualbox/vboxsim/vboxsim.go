// Package vboxsim is a VBoxManage for tests, where VirtualBox cannot be had: it speaks VBoxManage's command line, its errors and its
// machine-readable output in the dialects of several versions, and keeps machines and networks in a folder.
//
// It refuses what VirtualBox refuses: an option that is not known, a name that is taken, an address that is not allowed, a machine in
// the wrong state. A machine that is started only counts as running, or, if asked for, is the same disk in QEMU. It promises nothing that
// the driver does not use.
package vboxsim

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/gofrs/flock"
)

// The environment that the simulator looks at.
const (
	HomeEnv     = "VBOXSIM_HOME"          // its folder
	VersionEnv  = "VBOXSIM_VERSION"       // as 7.0.20r163906
	NetworksEnv = "VBOXSIM_NETWORKS_CONF" // in the place of /etc/vbox/networks.conf
	FaultEnv    = "VBOXSIM_FAULT"         // COMMAND=COMPLAINT: a command that fails so
	QEMUEnv     = "VBOXSIM_QEMU"          // boot machines in QEMU; virtio: on such disks
)

// DeadKey is extra data of a machine that does not feel its power button.
const DeadKey = "vboxsim/dead"

// Versions are those whose dialects it speaks.
var Versions = []string{"5.2.44r139111", "6.1.50r161033", "7.0.20r163906"}

// machine is one that is registered.
type machine struct {
	Name, UUID, Folder string
	State              string
	Options            map[string]string // of modifyvm
	Forwards           []string
	Controllers        []string
	Media              map[string]string // by CONTROLLER-PORT-DEVICE
	Shares             map[string]string
	Extra              map[string]string
}

type adapter struct{ Name, IP, Mask string }

type server struct {
	Network, IP, Mask, Low, High string
	Enabled                      bool
}

// world is all that VirtualBox knows.
type world struct {
	Machines []*machine
	Adapters []adapter
	Servers  []server
	NotReady int // answers that say so, before the next that does not
}

// sim is one call.
type sim struct {
	world
	home     string
	version  string
	out, err io.Writer
	in       io.Reader
}

// complaint is an error as VBoxManage writes it.
type complaint struct{ text, details, context string }

func (c *complaint) Error() string { return c.text }

const (
	notFoundCode = "code VBOX_E_OBJECT_NOT_FOUND (0x80bb0001), component VirtualBoxWrap, interface IVirtualBox, callee nsISupports"
	stateCode    = "code VBOX_E_INVALID_OBJECT_STATE (0x80bb0007), component MachineWrap, interface IMachine, callee nsISupports"
	fileCode     = "code VBOX_E_FILE_ERROR (0x80bb0004), component MachineWrap, interface IMachine, callee nsISupports"
	failureCode  = "code NS_ERROR_FAILURE (0x80004005), component ConsoleWrap, interface IConsole"
)

// Main is VBoxManage: it runs a command and returns its exit status.
func Main(args []string, in io.Reader, out, errs io.Writer) int {
	s := &sim{home: os.Getenv(HomeEnv), version: os.Getenv(VersionEnv), in: in, out: out, err: errs}
	if s.version == "" {
		s.version = Versions[len(Versions)-1]
	}
	if s.home == "" || len(args) == 0 {
		fmt.Fprintln(errs, "VBoxManage (simulated): no command, or no "+HomeEnv) //nolint:errcheck // nothing to do about it
		return 2
	}
	err := s.run(args)
	if err == nil {
		return 0
	}
	s.complain(err)
	return 1
}

func (s *sim) complain(err error) {
	say := func(text string) { _, _ = fmt.Fprintln(s.err, "VBoxManage: error: "+text) }
	say(err.Error())
	if c, ok := errors.AsType[*complaint](err); ok {
		if c.details != "" {
			say("Details: " + c.details)
		}
		if c.context != "" {
			say(fmt.Sprintf("Context: %q at line 1234 of file VBoxManage.cpp", c.context))
		}
	}
}

func (s *sim) say(format string, args ...any) { _, _ = fmt.Fprintf(s.out, format+"\n", args...) }

// run holds the world's lock, but not while a disk is written.
func (s *sim) run(args []string) error {
	if err := s.fault(args); err != nil {
		return err
	}
	if args[0] == "--version" {
		s.say("%s", s.version)
		return nil
	}
	if args[0] == "convertfromraw" {
		return s.convert(args[1:])
	}
	if err := os.MkdirAll(s.home, 0o700); err != nil {
		return err
	}
	l := flock.New(filepath.Join(s.home, "lock"))
	if err := l.Lock(); err != nil {
		return err
	}
	defer l.Close() //nolint:errcheck // the kernel lets go even if this fails
	if err := s.load(); err != nil {
		return err
	}
	if s.NotReady > 0 {
		s.NotReady--
		return errors.Join(&complaint{text: "The object is not ready", details: "code E_ACCESSDENIED (0x80070005)"}, s.store())
	}
	do, ok := commands[args[0]]
	if !ok {
		return fmt.Errorf("Invalid command '%s'", args[0]) //nolint:revive,staticcheck // VBoxManage's text
	}
	err := do(s, args[1:])
	return errors.Join(err, s.store())
}

var commands = map[string]func(*sim, []string) error{
	"list": (*sim).list, "createvm": (*sim).createVM, "modifyvm": (*sim).modifyVM, "showvminfo": (*sim).showInfo,
	"startvm": (*sim).startVM, "controlvm": (*sim).controlVM, "discardstate": (*sim).discard, "unregistervm": (*sim).unregister,
	"storagectl": (*sim).storageController, "storageattach": (*sim).storageAttach, "sharedfolder": (*sim).sharedFolder,
	"setextradata": (*sim).setExtra, "getextradata": (*sim).getExtra, "hostonlyif": (*sim).hostOnly, "dhcpserver": (*sim).dhcpServer,
}

// fault fails a command that the environment says is to.
func (s *sim) fault(args []string) error {
	command, text, ok := strings.Cut(os.Getenv(FaultEnv), "=")
	if !ok || !strings.HasPrefix(strings.Join(args, " "), command) {
		return nil
	}
	return &complaint{text: text, details: failureCode}
}

func (s *sim) file() string { return filepath.Join(s.home, "world.json") }

func (s *sim) load() error {
	text, err := os.ReadFile(s.file())
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return json.Unmarshal(text, &s.world)
}

func (s *sim) store() error {
	text, err := json.MarshalIndent(s.world, "", " ")
	if err != nil {
		return err
	}
	part := s.file() + ".part"
	return errors.Join(os.WriteFile(part, text, 0o600), os.Rename(part, s.file()))
}

// newer tells whether the version is that or a later one.
func (s *sim) newer(major, minor, patch int) bool {
	var a, b, c int
	if _, err := fmt.Sscanf(s.version, "%d.%d.%d", &a, &b, &c); err != nil {
		return true
	}
	if a != major {
		return a > major
	}
	if b != minor {
		return b > minor
	}
	return c >= patch
}

// find is the machine of that name or UUID.
func (s *sim) find(id string) (*machine, error) {
	for _, m := range s.Machines {
		if m.Name == id || m.UUID == id {
			s.refresh(m)
			return m, nil
		}
	}
	return nil, &complaint{fmt.Sprintf("Could not find a registered machine named '%s'", id), notFoundCode, "FindMachine(Bstr(VMNameOrUuid).raw(), machine.asOutParam())"}
}

// options reads "--name value" pairs, of which some stand alone.
func options(args []string, alone ...string) map[string]string {
	set := map[string]string{}
	for i := 0; i < len(args); i++ {
		name, value, inline := strings.Cut(args[i], "=")
		switch {
		case inline:
		case contains(alone, name):
			value = "on"
		case i+1 < len(args):
			i++
			value = args[i]
		}
		set[name] = value
	}
	return set
}

func contains(list []string, s string) bool {
	for _, l := range list {
		if l == s {
			return true
		}
	}
	return false
}

// convert is convertfromraw of stdin. The simulator's disks are raw files, whatever they are called.
func (s *sim) convert(args []string) (err error) {
	if len(args) < 3 || args[0] != "stdin" {
		return errors.New("Missing parameters for the convertfromraw command") //nolint:revive,staticcheck // VBoxManage's text
	}
	var size int64
	if _, err := fmt.Sscan(args[2], &size); err != nil || size <= 0 {
		return fmt.Errorf("Invalid size '%s'", args[2]) //nolint:revive,staticcheck // VBoxManage's text
	}
	s.say("Converting from raw image file=\"stdin\" to file=%q...", args[1])
	s.say("Creating dynamic image with size %d bytes (%dMB)...", size, size>>20)
	f, err := os.OpenFile(args[1], os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("Cannot create the disk image %q: VERR_ALREADY_EXISTS", args[1]) //nolint:revive,staticcheck // VBoxManage's text
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if err := copySparse(f, io.LimitReader(s.in, size)); err != nil {
		return fmt.Errorf("Failed to write to disk image %q: VERR_DISK_FULL (%w)", args[1], err) //nolint:revive,staticcheck // VBoxManage's text
	}
	return f.Truncate(size)
}

func copySparse(f *os.File, in io.Reader) error {
	const chunk = 64 << 10
	buf, zeros := make([]byte, chunk), make([]byte, chunk)
	for at := int64(0); ; {
		n, err := io.ReadFull(in, buf)
		if n > 0 && string(buf[:n]) != string(zeros[:n]) {
			if _, err := f.WriteAt(buf[:n], at); err != nil {
				return err
			}
		}
		at += int64(n)
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// settle is how long a change takes.
const settle = 20 * time.Millisecond
