package main

import (
	"fmt"
	"log/slog"
	"os"
	"runtime"

	"github.com/spf13/cobra"

	"berth/internal/cluster"
	"berth/internal/relay"
)

// What --socket says.
const (
	socketNode  = "node"
	socketFleet = "fleet"
)

// newRelays prepares relays that are made of this very program.
func newRelays(c *cluster.Cluster, log *slog.Logger) (*relay.Relays, error) {
	path := "/proc/self/exe" // which is still this one after an upgrade
	if runtime.GOOS != "linux" {
		var err error
		if path, err = os.Executable(); err != nil {
			return nil, fmt.Errorf("--socket=fleet: %w", err)
		}
	}
	p, err := relay.ReadProgram(path)
	if err != nil {
		return nil, fmt.Errorf("--socket=fleet: %w", err)
	}
	return relay.New(c, p, log), nil
}

// relayCmd is what berth does in the containers that it makes for --socket=fleet.
func (p *program) relayCmd() *cobra.Command {
	var listen string
	var join bool
	cmd := &cobra.Command{
		Use: relay.Command + " --listen SOCKET | --join", Short: "Bring the fleet's endpoint to containers of a node", Hidden: true, Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return p.relay(cmd.Context(), listen, join)
		},
	}
	cmd.Flags().StringVar(&listen, "listen", "", "Keep a socket there")
	cmd.Flags().BoolVar(&join, "join", false, "Carry what is connected to it over the standard streams")
	cmd.MarkFlagsOneRequired("listen", "join")
	cmd.MarkFlagsMutuallyExclusive("listen", "join")
	return cmd
}
