// Package hostkvm tells whether this computer can run virtual machines by KVM.
package hostkvm

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"
)

// Missing says why this user cannot have KVM, and what to do about it; nil if there is no reason.
func Missing() error {
	f, err := os.OpenFile("/dev/kvm", os.O_RDWR, 0)
	switch {
	case errors.Is(err, os.ErrPermission):
		return errors.New("you may not use /dev/kvm: become a member of its group (sudo usermod -aG kvm $USER) and log in again")
	case err != nil:
		return fmt.Errorf("there is no KVM (%w): turn virtualization on in the firmware's settings, or load the module kvm", err)
	}
	if err := f.Close(); err != nil {
		return err
	}
	return Broken()
}

// Broken says why KVM would not work even for those who may use it. In some containers and virtual machines there is a /dev/kvm that takes a
// machine and never runs it; the CPU gives it away.
func Broken() error {
	if runtime.GOARCH != "amd64" {
		return nil
	}
	f, err := os.Open("/proc/cpuinfo")
	if err != nil {
		return nil //nolint:nilerr // the hypervisor will find out
	}
	defer f.Close() //nolint:errcheck // read only
	if virtualizes(f) {
		return nil
	}
	return errors.New("there is a /dev/kvm, but no KVM behind it: this CPU shows neither vmx nor svm, which are not passed on to this virtual machine or container")
}

// virtualizes looks at the flags of the first CPU, as /proc/cpuinfo has them.
func virtualizes(cpuinfo io.Reader) bool {
	for lines := bufio.NewScanner(cpuinfo); lines.Scan(); {
		if flags, ok := strings.CutPrefix(lines.Text(), "flags"); ok {
			flags += " "
			return strings.Contains(flags, " vmx ") || strings.Contains(flags, " svm ")
		}
	}
	return true
}
