package virtualbox

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"berth/internal/driver/drivertest"
	"berth/internal/driver/virtualbox/vboxsim"
	"berth/internal/machine"
)

func TestDriver(t *testing.T) {
	for _, version := range vboxsim.Versions {
		t.Run(version, func(t *testing.T) {
			virtualBox(t, version)
			image := diskImage(t)
			drivertest.Run(t, func(t *testing.T) drivertest.Subject {
				t.Helper()
				return drivertest.Subject{Driver: Driver{}, Spec: spec(t, image, nil)}
			})
		})
	}
}

func TestWithoutVirtualBox(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	s := spec(t, diskImage(t), nil)
	fails(t, "check", Driver{}.PreCreateCheck(t.Context(), s), "VBoxManage not found. Make sure VirtualBox is installed and VBoxManage is in the path", "virtualbox.org")
	if _, err := (Driver{}).Create(t.Context(), s); !errors.Is(err, errNoVBoxManage) {
		t.Errorf("create = %v", err)
	}
}

func TestPreCreateCheck(t *testing.T) {
	image := diskImage(t)
	for name, tt := range map[string]struct {
		version string
		fault   string
		given   map[string]any
		want    []string // nothing for no error
	}{
		"all is well":               {"7.0.20r163906", "", nil, nil},
		"too old":                   {"4.3.40r110317", "", nil, []string{"4.3.40 is too old"}},
		"no version":                {"what", "", nil, []string{"is no version"}},
		"the kernel module":         {"WARNING: The vboxdrv kernel module is not loaded. Either there is no module\n7.0.20", "", nil, []string{"vboxconfig"}},
		"an address not allowed":    {"7.0.20r163906", "", map[string]any{flagCIDR: "192.168.99.1/24"}, []string{"/etc/vbox/networks.conf", "* 192.168.99.0/24", newCIDR}},
		"a range, 6.1.28":           {"6.1.28r147628", "", map[string]any{flagCIDR: "10.44.0.1/16"}, []string{"* 10.44.0.0/16"}},
		"a range, before it":        {"6.1.26r145957", "", map[string]any{flagCIDR: "10.44.0.1/16"}, nil},
		"this computer's network":   {"5.2.44r139111", "", map[string]any{flagCIDR: "127.0.0.9/8"}, []string{"lo", "127.0.0.1/8"}},
		"a network's own address":   {"5.2.44r139111", "", map[string]any{flagCIDR: "10.0.0.0/24"}, []string{"network's own", "10.0.0.1"}},
		"a broadcast":               {"5.2.44r139111", "", map[string]any{flagCIDR: "10.0.0.255/24"}, []string{"broadcast"}},
		"too small a network":       {"5.2.44r139111", "", map[string]any{flagCIDR: "10.0.0.1/30"}, []string{"28"}},
		"too many CPUs":             {"7.0.20r163906", "", map[string]any{flagCPUs: 33}, []string{"1 to 32"}},
		"all CPUs":                  {"7.0.20r163906", "", map[string]any{flagCPUs: -1}, nil},
		"more memory than there is": {"7.0.20r163906", "", map[string]any{flagMemory: 1 << 30}, []string{"MB left"}},
		"no such image":             {"7.0.20r163906", "", map[string]any{flagImage: "nowhere"}, []string{"neither a file", "debian-13-generic"}},
		"a boot2docker":             {"7.0.20r163906", "", map[string]any{flagISO: "https://github.com/boot2docker/boot2docker/releases/download/v19.03.12/boot2docker.iso"}, nil},
		"an image by the old flag":  {"7.0.20r163906", "", map[string]any{flagImage: "", flagISO: image}, nil},
		"a user interface":          {"7.0.20r163906", "", map[string]any{flagUI: "telepathy"}, []string{"headless"}},
		"a share that is not there": {"7.0.20r163906", "", map[string]any{flagShare: "/nowhere:x"}, []string{"/nowhere"}},
		"a share without a name":    {"7.0.20r163906", "", map[string]any{flagShare: "/tmp"}, []string{"DIR:NAME"}},
	} {
		t.Run(name, func(t *testing.T) {
			virtualBox(t, tt.version)
			t.Setenv(vboxsim.FaultEnv, tt.fault)
			err := Driver{}.PreCreateCheck(t.Context(), spec(t, image, tt.given))
			if len(tt.want) == 0 && err != nil {
				t.Error(err)
			}
			fails(t, "check", err, tt.want...)
		})
	}
}

