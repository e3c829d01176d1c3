package qemu

import (
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"berth/internal/machine"
)

func TestFlagsThatMakeNoSense(t *testing.T) {
	image := guestImage(t)
	for name, tt := range map[string]struct {
		given map[string]any
		want  string // "" for none
	}{
		"the defaults":              {nil, ""},
		"no CPU":                    {map[string]any{flagCPUs: 0}, "--qemu-cpus"},
		"all CPUs":                  {map[string]any{flagCPUs: -1}, ""},
		"little memory":             {map[string]any{flagMemory: 1}, "--qemu-memory"},
		"a user as an option":       {map[string]any{flagUser: "-l"}, "no user's name"},
		"an unknown network":        {map[string]any{flagNetwork: "wifi"}, "--qemu-network"},
		"a bridge without a name":   {map[string]any{flagNetwork: "bridge:"}, "--qemu-network"},
		"a bridge with options":     {map[string]any{flagNetwork: "bridge:br0,helper=/bin/sh"}, "--qemu-network"},
		"a user network with more":  {map[string]any{flagNetwork: "user:x"}, "--qemu-network"},
		"a fixed address":           {map[string]any{flagNetwork: "tap:t0", flagAddress: "10.0.0.5/24", flagGateway: "10.0.0.1", flagDNS: []string{"10.0.0.1"}}, ""},
		"one without a length":      {map[string]any{flagNetwork: "tap:t0", flagAddress: "10.0.0.5"}, "--qemu-ip-address"},
		"one on the user network":   {map[string]any{flagAddress: "10.0.0.5/24"}, "for a bridge or a tap"},
		"a gateway alone":           {map[string]any{flagGateway: "10.0.0.1"}, "go with"},
		"a forward":                 {map[string]any{flagForward: []string{"8080:80"}}, ""},
		"a forward to nowhere":      {map[string]any{flagForward: []string{"8080"}}, "two ports"},
		"a forward past the end":    {map[string]any{flagForward: []string{"8080:70000"}}, "two ports"},
		"a forward on a bridge":     {map[string]any{flagForward: []string{"1:2"}, flagNetwork: "tap"}, "an address of its own"},
		"a folder":                  {map[string]any{flagMount: []string{"/:all:/mnt/x"}}, ""},
		"a folder without a tag":    {map[string]any{flagMount: []string{"/"}}, "FOLDER:TAG"},
		"a tag with options":        {map[string]any{flagMount: []string{"/:a,b"}}, "FOLDER:TAG"},
		"a folder that is a file":   {map[string]any{flagMount: []string{image + ":x"}}, "it is no folder"},
		"a folder at no path":       {map[string]any{flagMount: []string{"/:x:relative"}}, "begin with /"},
		"a strange way to mount":    {map[string]any{flagMountType: "nfs"}, "--qemu-mount-type"},
		"sizes of further disks":    {map[string]any{flagExtra: []string{"100", "2G"}}, ""},
		"a further disk of nothing": {map[string]any{flagExtra: []string{"0"}}, "--qemu-extra-disk"},
		"a strange architecture":    {map[string]any{flagArch: "riscv64"}, "--qemu-arch"},
		"a BIOS that there is not":  {map[string]any{flagArch: "aarch64", flagFirmware: "bios"}, "only x86_64"},
		"firmware that is not here": {map[string]any{flagFirmware: "/nowhere"}, "--qemu-firmware"},
		"an unknown image":          {map[string]any{flagImage: "beos"}, "--vm-image"},
		"a bad checksum":            {map[string]any{flagChecksum: "sha256:12"}, "sha256:"},
	} {
		t.Run(name, func(t *testing.T) {
			s := spec(t, image, map[string]any{flagArch: "x86_64"})
			for k, v := range tt.given {
				s.Values[k] = v
			}
			_, err := readSettings(s)
			switch {
			case tt.want == "" && err != nil:
				t.Error(err)
			case tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)):
				t.Errorf("= %v, want it to say %q", err, tt.want)
			}
		})
	}
}

func TestChecksBeforeCreate(t *testing.T) {
	needQEMU(t)
	image := guestImage(t)
	for name, tt := range map[string]struct {
		spoil func(*machine.Spec)
		want  string
	}{
		"all is well":         {func(*machine.Spec) {}, ""},
		"no host name":        {func(s *machine.Spec) { s.Name = "a_b" }, "host name"},
		"too much memory":     {func(s *machine.Spec) { s.Values[flagMemory] = 1 << 30 }, "this computer has"},
		"a long path":         {func(s *machine.Spec) { s.Dir += "/" + strings.Repeat("x", 100) }, "--storage-path"},
		"no such bridge":      {func(s *machine.Spec) { s.Values[flagNetwork] = "bridge:nosuch0" }, "no such interface"},
		"no such accelerator": {func(s *machine.Spec) { s.Values[flagAccel] = "warp" }, "--qemu-accel"},
		"no such image":       {func(s *machine.Spec) { s.Values[flagImage] = "http://127.0.0.1:1/x.img" }, "cannot be downloaded"},
	} {
		t.Run(name, func(t *testing.T) {
			s := spec(t, image, nil)
			tt.spoil(&s)
			err := Driver{}.PreCreateCheck(t.Context(), s)
			if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("= %v, want it to say %q", err, tt.want)
			}
		})
	}
}

