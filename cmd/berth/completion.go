package main

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"
)

// completing tells whether a shell asks what could come next.
func (p *program) completing() bool {
	return len(p.argv) > 1 && strings.HasPrefix(p.argv[1], cobra.ShellCompRequestCmd)
}

// completeOneName offers the machines' names for the first argument, and nothing of ours after it.
func (p *program) completeOneName(cmd *cobra.Command, given []string, word string) ([]string, cobra.ShellCompDirective) {
	if len(given) > 0 {
		return nil, cobra.ShellCompDirectiveDefault
	}
	return p.completeNames(cmd, given, word)
}

// completePlace offers NAME: for a path on a machine, and files for one here.
func (p *program) completePlace(cmd *cobra.Command, _ []string, word string) ([]string, cobra.ShellCompDirective) {
	if strings.ContainsAny(word, ":/.~") {
		return nil, cobra.ShellCompDirectiveDefault
	}
	names, directive := p.completeNames(cmd, nil, word)
	if directive == cobra.ShellCompDirectiveError {
		return nil, directive
	}
	var places []string
	for _, n := range names {
		if strings.HasPrefix(n, word) {
			places = append(places, n+":")
		}
	}
	if len(places) == 0 {
		return nil, cobra.ShellCompDirectiveDefault // a file here
	}
	return places, cobra.ShellCompDirectiveNoSpace
}

// driverPrefix begins the name of every driver plugin of docker-machine.
const driverPrefix = "docker-machine-driver-"

// completeDrivers offers our drivers and the plugins that are installed.
func (p *program) completeDrivers(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	names := slices.Collect(maps.Keys(p.drivers))
	for _, dir := range filepath.SplitList(os.Getenv("PATH")) {
		entries, err := os.ReadDir(dir)
		if err != nil { // the shell does not mind either
			continue
		}
		for _, e := range entries {
			if name, ok := strings.CutPrefix(strings.TrimSuffix(e.Name(), ".exe"), driverPrefix); ok && name != "" {
				names = append(names, name)
			}
		}
	}
	slices.Sort(names)
	return slices.Compact(names), cobra.ShellCompDirectiveNoFileComp
}

// completeShells offers the shells that env knows.
func completeShells(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	return slices.Sorted(maps.Keys(shells())), cobra.ShellCompDirectiveNoFileComp
}

// completeFlags wires the values of flags, where they are known.
func (p *program) completeFlags(root *cobra.Command) {
	for _, cmd := range root.Commands() {
		for flag, complete := range map[string]cobra.CompletionFunc{"driver": p.completeDrivers, "shell": completeShells} {
			if cmd.Flags().Lookup(flag) != nil {
				_ = cmd.RegisterFlagCompletionFunc(flag, complete) // it is there, and has no other
			}
		}
	}
}