// TestWithoutVTX: where the CPU has it, there is nothing to see.
func TestWithoutVTX(t *testing.T) {
	if virtualizes() {
		t.Skip("this CPU has VT-x or AMD-V")
	}
	virtualBox(t, vboxsim.Versions[2])
	err := Driver{}.PreCreateCheck(t.Context(), spec(t, diskImage(t), map[string]any{flagNoCheck: false}))
	fails(t, "check", err, "This computer doesn't have VT-X/AMD-v enabled", "--virtualbox-no-vtx-check", "-d qemu")
}

func TestANameThatIsTaken(t *testing.T) {
	virtualBox(t, vboxsim.Versions[2])
	s := spec(t, diskImage(t), nil)
	manage(t, "createvm", "--name", s.Name, "--basefolder", t.TempDir(), "--register")
	fails(t, "check", Driver{}.PreCreateCheck(t.Context(), s), "already", s.Name)
	i, err := Driver{}.Create(t.Context(), s)
	fails(t, "create", err, "already exists")
	if err := (Driver{}).Remove(t.Context(), i); err != nil {
		t.Error(err)
	}
	if out := manage(t, "list", "vms"); !strings.Contains(out, s.Name) {
		t.Error("the other's machine was removed")
	}
}

// TestWhatVirtualBoxIsTold, of a machine with everything.
func TestWhatVirtualBoxIsTold(t *testing.T) {
	virtualBox(t, vboxsim.Versions[2])
	folder := t.TempDir()
	i := running(t, spec(t, diskImage(t), map[string]any{
		flagCPUs: 2, flagMemory: 128, flagShare: folder + ":src", flagType: "virtio", flagCIDR: "192.168.60.1/24", flagPromisc: "allow-all",
	}))
	info := parseInfo(manage(t, "showvminfo", i.Name, "--machinereadable"))
	for key, want := range map[string]string{
		"cpus": "2", "memory": "128", "nic1": "nat", "nictype1": defaultNIC, "nic2": "hostonly", "nictype2": "virtio", "hostonlyadapter2": "vboxnet0",
		"SATA-0-0": file(i, seedFile), "SATA-1-0": file(i, diskFile), "VMState": "running",
		"Forwarding(0)": "ssh,tcp,127.0.0.1," + strconv.Itoa(i.SSHPort) + ",,22",
	} {
		if info[key] != want {
			t.Errorf("%s = %q, want %q", key, info[key], want)
		}
	}
	if i.IPAddress != "192.168.60.25" || i.SSHHost != loopback || i.SSHUser != "berth" {
		t.Errorf("instance = %+v", i)
	}
	adapters := parseAdapters(manage(t, "list", "hostonlyifs"))
	servers := parseServers(manage(t, "list", "dhcpservers"))
	if len(adapters) != 1 || adapters[0].address.String() != "192.168.60.1/24" || len(servers) != 1 || servers[0].low.String() != "192.168.60.100" || !servers[0].enabled {
		t.Errorf("adapters = %v, servers = %v", adapters, servers)
	}
	disk, err := os.ReadFile(file(i, diskFile))
	if err != nil || len(disk) != 16<<20 || !strings.HasPrefix(string(disk), "boot sector") || !strings.HasPrefix(string(disk[2<<20+100:]), "far away") {
		t.Errorf("the disk has %d bytes, %v", len(disk), err)
	}
	var fields map[string]any
	if err := json.Unmarshal(i.Raw, &fields); err != nil || fields["CPU"] != 2.0 || fields["HostOnlyCIDR"] != "192.168.60.1/24" || fields["DNSProxy"] != true {
		t.Errorf("config.json has %v", fields)
	}
}

// TestMachinesShareANetwork, each with an address and a port of its own.
func TestMachinesShareANetwork(t *testing.T) {
	virtualBox(t, vboxsim.Versions[0])
	image := diskImage(t)
	a, b := running(t, spec(t, image, nil)), running(t, spec(t, image, map[string]any{flagNoDHCP: true}))
	if a.IPAddress != "192.168.99.25" || b.IPAddress != "192.168.99.26" || a.SSHPort == b.SSHPort {
		t.Errorf("they are at %s (%d) and %s (%d)", a.IPAddress, a.SSHPort, b.IPAddress, b.SSHPort)
	}
	if got := parseAdapters(manage(t, "list", "hostonlyifs")); len(got) != 1 {
		t.Errorf("adapters = %v, want one", got)
	}
	if s := parseServers(manage(t, "list", "dhcpservers")); len(s) != 1 || s[0].enabled {
		t.Errorf("servers = %v, want one that is off", s)
	}
}

