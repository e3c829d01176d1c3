//go:build unix

package vboxsim

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// The parts of a machine that QEMU runs.
const (
	pidName   = "qemu.pid"
	qmpName   = "qmp"
	savedName = "memory"
)

func qemuWanted() bool { return os.Getenv(QEMUEnv) != "" }

// bootQEMU boots the machine's disk in QEMU, as close to VirtualBox's machine as it comes: SATA disks, NAT with its rules, the host-only
// network as a bridge. It wants root for that. Kernels for clouds know no SATA: for them disks may be virtio's.
func (s *sim) bootQEMU(m *machine) error {
	if !qemuWanted() {
		return nil
	}
	nat := "user,id=nat"
	for _, f := range m.Forwards { // NAME,PROTOCOL,HOST,PORT,,PORT
		w := strings.Split(f, ",")
		nat += fmt.Sprintf(",hostfwd=%s:%s:%s-:%s", w[1], w[2], w[3], w[5])
	}
	args := []string{
		"-name", m.Name, "-nodefaults", "-display", "none", "-machine", "q35", "-m", m.Options["memory"], "-smp", m.Options["cpus"], "-daemonize",
		"-cpu", "max", "-pidfile", m.part(pidName), "-qmp", "unix:" + m.part(qmpName) + ",server=on,wait=off", "-device", "ahci,id=sata",
		"-serial", "file:" + strings.TrimPrefix(m.Options["uartmode1"], "file,"), "-device", "virtio-rng-pci",
		"-netdev", nat, "-device", nicModel(m, 1) + ",netdev=nat,mac=" + colons(m.Options["macaddress1"]),
	}
	for _, key := range slices.Sorted(maps.Keys(m.Media)) { // at each start the same, or a saved memory does not fit
		path, port := m.Media[key], strings.Split(key, "-")[1]
		kind, more := "ide-hd", ""
		if filepath.Ext(path) == ".iso" {
			kind, more = "ide-cd", ",readonly=on"
		}
		device := kind + ",drive=m" + port + ",bus=sata." + port
		if os.Getenv(QEMUEnv) == "virtio" {
			device = "virtio-blk-pci,drive=m" + port
		}
		if more == "" {
			device += ",bootindex=1"
		}
		args = append(args, "-drive", "if=none,format=raw,id=m"+port+",file="+path+more, "-device", device)
	}
	if to := m.Options["hostonlyadapter2"]; to != "" && m.Options["nic2"] == "hostonly" {
		tap, err := makeTap(m, to)
		if err != nil {
			return err
		}
		args = append(args, "-netdev", "tap,id=host,script=no,downscript=no,ifname="+tap, "-device", nicModel(m, 2)+",netdev=host,mac="+colons(m.Options["macaddress2"]))
	}
	if m.State == "saved" {
		args = append(args, "-incoming", "exec:cat <'"+m.part(savedName)+"'")
	}
	out, err := exec.Command("qemu-system-x86_64", args...).CombinedOutput() //nolint:noctx // it detaches itself
	if err != nil {
		return fmt.Errorf("qemu: %w: %s", err, out)
	}
	if m.State == "saved" {
		return goOn(m)
	}
	return nil
}

// goOn lets a machine go on once its memory is there: it was halted when it was saved.
func goOn(m *machine) error {
	for range 600 {
		var st struct{ Status string }
		if err := ask(m, "query-status", nil, &st); err != nil {
			return err
		}
		if st.Status != "inmigrate" {
			return qmp(m, "cont", nil)
		}
		time.Sleep(100 * time.Millisecond)
	}
	return errors.New("its memory did not come back")
}

func (m *machine) part(name string) string { return filepath.Join(m.Folder, name) }

func nicModel(m *machine, n int) string {
	if m.Options[fmt.Sprint("nictype", n)] == "virtio" {
		return "virtio-net-pci"
	}
	return "e1000"
}

func colons(mac string) string {
	out := ""
	for i := 0; i+2 <= len(mac); i += 2 {
		out += ":" + mac[i:i+2]
	}
	return strings.TrimPrefix(out, ":")
}

// refresh sees whether a machine that ran still does.
func (s *sim) refresh(m *machine) {
	if qemuWanted() && (m.State == "running" || m.State == "paused") && !m.lives() {
		m.State = "poweroff"
	}
}

func (m *machine) pid() int {
	text, err := os.ReadFile(m.part(pidName))
	if err != nil {
		return 0
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		return 0
	}
	return pid
}