// TestTheProgramThatIsMissing is named, with how to get it.
func TestTheProgramThatIsMissing(t *testing.T) {
	if runtime.GOOS == "windows" || exists("/usr/local/bin/qemu-system-aarch64") {
		t.Skip("it cannot be missing here")
	}
	t.Setenv("PATH", t.TempDir())
	err := Driver{}.PreCreateCheck(t.Context(), spec(t, guestImage(t), map[string]any{flagArch: "aarch64"}))
	if err == nil || !strings.Contains(err.Error(), "qemu-system-aarch64 was not found: ") || !strings.Contains(err.Error(), "install") {
		t.Errorf("= %v", err)
	}
}

func TestArguments(t *testing.T) {
	i := machine.Instance{Name: "a,b", Dir: "/store,1", SSHPort: 20001, EnginePort: 20002}
	v := vm{
		Arch: "x86_64", CPU: 2, Memory: 512, Network: "user", Firmware: firmwareBIOS, ExtraDisk: []int{5}, Forwards: []forward{{8080, 80}},
		Mounts: []share{{"/a,b", "one", "/mnt/one", mount9p}, {"/c", "two", "/mnt/two", mountVirtiofs}},
	}
	list, err := arguments(i, v, acceleration{kvm, ""})
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"guest=a,,b", "q35,accel=kvm", "host", "512M",
		"if=none,id=disk,file=/store,,1/disk.qcow2,format=qcow2,discard=unmap,detect-zeroes=unmap",
		"virtio-blk-pci,drive=extra1,serial=extra1",
		"user,id=net,hostname=a,,b,hostfwd=tcp:127.0.0.1:20001-:22,hostfwd=tcp:127.0.0.1:20002-:2376,hostfwd=tcp:127.0.0.1:8080-:80",
		"local,id=share1,security_model=mapped-xattr,path=/a,,b",
		"memory-backend-memfd,id=memory,size=512M,share=on",
	} {
		if !slices.Contains(list, filepath.FromSlash(want)) {
			t.Errorf("no %s in %s", want, list)
		}
	}
}

func TestFirmwareIsChosenByItsDescriptor(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"code.fd", "vars.fd"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write := func(features, arch, format string) string {
		text := `{"interface-types":["uefi"],"features":[` + features + `],"targets":[{"architecture":"` + arch + `"}],"mapping":{"device":"flash",` +
			`"executable":{"filename":"` + dir + `/code.fd","format":"` + format + `"},"nvram-template":{"filename":"` + dir + `/vars.fd","format":"` + format + `"}}}`
		path := filepath.Join(dir, "d.json")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for name, tt := range map[string]struct {
		features, arch, format string
		want                   bool
	}{
		"a plain one":        {`"acpi-s3"`, "x86_64", "raw", true},
		"for another":        {"", "aarch64", "raw", false},
		"one that wants SMM": {`"requires-smm"`, "x86_64", "raw", false},
		"with keys":          {`"enrolled-keys"`, "x86_64", "raw", false},
		"in another format":  {"", "x86_64", "qcow2", false},
	} {
		t.Run(name, func(t *testing.T) {
			if _, ok := readDescriptor(write(tt.features, tt.arch, tt.format), "x86_64"); ok != tt.want {
				t.Errorf("it is taken: %v, want %v", ok, tt.want)
			}
		})
	}
}

// TestMachinesOfAllKinds come to run: QEMU takes what is asked of it.
func TestMachinesOfAllKinds(t *testing.T) {
	needQEMU(t)
	image := guestImage(t)
	kinds := map[string]map[string]any{
		"9p": {flagMount: []string{t.TempDir() + ":src"}, flagMountType: mount9p},
	}
	if virtiofsd() != "" && os.Geteuid() == 0 {
		kinds["virtiofs"] = map[string]any{flagMount: []string{t.TempDir() + ":src"}, flagMountType: mountVirtiofs}
	}
	if _, err := findFirmware(vm{Arch: "x86_64", Firmware: firmwareUEFI}); err == nil {
		kinds["UEFI"] = map[string]any{flagFirmware: firmwareUEFI, flagMemory: 128}
	}
	for name, given := range kinds {
		t.Run(name, func(t *testing.T) {
			i := running(t, spec(t, image, given))
			if name != "UEFI" { // which does not boot a sector
				awaitConsole(t, i, 3)
			}
			if name == "virtiofs" {
				if err := (Driver{}).Save(t.Context(), i); err == nil {
					t.Error("it was saved, and QEMU cannot do that")
				}
			}
			wantState(t, i, machine.StateRunning)
			if err := (Driver{}).Kill(t.Context(), i); err != nil {
				t.Fatal(err)
			}
			again, err := (Driver{}).Start(t.Context(), i)
			if err != nil {
				t.Fatal(err)
			}
			wantState(t, again, machine.StateRunning)
		})
	}
}
