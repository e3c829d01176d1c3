package main

import (
	"encoding/json"
	"path/filepath"
	"slices"
	"strings"
)

// What berth is when it is linked under another name.
const (
	dropInName = "docker-machine" // that very program
	pluginName = "docker-berth"   // a plugin of the docker command, which calls it for `docker berth`
)

// calledAs is the name to show, the one that berth was called by, and the command line as if it had been called by it directly.
func calledAs(argv []string) (name string, rest []string) {
	name = strings.TrimSuffix(filepath.Base(argv[0]), ".exe")
	if name != pluginName {
		return name, argv
	}
	return pluginCommand, append([]string{argv[0]}, pluginArgs(argv[1:])...)
}

// dropIn tells whether berth stands in for docker-machine.
func (p *program) dropIn() bool { return p.name == dropInName }

// commandLine is how the user called us.
func (p *program) commandLine() []string {
	if p.name == pluginCommand {
		return append(strings.Fields(pluginCommand), p.argv[1:]...)
	}
	return p.argv
}

// pluginCommand is what users of the plugin type.
const pluginCommand = "docker berth"

// metadataArg is how the docker command asks what a plugin is.
const metadataArg = "docker-cli-plugin-metadata"

// printPluginMetadata answers it.
func (p *program) printPluginMetadata() error {
	v, _ := buildVersion()
	text, err := json.Marshal(map[string]string{
		"SchemaVersion": "0.1.0", "Vendor": "berth", "Version": v,
		"ShortDescription": "Create Docker hosts, and use many of them as one",
	})
	if err != nil {
		return err
	}
	p.say("%s", text)
	return nil
}

// pluginArgs are the arguments meant for us: docker passes all of its own, with its options and our name in front.
func pluginArgs(args []string) []string {
	var before []string // for the shell's completion, which comes first
	if len(args) > 0 && strings.HasPrefix(args[0], "__complete") {
		before, args = args[:1], args[1:]
	}
	takesValue := []string{"--config", "--context", "-c", "--host", "-H", "--log-level", "-l", "--tlscacert", "--tlscert", "--tlskey"}
	for i := 0; i < len(args); i++ {
		a := args[i]
		switch {
		case a == "berth":
			return slices.Concat(before, args[i+1:])
		case slices.Contains(takesValue, a):
			i++
		case !strings.HasPrefix(a, "-"):
			return slices.Concat(before, args) // not called by docker
		}
	}
	return slices.Concat(before, args)
}
