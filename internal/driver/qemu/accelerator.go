package qemu

import (
	"cmp"
	"fmt"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"

	"berth/internal/hostkvm"
)

// The ways to run a machine's code. tcg translates it, which works everywhere and is slow.
const (
	kvm  = "kvm"
	hvf  = "hvf"
	whpx = "whpx"
	tcg  = "tcg"
)

// acceleration is how a machine's code will run, and why not faster.
type acceleration struct{ name, why string }

// cpu is what QEMU is to show the machine.
func (a acceleration) cpu() string {
	if a.name == tcg || a.name == whpx { // which cannot pass the real one on
		return "max"
	}
	return "host"
}

func (s settings) accelerator() (acceleration, error) { return chooseAccelerator(s.accel, s.arch) }

// chooseAccelerator is the wanted one, or the fastest that works.
func chooseAccelerator(wanted, arch string) (acceleration, error) {
	native := map[string]string{"linux": kvm, "darwin": hvf, "windows": whpx}[runtime.GOOS]
	switch wanted {
	case tcg:
		return acceleration{tcg, "as --" + flagAccel + " says"}, nil
	case "auto", "":
	case kvm, hvf, whpx:
		if wanted != native {
			return acceleration{}, fmt.Errorf("--%s %s: there is none on %s", flagAccel, wanted, runtime.GOOS)
		}
	default:
		return acceleration{}, fmt.Errorf("--%s %q: want auto, kvm, hvf, whpx or tcg", flagAccel, wanted)
	}
	why := whyNot(native, arch)
	if why == nil {
		return acceleration{native, ""}, nil
	}
	if wanted == native && wanted != "" {
		return acceleration{}, fmt.Errorf("--%s %s: %w", flagAccel, wanted, why)
	}
	return acceleration{tcg, why.Error()}, nil
}

// whyNot is what is in the way of the accelerator; nil if nothing is.
func whyNot(accel, arch string) error {
	switch {
	case accel == "":
		return fmt.Errorf("QEMU has no accelerator on %s", runtime.GOOS)
	case arch != architectures[runtime.GOARCH]:
		return fmt.Errorf("this computer is no %s", arch)
	case accel == kvm:
		return hostkvm.Missing()
	}
	return offers(arch, accel)
}

// offers asks QEMU, for systems where there is nothing else to look at.
func offers(arch, accel string) error {
	program, err := findQEMU(arch)
	if err != nil {
		return err
	}
	out, err := exec.Command(program, "-accel", "help").Output() //nolint:noctx // prints a list
	if err != nil {
		return fmt.Errorf("%s -accel help: %w", program, err)
	}
	for _, word := range strings.Fields(string(out)) {
		if word == accel {
			return nil
		}
	}
	return fmt.Errorf("%s was built without %s", program, accel)
}

// findQEMU is the program for an architecture.
func findQEMU(arch string) (string, error) {
	return findProgram("qemu-system-"+arch, map[string]string{"x86_64": "qemu-system-x86", "aarch64": "qemu-system-arm"}[arch])
}

func findImageTool() (string, error) { return findProgram("qemu-img", "qemu-utils") }

// findProgram looks where QEMU's installers put it, too.
func findProgram(name, debian string) (string, error) {
	path, err := exec.LookPath(name)
	if err == nil {
		return path, nil
	}
	for _, dir := range []string{"/usr/libexec", "/opt/homebrew/bin", "/usr/local/bin", `C:\Program Files\qemu`} {
		for _, end := range []string{"", ".exe"} {
			if p := filepath.Join(dir, name+end); exists(p) {
				return p, nil
			}
		}
	}
	how := map[string]string{
		"linux": "apt-get install " + debian + ", dnf install qemu-kvm qemu-img, or apk add " + name, "darwin": "brew install qemu",
		"windows": "winget install SoftwareFreedomConservancy.QEMU",
	}[runtime.GOOS]
	return "", fmt.Errorf("%s was not found: %s", name, cmp.Or(how, "install QEMU"))
}

// virtiofsd is the program that serves a folder to a machine; "" where it is not installed.
func virtiofsd() string {
	if runtime.GOOS != "linux" {
		return ""
	}
	if path, err := exec.LookPath("virtiofsd"); err == nil {
		return path
	}
	for _, p := range []string{"/usr/libexec/virtiofsd", "/usr/lib/virtiofsd", "/usr/lib/qemu/virtiofsd"} {
		if exists(p) {
			return p
		}
	}
	return ""
}
