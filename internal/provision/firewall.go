package provision

import (
	"context"
	"fmt"
	"strings"
)

// firewallScript opens the port in the firewalls that people set up with these two.
const firewallScript = `
if command -v ufw >/dev/null 2>&1 && ufw status | grep -q '^Status: active'; then
  ufw show added 2>/dev/null | grep -qx "ufw allow $port" || { run ufw allow "$port"; echo opened; }
fi
if command -v firewall-cmd >/dev/null 2>&1 && firewall-cmd --quiet --state 2>/dev/null; then
  firewall-cmd --quiet --query-port="$port" || { run firewall-cmd --quiet --add-port="$port"; echo opened; }
  firewall-cmd --quiet --permanent --query-port="$port" || { run firewall-cmd --quiet --permanent --add-port="$port"; echo opened; }
fi
exit 0`

// openPorts lets clients through the host's own firewall, if one is up.
func (h *host) openPorts(ctx context.Context) error {
	ports := []int{h.config.Port}
	for _, s := range h.config.Services {
		if s.Port != 0 {
			ports = append(ports, s.Port)
		}
	}
	for _, port := range ports {
		said, err := h.sh(ctx, fmt.Sprintf("port=%d/tcp", port)+firewallScript, nil)
		if err != nil {
			return err
		}
		if strings.Contains(said, "opened") {
			h.say("Opened port %d in the host's firewall", port)
		}
	}
	return nil
}
