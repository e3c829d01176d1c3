package qemu

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"berth/internal/machine"
)

const (
	firmwareBIOS = "bios" // which QEMU brings along
	firmwareUEFI = "uefi"
)

// uefi is a firmware's code, and what its variables begin as; "" if it keeps none.
type uefi struct{ code, vars string }

// descriptor is one of the files by which firmware says what it is for (QEMU's docs/interop/firmware.json).
type descriptor struct {
	Interfaces []string `json:"interface-types"`
	Mapping    struct {
		Device     string
		Executable struct{ Filename, Format string }
		Template   struct{ Filename, Format string } `json:"nvram-template"`
	}
	Targets []struct {
		Architecture string
	}
	Features []string
}

// findFirmware is the UEFI that v asks for.
func findFirmware(v vm) (uefi, error) {
	if v.Firmware != firmwareUEFI {
		return uefi{code: v.Firmware}, nil
	}
	share, err := shareDir(v.Arch)
	if err != nil {
		return uefi{}, err
	}
	for _, dir := range []string{"/etc/qemu/firmware", "/usr/share/qemu/firmware", filepath.Join(share, "firmware")} {
		files, err := filepath.Glob(filepath.Join(escapeGlob(dir), "*.json"))
		if err != nil {
			return uefi{}, err
		}
		for _, f := range files { // in the order of their names, by which the better come first
			if u, ok := readDescriptor(f, v.Arch); ok {
				return u, nil
			}
		}
	}
	// QEMU's own, where they have no descriptors.
	code := filepath.Join(share, "edk2-"+v.Arch+"-code.fd")
	vars := filepath.Join(share, map[string]string{"x86_64": "edk2-i386-vars.fd", "aarch64": "edk2-arm-vars.fd"}[v.Arch])
	if exists(code) && exists(vars) {
		return uefi{code, vars}, nil
	}
	return uefi{}, fmt.Errorf("no UEFI for %s was found: apt-get install %s, or name its file with --%s", v.Arch,
		map[string]string{"x86_64": "ovmf", "aarch64": "qemu-efi-aarch64"}[v.Arch], flagFirmware)
}

// shareDir is where QEMU has its files.
func shareDir(arch string) (string, error) {
	program, err := findQEMU(arch)
	if err != nil {
		return "", err
	}
	if real, err := filepath.EvalSymlinks(program); err == nil {
		program = real
	}
	dir := filepath.Join(filepath.Dir(program), "share") // on Windows
	if exists(dir) {
		return dir, nil
	}
	return filepath.Join(filepath.Dir(program), "..", "share", "qemu"), nil
}

// readDescriptor takes a plain UEFI for the architecture: not one that insists on signatures, or on a CPU mode that machines lack.
func readDescriptor(path, arch string) (uefi, bool) {
	d := descriptor{}
	text, err := os.ReadFile(path)
	if err != nil || json.Unmarshal(text, &d) != nil {
		return uefi{}, false
	}
	m := d.Mapping
	fits := false
	for _, t := range d.Targets {
		fits = fits || t.Architecture == arch
	}
	for _, f := range []string{"requires-smm", "secure-boot", "enrolled-keys"} {
		fits = fits && !slices.Contains(d.Features, f)
	}
	fits = fits && slices.Contains(d.Interfaces, "uefi") && m.Device == "flash" && m.Executable.Format == "raw" && m.Template.Format == "raw"
	return uefi{m.Executable.Filename, m.Template.Filename}, fits && exists(m.Executable.Filename) && exists(m.Template.Filename)
}

// makeVars gives the machine variables of its own.
func makeVars(i machine.Instance, v vm) error {
	u, err := findFirmware(v)
	if err != nil || u.vars == "" {
		return err
	}
	text, err := os.ReadFile(u.vars)
	if err != nil {
		return err
	}
	if len(text) == 0 {
		return errors.New(u.vars + " is empty")
	}
	return os.WriteFile(file(i, varsFile), text, 0o600)
}
