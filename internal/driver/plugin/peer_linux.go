package plugin

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
)

// sameUser tells whether a connection comes from this program's user, or root. The protocol has no password, and whoever is let in can
// make the driver do what it can, as root maybe.
func sameUser(conn net.Conn) bool {
	remote, err := netip.ParseAddrPort(conn.RemoteAddr().String())
	if err != nil {
		return false
	}
	uid, err := socketOwner(remote)
	return err == nil && (uid == 0 || uid == os.Geteuid())
}

// socketOwner looks up whose the local socket at an IPv4 address is.
func socketOwner(at netip.AddrPort) (int, error) {
	f, err := os.Open("/proc/net/tcp")
	if err != nil {
		return 0, err
	}
	defer f.Close()
	want := kernelAddress(at)
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		// sl local_address rem_address st tx:rx tr:when retrnsmt uid
		fields := strings.Fields(lines.Text())
		if len(fields) > 7 && fields[1] == want {
			return strconv.Atoi(fields[7])
		}
	}
	if err := lines.Err(); err != nil {
		return 0, err
	}
	return 0, fmt.Errorf("nobody on this computer has %s", at)
}

// kernelAddress is an address as /proc/net/tcp has it: the IP as the computer's own word, in hexadecimal.
func kernelAddress(at netip.AddrPort) string {
	ip := at.Addr().Unmap().As4()
	return fmt.Sprintf("%08X:%04X", binary.NativeEndian.Uint32(ip[:]), at.Port())
}
