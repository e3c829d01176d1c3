package vboxsim

import (
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"
)

func (s *sim) list(args []string) error {
	if len(args) == 0 {
		return errSyntax
	}
	switch args[0] {
	case "vms":
		for _, m := range s.Machines {
			s.say("%q {%s}", m.Name, m.UUID)
		}
	case "hostonlyifs":
		for n, a := range s.Adapters {
			status := "Down"
			if a.IP != "" {
				status = "Up"
			}
			s.say("Name:            %s\nGUID:            786f6276-656e-4074-8000-0a002700000%d\nDHCP:            Disabled\nIPAddress:       %s\nNetworkMask:     %s", a.Name, n, a.IP, a.Mask)
			s.say("IPV6Address:     \nIPV6NetworkMaskPrefixLength: 0\nHardwareAddress: 0a:00:27:00:00:0%d\nMediumType:      Ethernet", n)
			if s.newer(6, 0, 0) {
				s.say("Wireless:        No")
			}
			s.say("Status:          %s\nVBoxNetworkName: HostInterfaceNetworking-%s\n", status, a.Name)
		}
	case "dhcpservers":
		for _, d := range s.Servers {
			enabled := "No"
			if d.Enabled {
				enabled = "Yes"
			}
			if !s.newer(6, 1, 0) {
				s.say("NetworkName:    %s\nIP:             %s\nNetworkMask:    %s\nlowerIPAddress: %s\nupperIPAddress: %s\nEnabled:        %s\n", d.Network, d.IP, d.Mask, d.Low, d.High, enabled)
				continue
			}
			s.say("NetworkName:    %s\nDhcpd IP:       %s\nLowerIPAddress: %s\nUpperIPAddress: %s\nNetworkMask:    %s\nEnabled:        %s\nGlobal Configuration:\n    minLeaseTime:     default\n    defaultLeaseTime: default\n    maxLeaseTime:     default\n    Forced options:   None\n    Suppressed opts.: None\n        1/legacy: %s\nGroups:               None\nIndividual Configs:   None\n",
				d.Network, d.IP, d.Low, d.High, d.Mask, enabled, d.Mask)
		}
	default:
		return errSyntax
	}
	return nil
}

func (s *sim) hostOnly(args []string) error {
	if len(args) == 0 {
		return errSyntax
	}
	switch args[0] {
	case "create":
		name := ""
		for n := 0; name == ""; n++ {
			if try := fmt.Sprint("vboxnet", n); !slices.ContainsFunc(s.Adapters, func(a adapter) bool { return a.Name == try }) {
				name = try
			}
		}
		s.Adapters = append(s.Adapters, adapter{Name: name})
		s.say("0%%...10%%...20%%...30%%...40%%...50%%...60%%...70%%...80%%...90%%...100%%\nInterface '%s' was successfully created", name)
		time.Sleep(settle)
		return makeBridge(name)
	case "remove":
		s.Adapters = slices.DeleteFunc(s.Adapters, func(a adapter) bool { return a.Name == args[1] })
		return removeBridge(args[1])
	case "ipconfig":
		return s.ipconfig(args[1], options(args[2:]))
	}
	return errSyntax
}

func (s *sim) ipconfig(name string, o map[string]string) error {
	n := slices.IndexFunc(s.Adapters, func(a adapter) bool { return a.Name == name })
	if n < 0 {
		return &complaint{fmt.Sprintf("The host network interface named '%s' could not be found", name), "code NS_ERROR_INVALID_ARG (0x80070057), component VirtualBoxWrap", "FindHostNetworkInterfaceByName(name.raw(), hif.asOutParam())"}
	}
	ip, err := netip.ParseAddr(o["--ip"])
	if err != nil {
		return errSyntax
	}
	if s.newer(6, 1, 28) && !allows(ip) {
		return &complaint{"Code E_ACCESSDENIED (0x80070005) - Access denied (extended info not available)", "", "EnableStaticIPConfig(Bstr(pIp).raw(), Bstr(pNetmask).raw())"}
	}
	s.Adapters[n].IP, s.Adapters[n].Mask = o["--ip"], o["--netmask"]
	return addressBridge(name, o["--ip"], o["--netmask"])
}

// allows is the rule of 6.1.28.
func allows(ip netip.Addr) bool {
	path := os.Getenv(NetworksEnv)
	if path == "" {
		path = "/etc/vbox/networks.conf"
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return netip.MustParsePrefix("192.168.56.0/21").Contains(ip)
	}
	for _, line := range strings.Split(string(text), "\n") {
		words := strings.Fields(line)
		if len(words) == 0 || words[0] != "*" {
			continue
		}
		for _, w := range words[1:] {
			if p, err := netip.ParsePrefix(w); err == nil && p.Contains(ip) {
				return true
			}
		}
	}
	return false
}

func (s *sim) dhcpServer(args []string) error {
	if len(args) == 0 {
		return errSyntax
	}
	o := options(args[1:], "--enable", "--disable")
	network := o["--netname"]
	n := slices.IndexFunc(s.Servers, func(d server) bool { return d.Network == network })
	switch {
	case network == "":
		return errSyntax
	case args[0] == "add" && n >= 0:
		return &complaint{"DHCP server already exists", "code NS_ERROR_FAILURE (0x80004005)", ""}
	case args[0] != "add" && n < 0:
		return &complaint{"DHCP server does not exist", notFoundCode, "FindDHCPServerByNetworkName(NetName.raw(), svr.asOutParam())"}
	case args[0] == "remove":
		s.Servers = slices.Delete(s.Servers, n, n+1)
		return nil
	case args[0] == "add":
		s.Servers = append(s.Servers, server{Network: network})
		n = len(s.Servers) - 1
	}
	d := &s.Servers[n]
	for key, to := range map[string]*string{"--ip": &d.IP, "--netmask": &d.Mask, "--lowerip": &d.Low, "--upperip": &d.High} {
		if o[key] == "" {
			continue
		}
		if _, err := netip.ParseAddr(o[key]); err != nil {
			return &complaint{"Invalid server address", "code NS_ERROR_INVALID_ARG (0x80070057)", ""}
		}
		*to = o[key]
	}
	d.Enabled = o["--enable"] != "" || d.Enabled && o["--disable"] == ""
	return nil
}