func (m *machine) lives() bool {
	pid := m.pid()
	return pid > 1 && syscall.Kill(pid, 0) == nil
}

// controlQEMU does to QEMU what was done to the machine.
func controlQEMU(m *machine, what string) error {
	if !qemuWanted() {
		return nil
	}
	switch what {
	case "poweroff":
		return errors.Join(qmp(m, "quit", nil), awaitEnd(m))
	case "acpipowerbutton":
		return qmp(m, "system_powerdown", nil)
	case "pause":
		return qmp(m, "stop", nil)
	case "resume":
		return qmp(m, "cont", nil)
	}
	uri := "exec:cat >'" + m.part(savedName) + "'"
	if err := errors.Join(qmp(m, "stop", nil), qmp(m, "migrate", map[string]any{"uri": uri})); err != nil {
		return err
	}
	for { // it says when it is done only to who asks
		var st struct{ Status string }
		if err := ask(m, "query-migrate", nil, &st); err != nil {
			return err
		}
		if st.Status == "completed" {
			break
		}
		time.Sleep(100 * time.Millisecond)
	}
	return errors.Join(qmp(m, "quit", nil), awaitEnd(m))
}

func awaitEnd(m *machine) error {
	for range 100 {
		if !m.lives() {
			return nil
		}
		time.Sleep(100 * time.Millisecond)
	}
	return errors.New("QEMU did not end")
}

func qmp(m *machine, command string, args map[string]any) error { return ask(m, command, args, nil) }

// ask gives QEMU one command.
func ask(m *machine, command string, args map[string]any, result any) error {
	c, err := net.DialTimeout("unix", m.part(qmpName), 10*time.Second) //nolint:noctx // a test program
	if err != nil {
		return err
	}
	defer c.Close() //nolint:errcheck // nothing to lose
	if err := c.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		return err
	}
	in := bufio.NewScanner(c)
	for _, step := range []map[string]any{{"execute": "qmp_capabilities"}, {"execute": command, "arguments": args}} {
		if args == nil {
			delete(step, "arguments")
		}
		text, err := json.Marshal(step)
		if err != nil {
			return err
		}
		if _, err := c.Write(append(text, '\n')); err != nil {
			return err
		}
		for answered := false; !answered; {
			if !in.Scan() {
				return errors.Join(errors.New("QEMU hung up"), in.Err())
			}
			var a struct {
				Return json.RawMessage
				Error  *struct{ Desc string }
			}
			if err := json.Unmarshal(in.Bytes(), &a); err != nil {
				return err
			}
			if a.Error != nil {
				return errors.New(a.Error.Desc)
			}
			if answered = a.Return != nil; answered && step["execute"] == command && result != nil {
				return json.Unmarshal(a.Return, result)
			}
		}
	}
	return nil
}

// makeBridge and its like are host-only interfaces, where machines are to reach them.
func makeBridge(name string) error {
	if !qemuWanted() {
		return nil
	}
	return errors.Join(ip("link", "add", name, "type", "bridge"), ip("link", "set", name, "up"))
}

func removeBridge(name string) error {
	if !qemuWanted() {
		return nil
	}
	return ip("link", "del", name)
}

func addressBridge(name, address, mask string) error {
	if !qemuWanted() {
		return nil
	}
	ones, _ := net.IPMask(net.ParseIP(mask).To4()).Size()
	return errors.Join(ip("addr", "flush", "dev", name), ip("addr", "add", fmt.Sprintf("%s/%d", address, ones), "dev", name))
}

// makeTap makes the machine's end of its cable to a host-only network.
func makeTap(m *machine, bridge string) (string, error) {
	tap := m.tap()
	_ = ip("link", "del", tap) // of the start before
	return tap, errors.Join(ip("tuntap", "add", tap, "mode", "tap"), ip("link", "set", tap, "master", bridge, "up"))
}

func (m *machine) tap() string { return "vt" + m.UUID[:8] }

func removeTap(m *machine) {
	if qemuWanted() {
		_ = ip("link", "del", m.tap()) // it may never have had one
	}
}

func ip(args ...string) error {
	out, err := exec.Command("ip", args...).CombinedOutput() //nolint:noctx // it does not wait
	if err != nil {
		return fmt.Errorf("ip %s: %w: %s", strings.Join(args, " "), err, out)
	}
	return nil
}