// TestTheDefaultNetworkIsOneThatIsAllowed by the version.
func TestTheDefaultNetworkIsOneThatIsAllowed(t *testing.T) {
	for version, want := range map[string]string{"5.2.44r139111": "192.168.99.", "6.1.26r145957": "192.168.99.", "6.1.50r161033": "192.168.59.", "7.0.20r163906": "192.168.59."} {
		t.Run(version, func(t *testing.T) {
			virtualBox(t, version)
			if i := running(t, spec(t, diskImage(t), nil)); !strings.HasPrefix(i.IPAddress, want) {
				t.Errorf("%s gave the machine %s, want %s…", version, i.IPAddress, want)
			}
		})
	}
}

// TestNetworksThatAreGoneComeBack at the next start, and what belonged to them goes.
func TestNetworksThatAreGoneComeBack(t *testing.T) {
	virtualBox(t, vboxsim.Versions[2])
	i := running(t, spec(t, diskImage(t), nil))
	if err := (Driver{}).Stop(t.Context(), i); err != nil {
		t.Fatal(err)
	}
	manage(t, "hostonlyif", "remove", "vboxnet0")
	manage(t, "dhcpserver", "add", "--netname", networkPrefix+"vboxnet7", "--ip", "10.1.1.2", "--netmask", "255.255.255.0", "--lowerip", "10.1.1.100", "--upperip", "10.1.1.200", "--enable")
	manage(t, "hostonlyif", "create") // another's, without an address, takes the name
	i, err := Driver{}.Start(t.Context(), i)
	if err != nil {
		t.Fatal(err)
	}
	info := parseInfo(manage(t, "showvminfo", i.Name, "--machinereadable"))
	if info["hostonlyadapter2"] != "vboxnet1" {
		t.Errorf("it is on %s, want vboxnet1", info["hostonlyadapter2"])
	}
	for _, s := range parseServers(manage(t, "list", "dhcpservers")) {
		if s.network == networkPrefix+"vboxnet7" {
			t.Errorf("the server of %s is left, which is not there", s.network)
		}
	}
}

func TestTwoInterfacesWithOneAddressAreRefused(t *testing.T) {
	virtualBox(t, vboxsim.Versions[2])
	for _, name := range []string{"vboxnet0", "vboxnet1"} {
		manage(t, "hostonlyif", "create")
		manage(t, "hostonlyif", "ipconfig", name, "--ip", "192.168.59.1", "--netmask", "255.255.255.0")
	}
	fails(t, "check", Driver{}.PreCreateCheck(t.Context(), spec(t, diskImage(t), nil)), "multiple host-only adapters", "192.168.59.1/24")
}

func TestPortsAreKept(t *testing.T) {
	virtualBox(t, vboxsim.Versions[2])
	i := running(t, spec(t, diskImage(t), nil))
	again, err := Driver{}.Restart(t.Context(), i)
	if err != nil || again.SSHPort != i.SSHPort || again.IPAddress != i.IPAddress {
		t.Errorf("after a restart it is at %s (%d), want %s (%d): %v", again.IPAddress, again.SSHPort, i.IPAddress, i.SSHPort, err)
	}
	if err := (Driver{}).Kill(t.Context(), i); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", net.JoinHostPort(loopback, strconv.Itoa(i.SSHPort)))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close() //nolint:errcheck // the end of the test
	again, err = Driver{}.Start(t.Context(), i)
	if err != nil || again.SSHPort == i.SSHPort {
		t.Errorf("with port %d taken it starts with %d: %v", i.SSHPort, again.SSHPort, err)
	}
}

func TestSaveAndPause(t *testing.T) {
	virtualBox(t, vboxsim.Versions[1])
	d, ctx := Driver{}, t.Context()
	i := running(t, spec(t, diskImage(t), nil))
	if err := d.Save(ctx, i); err != nil {
		t.Fatal(err)
	}
	wantState(t, i, machine.StateSaved)
	fails(t, "stop", d.Stop(ctx, i), "saved")
	fails(t, "save", d.Save(ctx, i), "does not run")
	if _, err := d.Start(ctx, i); err != nil {
		t.Fatal(err)
	}
	wantState(t, i, machine.StateRunning)
	manage(t, "controlvm", i.Name, "pause")
	wantState(t, i, machine.StatePaused)
	if err := d.Stop(ctx, i); err != nil {
		t.Fatal(err)
	}
	wantState(t, i, machine.StateStopped)
	if _, err := d.Start(ctx, i); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(d.Save(ctx, i), d.Kill(ctx, i)); err != nil {
		t.Fatal(err)
	}
	wantState(t, i, machine.StateStopped)
}

