package vmseed

import (
	"encoding/json"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/diskfs/go-diskfs/backend/file"
	"github.com/diskfs/go-diskfs/filesystem/iso9660"
)

func seed() Seed {
	return Seed{
		InstanceID: "i-1", Hostname: "vm1", User: "berth", Key: "ssh-ed25519 AAAA vm1", Agent: true,
		Network: &Network{
			MAC: "52:54:00:00:00:01", Address: netip.MustParsePrefix("10.0.0.5/24"), Gateway: netip.MustParseAddr("10.0.0.1"),
			Nameservers: []netip.Addr{netip.MustParseAddr("10.0.0.1")},
		},
		Mounts: []Mount{{"src", "/mnt/it's \"mine\"", "9p"}},
	}
}

// read opens a disk with go-diskfs, which also wrote it.
func read(t *testing.T, path, name string) string {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close() //nolint:errcheck // read only
	fs, err := iso9660.Read(file.New(f, true), isoSize, 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	in, err := fs.OpenFile("/"+name, os.O_RDONLY)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	text, err := io.ReadAll(in)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestTheDiskHoldsWhatAMachineIsTold(t *testing.T) {
	path := filepath.Join(t.TempDir(), "seed.iso")
	if err := seed().Write(path); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("its mode is %v, %v, want 0600", info.Mode(), err)
	}
	user := read(t, path, "user-data")
	head, body, _ := strings.Cut(user, "\n")
	var config struct {
		Hostname string
		Users    []struct {
			Name string
			Keys []string `json:"ssh_authorized_keys"`
		}
		Mounts [][]string
		Runcmd [][]string
	}
	if err := json.Unmarshal([]byte(body), &config); err != nil || head != "#cloud-config" {
		t.Fatalf("user-data = %s: %v", user, err)
	}
	if config.Hostname != "vm1" || len(config.Users) != 1 || config.Users[0].Name != "berth" || config.Users[0].Keys[0] != seed().Key {
		t.Errorf("user-data = %+v", config)
	}
	if len(config.Mounts) != 1 || config.Mounts[0][1] != seed().Mounts[0].Path || len(config.Runcmd) != 1 {
		t.Errorf("mounts = %v, commands = %v", config.Mounts, config.Runcmd)
	}
	for name, want := range map[string]string{
		"meta-data":      `"instance-id": "i-1"`,
		"network-config": `"macaddress": "52:54:00:00:00:01"`,
	} {
		if got := read(t, path, name); !strings.Contains(got, want) {
			t.Errorf("%s = %s, want it to hold %s", name, got, want)
		}
	}
}

// TestTwoInterfaces: one that asks, and one that has a fixed address.
func TestTwoInterfaces(t *testing.T) {
	s := seed()
	s.DHCP = []string{"08:00:27:00:00:01"}
	path := filepath.Join(t.TempDir(), "seed.iso")
	if err := s.Write(path); err != nil {
		t.Fatal(err)
	}
	var config struct {
		Ethernets map[string]struct {
			Match     struct{ Macaddress string }
			DHCP4     bool
			Addresses []string
		}
	}
	text := read(t, path, "network-config")
	if err := json.Unmarshal([]byte(text), &config); err != nil {
		t.Fatal(err)
	}
	asks, fixed := config.Ethernets["dhcp1"], config.Ethernets["first"]
	if !asks.DHCP4 || asks.Match.Macaddress != s.DHCP[0] || fixed.DHCP4 || len(fixed.Addresses) != 1 {
		t.Errorf("network-config = %s", text)
	}
}

func TestAConfigDriveHasItsOwnForm(t *testing.T) {
	s := seed()
	s.ConfigDrive = true
	path := filepath.Join(t.TempDir(), "seed.iso")
	if err := s.Write(path); err != nil {
		t.Fatal(err)
	}
	if got := read(t, path, "openstack/latest/user_data"); !strings.Contains(got, s.Key) {
		t.Errorf("user_data = %s", got)
	}
}

// TestOthersReadTheDisk asks a program that is not ours, where it is there: names and label are what cloud-init looks for.
func TestOthersReadTheDisk(t *testing.T) {
	isoinfo, err := exec.LookPath("isoinfo")
	if err != nil {
		t.Skip("isoinfo is not installed (genisoimage)")
	}
	path := filepath.Join(t.TempDir(), "seed.iso")
	if err := seed().Write(path); err != nil {
		t.Fatal(err)
	}
	for option, want := range map[string][]string{
		"-R": {"user-data", "meta-data", "network-config"},
		"-J": {"user-data", "meta-data", "network-config"},
	} {
		out, err := exec.Command(isoinfo, "-i", path, "-l", option).CombinedOutput()
		if err != nil {
			t.Fatalf("isoinfo: %v: %s", err, out)
		}
		for _, name := range want {
			if !strings.Contains(string(out), name) {
				t.Errorf("isoinfo %s does not show %s: %s", option, name, out)
			}
		}
	}
	out, err := exec.Command(isoinfo, "-i", path, "-d").CombinedOutput()
	if err != nil || !strings.Contains(string(out), "Volume id: cidata") {
		t.Errorf("isoinfo -d = %s, %v", out, err)
	}
}
