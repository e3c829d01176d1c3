package vboxsim

import (
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

var errSyntax = errors.New("Invalid parameter") //nolint:revive,staticcheck // VBoxManage's text

func (s *sim) createVM(args []string) error {
	o := options(args, "--register")
	name, base, id := o["--name"], o["--basefolder"], o["--uuid"]
	if name == "" || base == "" {
		return errors.New("Parameter --name is required") //nolint:revive,staticcheck // VBoxManage's text
	}
	m := &machine{
		Name: name, UUID: id, Folder: filepath.Join(base, name), State: "poweroff", Options: map[string]string{"ostype": o["--ostype"]},
		Media: map[string]string{}, Shares: map[string]string{}, Extra: map[string]string{},
	}
	if m.UUID == "" {
		m.UUID = newUUID()
	}
	for _, other := range s.Machines {
		if other.Name == name || other.UUID == m.UUID {
			return &complaint{fmt.Sprintf("Machine settings file '%s' already exists", other.config()), fileCode, "CreateMachine(bstrSettingsFile.raw(), ...)"}
		}
	}
	if err := os.MkdirAll(filepath.Join(m.Folder, "Logs"), 0o700); err != nil {
		return err
	}
	if err := os.WriteFile(m.config(), []byte("<VirtualBox/>\n"), 0o600); err != nil {
		return err
	}
	s.Machines = append(s.Machines, m)
	s.say("Virtual machine '%s' is created and registered.\nUUID: %s\nSettings file: '%s'", name, m.UUID, m.config())
	return nil
}

func newUUID() string {
	b := make([]byte, 16)
	rand.Read(b) //nolint:errcheck // it never fails
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

func (m *machine) config() string { return filepath.Join(m.Folder, m.Name+".vbox") }

// known are modifyvm's options that the driver may use, and how many values each takes.
var known = map[string]int{
	"firmware": 1, "bioslogofadein": 1, "bioslogofadeout": 1, "bioslogodisplaytime": 1, "biosbootmenu": 1, "cpus": 1, "memory": 1, "acpi": 1,
	"ioapic": 1, "rtcuseutc": 1, "natdnshostresolver": 1, "natdnsproxy": 1, "cpuhotplug": 1, "pae": 1, "hpet": 1, "hwvirtex": 1,
	"nestedpaging": 1, "largepages": 1, "vtxvpid": 1, "accelerate3d": 1, "boot": 1, "nic": 1, "nictype": 1, "cableconnected": 1,
	"macaddress": 1, "uart": 2, "uartmode": 2, "nicpromisc": 1, "hostonlyadapter": 1, "natpf": 1, "ostype": 1,
}

var numbered = regexp.MustCompile(`^--([a-z]+|accelerate3d)(\d?)$`)

func (s *sim) modifyVM(args []string) error {
	if len(args) == 0 {
		return errSyntax
	}
	m, err := s.find(args[0])
	if err != nil {
		return err
	}
	for i := 1; i < len(args); {
		part := numbered.FindStringSubmatch(args[i])
		if part == nil || known[part[1]] == 0 || i+known[part[1]] >= len(args) {
			return fmt.Errorf("Unknown option: %s", args[i]) //nolint:revive,staticcheck // VBoxManage's text
		}
		values := args[i+1 : i+1+known[part[1]]]
		i += 1 + len(values)
		if m.State != "poweroff" && (part[1] != "natpf" || m.State != "saved") {
			if m.State == "saved" {
				return &complaint{"The machine is not mutable (state is Saved)", stateCode, "..."}
			}
			return m.locked()
		}
		if part[1] == "natpf" {
			more, err := m.forward(values[0], args[i:])
			if err != nil {
				return err
			}
			i += more
			continue
		}
		if err := s.checkOption(part[1], values[0]); err != nil {
			return err
		}
		m.Options[part[1]+part[2]] = strings.Join(values, ",")
	}
	return nil
}

func (m *machine) locked() error {
	return &complaint{fmt.Sprintf("The machine '%s' is already locked for a session (or being unlocked)", m.Name), stateCode, "LockMachine(a->session, LockType_Write)"}
}

func (s *sim) checkOption(name, value string) error {
	switch name {
	case "nictype":
		if !slices.Contains([]string{"Am79C970A", "Am79C973", "82540EM", "82543GC", "82545EM", "virtio"}, value) {
			return fmt.Errorf("Invalid NIC type '%s' specified for NIC 1", value) //nolint:revive,staticcheck // VBoxManage's text
		}
	case "macaddress":
		if len(value) != 12 {
			return &complaint{"Invalid MAC address format", "code NS_ERROR_INVALID_ARG (0x80070057)", ""}
		}
	case "hostonlyadapter":
		if !slices.ContainsFunc(s.Adapters, func(a adapter) bool { return a.Name == value }) {
			return &complaint{fmt.Sprintf("Nonexistent host networking interface, name '%s' (VERR_INTERNAL_ERROR)", value), failureCode, ""}
		}
	}
	return nil
}

// forward adds or deletes a NAT rule. It returns how many further words it took.
func (m *machine) forward(value string, rest []string) (int, error) {
	if value == "delete" {
		if len(rest) == 0 {
			return 0, errSyntax
		}
		n := len(m.Forwards)
		m.Forwards = slices.DeleteFunc(m.Forwards, func(f string) bool { return strings.HasPrefix(f, rest[0]+",") })
		if len(m.Forwards) == n {
			return 1, &complaint{"NAT rule " + rest[0] + " not found", "code NS_ERROR_INVALID_ARG (0x80070057)", ""}
		}
		return 1, nil
	}
	name, _, _ := strings.Cut(value, ",")
	for _, f := range m.Forwards {
		if strings.HasPrefix(f, name+",") {
			return 0, &complaint{"A NAT rule of this name already exists", "code NS_ERROR_INVALID_ARG (0x80070057)", ""}
		}
	}
	m.Forwards = append(m.Forwards, value)
	return 0, nil
}

func (s *sim) showInfo(args []string) error {
	if len(args) == 0 {
		return errSyntax
	}
	m, err := s.find(args[0])
	if err != nil {
		return err
	}
	s.say("name=%q\ngroups=\"/\"\nostype=\"Linux 2.6 / 3.x / 4.x (64-bit)\"\nUUID=%q\nCfgFile=%q\nSnapFldr=%q\nLogFldr=%q", m.Name, m.UUID, m.config(),
		filepath.Join(m.Folder, "Snapshots"), filepath.Join(m.Folder, "Logs"))
	s.say("memory=%s\ncpus=%s\nVMState=%q\nVMStateChangeTime=\"2026-11-30T12:00:00.000000000\"", m.Options["memory"], m.Options["cpus"], m.State)
	for _, key := range slices.Sorted(maps.Keys(m.Media)) {
		s.say("%q=%q", key, m.Media[key])
	}
	for n := 1; n <= 8; n++ {
		kind := m.Options[fmt.Sprint("nic", n)]
		if kind == "" || kind == "none" {
			s.say("nic%d=\"none\"", n)
			continue
		}
		if kind == "nat" {
			s.say("natnet%d=\"nat\"", n)
		} else {
			s.say("hostonlyadapter%d=%q", n, m.Options[fmt.Sprint("hostonlyadapter", n)])
		}
		s.say("macaddress%d=%q\ncableconnected%d=\"on\"\nnic%d=%q\nnictype%d=%q", n, m.Options[fmt.Sprint("macaddress", n)], n, n, kind, n, m.Options[fmt.Sprint("nictype", n)])
	}
	for n, f := range m.Forwards {
		s.say("Forwarding(%d)=%q", n, f)
	}
	return nil
}

func (s *sim) startVM(args []string) error {
	o := options(args[1:])
	m, err := s.find(args[0])
	if err != nil {
		return err
	}
	if m.State != "poweroff" && m.State != "saved" {
		return m.locked()
	}
	if !slices.Contains([]string{"headless", "gui", "sdl", "separate"}, o["--type"]) {
		return errSyntax
	}
	s.say("Waiting for VM \"%s\" to power on...", m.Name)
	if err := os.WriteFile(filepath.Join(m.Folder, "Logs", "VBox.log"), []byte("00:00:00.1 VirtualBox VM\n00:00:01.2 the end of the log\n"), 0o600); err != nil {
		return err
	}
	if err := s.bootQEMU(m); err != nil {
		return &complaint{err.Error(), failureCode, ""}
	}
	m.State = "running"
	s.say("VM \"%s\" has been successfully started.", m.Name)
	return nil
}

func (s *sim) controlVM(args []string) error {
	if len(args) < 2 {
		return errSyntax
	}
	m, err := s.find(args[0])
	if err != nil {
		return err
	}
	if m.State != "running" && m.State != "paused" {
		return fmt.Errorf("Machine '%s' is not currently running", m.Name) //nolint:revive,staticcheck // VBoxManage's text
	}
	switch args[1] {
	case "poweroff":
		m.State = "poweroff"
	case "savestate":
		m.State = "saved"
	case "acpipowerbutton":
		if m.State == "running" && m.Extra[DeadKey] == "" && !qemuWanted() {
			m.State = "poweroff"
		}
	case "pause":
		m.State = "paused"
	case "resume":
		if m.State != "paused" {
			return &complaint{"Cannot resume the machine as it is not paused", "code VBOX_E_INVALID_VM_STATE (0x80bb0002), component ConsoleWrap, interface IConsole", "Resume()"}
		}
		m.State = "running"
	default:
		return fmt.Errorf("Invalid parameter '%s'", args[1]) //nolint:revive,staticcheck // VBoxManage's text
	}
	return controlQEMU(m, args[1])
}

func (s *sim) discard(args []string) error {
	m, err := s.find(args[0])
	if err != nil {
		return err
	}
	if m.State != "saved" {
		return &complaint{"Cannot discard the machine state as it is not saved", stateCode, ""}
	}
	m.State = "poweroff"
	return nil
}

func (s *sim) unregister(args []string) error {
	m, err := s.find(args[0])
	if err != nil {
		return err
	}
	if m.State != "poweroff" && m.State != "saved" {
		return &complaint{fmt.Sprintf("Cannot unregister the machine '%s' while it is locked", m.Name), stateCode, "Unregister(...)"}
	}
	removeTap(m)
	s.Machines = slices.DeleteFunc(s.Machines, func(other *machine) bool { return other == m })
	if !contains(args, "--delete") {
		return nil
	}
	for _, path := range m.Media {
		if filepath.Ext(path) != ".iso" && path != "none" {
			if err := os.Remove(path); err != nil {
				return err
			}
		}
	}
	return os.RemoveAll(m.Folder)
}

func (s *sim) storageController(args []string) error {
	o := options(args[1:])
	m, err := s.find(args[0])
	if err != nil {
		return err
	}
	if o["--name"] == "" || o["--add"] != "sata" {
		return errSyntax
	}
	m.Controllers = append(m.Controllers, o["--name"])
	return nil
}

func (s *sim) storageAttach(args []string) error {
	o := options(args[1:])
	m, err := s.find(args[0])
	if err != nil {
		return err
	}
	if !contains(m.Controllers, o["--storagectl"]) {
		return &complaint{fmt.Sprintf("Could not find a controller named '%s'", o["--storagectl"]), notFoundCode, ""}
	}
	if info, err := os.Stat(o["--medium"]); err != nil || !info.Mode().IsRegular() || o["--type"] != "hdd" && o["--type"] != "dvddrive" {
		return &complaint{fmt.Sprintf("Could not find file for the medium '%s' (VERR_FILE_NOT_FOUND)", o["--medium"]), fileCode, "OpenMedium(...)"}
	}
	m.Media[fmt.Sprintf("%s-%s-%s", o["--storagectl"], o["--port"], o["--device"])] = o["--medium"]
	return nil
}

func (s *sim) sharedFolder(args []string) error {
	if len(args) < 2 || args[0] != "add" {
		return errSyntax
	}
	o := options(args[2:], "--automount")
	m, err := s.find(args[1])
	if err != nil {
		return err
	}
	if _, err := os.Stat(o["--hostpath"]); err != nil {
		return &complaint{fmt.Sprintf("Shared folder path '%s' does not exist on the host", o["--hostpath"]), fileCode, ""}
	}
	m.Shares[o["--name"]] = o["--hostpath"]
	return nil
}

func (s *sim) setExtra(args []string) error {
	if len(args) < 3 {
		return errSyntax
	}
	m, err := s.find(args[0])
	if err != nil {
		return err
	}
	m.Extra[args[1]] = args[2]
	return nil
}

func (s *sim) getExtra(args []string) error {
	m, err := s.find(args[0])
	if err != nil {
		return err
	}
	if value, ok := m.Extra[args[1]]; ok {
		s.say("Value: %s", value)
	} else {
		s.say("No value set!")
	}
	return nil
}
