package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// dropInCommands are docker-machine's. Under its name the others work, but are not listed.
var dropInCommands = []string{
	"active", "config", "create", "env", "inspect", "ip", "kill", "ls", "mount", "provision", "regenerate-certs", "restart", "rm", "ssh",
	"scp", "start", "status", "stop", "upgrade", "url", "version", "help",
}

// helpLikeDockerMachine lays help out as docker-machine does, for those who read it by program.
func (p *program) helpLikeDockerMachine(cmd *cobra.Command, _ []string) {
	if cmd.HasParent() {
		p.commandHelp(cmd)
		return
	}
	v, build := buildVersion()
	p.say("Usage: %s [OPTIONS] COMMAND [arg...]\n\nCreate and manage machines running Docker.\n\nVersion: %s, build %s\n\nOptions:", p.name, v, build)
	printFlags(p.out, "  ", cmd.Flags())
	p.say("\nCommands:")
	w := helpTabs(p.out)
	for _, name := range dropInCommands {
		if c, _, err := cmd.Find([]string{name}); err == nil && c != cmd {
			fmt.Fprintf(w, "  %s\t%s\n", name, c.Short) //nolint:errcheck // shown by Flush
		}
	}
	_ = w.Flush() // who reads help no more wants no more of it
	p.say("\nRun '%s COMMAND --help' for more information on a command.", p.name)
}

func (p *program) commandHelp(cmd *cobra.Command) {
	p.say("Usage: %s [OPTIONS] [arg...]\n\n%s", cmd.CommandPath(), cmd.Short)
	if cmd.Long != "" {
		p.say("\nDescription:\n   %s", strings.ReplaceAll(cmd.Long, "\n", "\n   "))
	}
	own := cmd.NonInheritedFlags()
	if own.HasAvailableFlags() {
		p.say("\nOptions:\n   ")
		printFlags(p.out, "   ", own)
	}
}

// helpTabs aligns as docker-machine's help does.
func helpTabs(w io.Writer) *tabwriter.Writer { return tabwriter.NewWriter(w, 0, 8, 1, '\t', 0) }

func printFlags(out io.Writer, indent string, flags *pflag.FlagSet) {
	w := helpTabs(out)
	flags.VisitAll(func(f *pflag.Flag) {
		if f.Hidden {
			return
		}
		names := "--" + f.Name
		if f.Shorthand != "" {
			names += ", -" + f.Shorthand
		}
		usage := strings.ReplaceAll(f.Usage, "`", "")
		fmt.Fprintf(w, "%s%s%s\t%s\n", indent, names, defaultValue(f), usage) //nolint:errcheck // shown by Flush
	})
	_ = w.Flush() // who reads help no more wants no more of it
}

// defaultValue shows a flag's default, or that it may be repeated.
func defaultValue(f *pflag.Flag) string {
	switch {
	case f.NoOptDefVal != "":
		return "" // a switch
	case slices.Contains([]string{"stringArray", "stringSlice"}, f.Value.Type()):
		return fmt.Sprintf(" [--%[1]s option --%[1]s option]", f.Name)
	case f.DefValue == "":
		return " "
	}
	return fmt.Sprintf(" %q", f.DefValue)
}