func TestAMachineThatDoesNotShutDown(t *testing.T) {
	virtualBox(t, vboxsim.Versions[2])
	i := running(t, spec(t, diskImage(t), nil))
	manage(t, "setextradata", i.Name, vboxsim.DeadKey, "1")
	ctx, cancel := context.WithCancel(t.Context())
	stopped := make(chan error, 1)
	go func() { stopped <- Driver{}.Stop(ctx, i) }()
	cancel()
	if err := <-stopped; !errors.Is(err, context.Canceled) {
		t.Errorf("stop = %v, want that it was cancelled", err)
	}
	wantState(t, i, machine.StateRunning)
}

func TestFaults(t *testing.T) {
	image := diskImage(t)
	for name, tt := range map[string]struct {
		fault string
		want  []string
	}{
		"no VT-x":                       {"startvm=VT-x is not available (VERR_VMX_NO_VMX)", []string{"VERR_VMX_NO_VMX", "Enabling it in the BIOS"}},
		"KVM has the CPU":               {"startvm=VirtualBox can't operate in VMX root mode. (VERR_VMX_IN_VMX_ROOT_MODE)", []string{"modprobe -r kvm_intel"}},
		"Hyper-V has the CPU":           {"startvm=Call to NEMR0InitVMPart2 failed (VERR_NEM_NOT_AVAILABLE)", []string{"hypervisorlaunchtype off"}},
		"a full disk":                   {"convertfromraw=Failed to write to disk image: VERR_DISK_FULL", []string{"VERR_DISK_FULL"}},
		"no interface":                  {"hostonlyif create=Failed to create the host-only adapter", []string{"create a host-only interface", "Failed to create the host-only adapter"}},
		"a disk that cannot be plugged": {"storageattach=Locking of attached media failed", []string{"Locking of attached media failed"}},
		"something else":                {"startvm=The virtual machine 'x' has terminated unexpectedly during startup with exit code 1 (0x1)", []string{"exit code 1"}},
	} {
		t.Run(name, func(t *testing.T) {
			virtualBox(t, vboxsim.Versions[2])
			t.Setenv(vboxsim.FaultEnv, tt.fault)
			s := spec(t, image, nil)
			i, err := Driver{}.Create(t.Context(), s)
			fails(t, "create", err, tt.want...)
			if err := (Driver{}).Remove(t.Context(), i); err != nil {
				t.Errorf("remove: %v", err)
			}
			wantState(t, i, machine.StateNotFound)
			if left, err := os.ReadDir(s.Dir); err != nil || len(left) != 0 {
				t.Errorf("left are %v, %v", left, err)
			}
		})
	}
}

