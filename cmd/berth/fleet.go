package main

import "github.com/spf13/cobra"

// fleetCommands are the commands for all hosts as one.
func (p *program) fleetCommands() []*cobra.Command {
	return []*cobra.Command{p.serveCmd(), p.placeCmd(), p.psCmd(), p.nodeCmd(), p.rebalanceCmd(), p.overlayCmd(), p.joinCmd(), p.leaveCmd(), p.discoveryCmd(), p.swarmCmd(), p.dnsCmd(), p.relayCmd()}
}

// swarmCmd gives classic Swarm's commands under the names its users know.
func (p *program) swarmCmd() *cobra.Command {
	swarm := &cobra.Command{Use: "swarm", Short: "Classic Swarm's commands"}
	manage := p.serveCmd()
	manage.Use = "manage [OPTIONS] [DISCOVERY]"
	manage.Aliases = []string{"m"}
	manage.Short = "Same as serve"
	swarm.AddCommand(manage, p.joinCmd(), p.swarmCreateCmd(), p.swarmListCmd())
	return swarm
}