// TestVirtualBoxThatIsJustStarting says that it is not ready.
func TestVirtualBoxThatIsJustStarting(t *testing.T) {
	home := virtualBox(t, vboxsim.Versions[2])
	if err := os.WriteFile(filepath.Join(home, "world.json"), []byte(`{"NotReady": 3}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if out := manage(t, "list", "vms"); out != "" {
		t.Errorf("list vms = %q", out)
	}
}

// TestAnotherStoresMachineIsLeftAlone, which has the same name as one that docker-machine made in this store.
func TestAnotherStoresMachineIsLeftAlone(t *testing.T) {
	virtualBox(t, vboxsim.Versions[2])
	dir, elsewhere := t.TempDir(), t.TempDir()
	i := machine.Instance{Name: "web1", Dir: dir, Raw: json.RawMessage(`{"CPU":1,"UIType":"headless","HostOnlyCIDR":"192.168.59.1/24"}`)}
	manage(t, "createvm", "--name", "web1", "--basefolder", elsewhere, "--register")
	wantState(t, i, machine.StateNotFound)
	if err := (Driver{}).Remove(t.Context(), i); err != nil {
		t.Fatal(err)
	}
	if out := manage(t, "list", "vms"); !strings.Contains(out, "web1") {
		t.Error("it was removed")
	}
}

type shell func(command string) (string, error)

func (s shell) Run(_ context.Context, _ machine.Instance, command string) (string, error) {
	return s(command)
}

// TestDockerMachinesMachines go on: by their name, and with an address that only they know.
func TestDockerMachinesMachines(t *testing.T) {
	virtualBox(t, vboxsim.Versions[1])
	dir := t.TempDir()
	manage(t, "createvm", "--name", "web1", "--basefolder", dir, "--register")
	manage(t, "modifyvm", "web1", "--nic1", "nat", "--macaddress1", "0800275EA001", "--macaddress2", "0800275EA002", "--natpf1", "ssh,tcp,127.0.0.1,23456,,22")
	i := machine.Instance{Name: "web1", Dir: dir, IPAddress: "192.168.59.100", SSHPort: 23456, Raw: json.RawMessage(
		`{"CPU":1,"UIType":"headless","HostOnlyCIDR":"192.168.59.1/24","HostOnlyNicType":"82540EM","HostOnlyPromiscMode":"deny"}`)}
	d := Driver{Shell: shell(func(string) (string, error) {
		return "1: lo: <LOOPBACK>\n    link/loopback 00:00:00:00:00:00 brd 00:00:00:00:00:00\n    inet 127.0.0.1/8 scope host lo\n" +
			"3: eth1: <UP>\n    link/ether 08:00:27:5e:a0:02 brd ff:ff:ff:ff:ff:ff\n    inet 192.168.59.117/24 scope global eth1\n", nil
	})}
	wantState(t, i, machine.StateStopped)
	i, err := d.Start(t.Context(), i)
	if err != nil {
		t.Fatal(err)
	}
	now, state, err := d.Locate(t.Context(), i)
	if err != nil || state != machine.StateRunning || now.IPAddress != "192.168.59.117" || now.SSHHost != loopback || now.SSHPort != 23456 {
		t.Errorf("it is %s at %+v: %v", state, now, err)
	}
	if err := d.Remove(t.Context(), i); err != nil {
		t.Fatal(err)
	}
	wantState(t, i, machine.StateNotFound)
}

// TestImages: what publishers make is qcow2, compressed.
func TestImages(t *testing.T) {
	tool, err := exec.LookPath("qemu-img")
	if err != nil {
		t.Skip("qemu-img is not installed")
	}
	raw := diskImage(t)
	convert := func(args ...string) string {
		t.Helper()
		to := filepath.Join(t.TempDir(), "disk.img")
		if out, err := exec.Command(tool, append(append([]string{"convert"}, args...), raw, to)...).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		return to
	}
	part := filepath.Join(t.TempDir(), "part.qcow2")
	if out, err := exec.Command(tool, "create", "-f", "qcow2", "-F", "raw", "-b", raw, part).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	virtualBox(t, vboxsim.Versions[2])
	for name, tt := range map[string]struct {
		image string
		want  string // "" for none
	}{
		"qcow2":                   {convert("-O", "qcow2"), ""},
		"qcow2, compressed":       {convert("-c", "-O", "qcow2"), ""},
		"qcow2, old":              {convert("-O", "qcow2", "-o", "compat=0.10"), ""},
		"one that is only a part": {part, "only a part"},
		"vmdk":                    {convert("-O", "vmdk"), "format VMDK"},
		"vdi":                     {convert("-O", "vdi"), "format VDI"},
	} {
		t.Run(name, func(t *testing.T) {
			i, err := Driver{}.Create(t.Context(), spec(t, tt.image, nil))
			t.Cleanup(func() {
				if err := (Driver{}).Remove(context.Background(), i); err != nil {
					t.Error(err)
				}
			})
			if tt.want != "" {
				fails(t, "create", err, tt.want)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			disk, err := os.ReadFile(file(i, diskFile))
			if err != nil || len(disk) != 16<<20 || !strings.HasPrefix(string(disk), "boot sector") || !strings.HasPrefix(string(disk[2<<20+100:]), "far away") {
				t.Errorf("the disk has %d bytes, %v", len(disk), err)
			}
		})
	}
}

func TestADiskThatIsTooSmallForItsImage(t *testing.T) {
	virtualBox(t, vboxsim.Versions[2])
	path := filepath.Join(t.TempDir(), "big.raw")
	if err := os.WriteFile(path, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, 100<<20); err != nil {
		t.Fatal(err)
	}
	i, err := Driver{}.Create(t.Context(), spec(t, path, nil))
	fails(t, "create", err, "--"+flagDisk, "100 MB")
	if err := (Driver{}).Remove(t.Context(), i); err != nil {
		t.Error(err)
	}
}
