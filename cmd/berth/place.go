package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"berth/internal/api"
	"berth/internal/term"
)

const (
	placeFormat        = `table {{.Node}}\t{{.Fits}}\t{{.Weight}}\t{{.Containers}}\t{{.Wishes}}\t{{.Why}}`
	placeComposeFormat = `table {{.Service}}\t{{.Container}}\t{{.Node}}\t{{.Why}}`
)

// placeOptions are the flags of `berth place`.
type placeOptions struct {
	endpointFlags
	format  string
	compose []string
	project string
	scale   []string
}

func (p *program) placeCmd() *cobra.Command {
	o := &placeOptions{}
	cmd := &cobra.Command{
		Use:   "place [OPTIONS] IMAGE|DOCKER-RUN-ARGUMENTS...",
		Short: "Tell where a container would go, and why",
		Long: `Tell where a container would go, and why, without making it.

What stands behind berth's own options is what you would give to "docker run". The docker client reads it, so all of its
flags work:

    berth place -m 4g -e constraint:size==xxl postgres

With --compose it is every service of a Compose file, each container placed with those before it in place:

    berth place --compose docker-compose.yml --scale bird=10

The exit status is 1 if a container fits no node.`,
		DisableFlagParsing: true, // what follows ours is docker's
		RunE: func(cmd *cobra.Command, args []string) error {
			return p.runPlace(cmd, o, args)
		},
	}
	f := cmd.Flags()
	f.SortFlags = false
	o.add(f)
	f.StringVar(&o.format, "format", "", "Go template, with 'table ' in front for a header; or json")
	f.StringArrayVar(&o.compose, "compose", nil, "Compose file to place; repeatable, the later ones override")
	f.StringVar(&o.project, "project", "", "Name of the Compose project")
	f.StringArrayVar(&o.scale, "scale", nil, "SERVICE=NUMBER of containers; repeatable")
	return cmd
}

// runPlace reads the command line, as far as it is ours, and asks the endpoint.
func (p *program) runPlace(cmd *cobra.Command, o *placeOptions, args []string) error {
	if len(args) == 1 && args[0] == "-h" {
		return cmd.Help()
	}
	ours, docker := splitOwn(cmd.Flags(), args)
	if err := cmd.Flags().Parse(ours); err != nil {
		return &usageError{err, cmd.CommandPath()}
	}
	if help, err := cmd.Flags().GetBool("help"); help || err != nil {
		return errors.Join(err, cmd.Help())
	}
	if err := o.check(docker); err != nil {
		return &usageError{err, cmd.CommandPath()}
	}
	e, err := o.endpoint()
	if err != nil {
		return err
	}
	defer e.close()
	if len(o.compose) > 0 {
		return p.placeCompose(cmd.Context(), e, o)
	}
	return p.placeDocker(cmd.Context(), e, o, docker)
}

func (o *placeOptions) check(docker []string) error {
	switch {
	case len(o.compose) > 0 && len(docker) > 0:
		return fmt.Errorf("either --compose or docker run's arguments, not both: %s", docker[0])
	case len(o.compose) == 0 && len(docker) == 0:
		return errors.New("place what? Say it as to docker run, or give --compose FILE")
	case len(o.compose) == 0 && (o.project != "" || len(o.scale) > 0):
		return errors.New("--project and --scale go with --compose")
	}
	return o.tls.check()
}

// splitOwn takes our own flags off the front of a command line.
func splitOwn(f *pflag.FlagSet, args []string) (ours, rest []string) {
	for len(args) > 0 {
		flag, inline := ownFlag(f, args[0])
		if flag == nil {
			break
		}
		n := 1
		if flag.NoOptDefVal == "" && !inline {
			n = min(2, len(args))
		}
		ours, args = append(ours, args[:n]...), args[n:]
	}
	if len(args) > 0 && args[0] == "--" {
		args = args[1:]
	}
	return ours, args
}

// ownFlag is the flag that a word begins with, and whether its value is in the word. -h is docker run's --hostname.
func ownFlag(f *pflag.FlagSet, word string) (flag *pflag.Flag, inline bool) {
	if name, ok := strings.CutPrefix(word, "--"); ok && name != "" {
		name, _, inline = strings.Cut(name, "=")
		return f.Lookup(name), inline
	}
	if len(word) < 2 || word[0] != '-' || word[1] == '-' || word[1] == 'h' {
		return nil, false
	}
	return f.ShorthandLookup(word[1:2]), len(word) > 2
}

// placeRow is one node in the table for a container.
type placeRow struct {
	Node, Fits, Weight, Containers, Wishes, Why string
}

func placeColumns() term.Columns {
	return term.Columns{
		"Node": "NODE", "Fits": "FITS", "Weight": "WEIGHT", "Containers": "CONTAINERS", "Wishes": "WISHES", "Why": "WHY",
	}
}

// placeDocker places one container, described as to docker run.
func (p *program) placeDocker(ctx context.Context, e *fleetEndpoint, o *placeOptions, args []string) error {
	a, err := readDockerRun(ctx, e, args)
	if err != nil {
		return err
	}
	if o.format == "json" {
		if err := p.sayJSON(a); err != nil {
			return err
		}
	} else if len(a.Nodes) > 0 {
		if err := term.Table(p.out, cmp.Or(o.format, placeFormat), placeColumns(), placeRows(a)); err != nil {
			return err
		}
	}
	if a.Node == "" {
		return errors.New(a.Message)
	}
	if o.format == "" {
		for _, line := range placeNotes(a) {
			p.say("%s", line)
		}
	}
	return nil
}

func (p *program) sayJSON(v any) error {
	e := json.NewEncoder(p.out)
	e.SetEscapeHTML(false)
	e.SetIndent("", "    ")
	return e.Encode(v)
}

// placeRows has the node that is taken first.
func placeRows(a api.Placement) []placeRow {
	var rows []placeRow
	for _, v := range a.Nodes {
		r := placeRow{Node: v.Name, Fits: "no", Why: v.Reason}
		if v.Fits {
			r.Fits, r.Weight, r.Containers = "yes", fmt.Sprint(v.Weight), fmt.Sprint(v.Containers)
			r.Wishes = fmt.Sprintf("%d/%d", v.Granted, v.Wishes)
		}
		if v.Name == a.Node {
			r.Fits, r.Why = "chosen", a.Decided
		}
		rows = append(rows, r)
	}
	return rows
}

// placeNotes are what would happen besides.
func placeNotes(a api.Placement) []string {
	var lines []string
	for _, m := range a.Moves {
		lines = append(lines, m+": would move, as nothing has used it yet")
	}
	switch a.Image {
	case api.ImageCopy:
		lines = append(lines, "The image would be copied to "+a.Node+" from a node that has it.")
	case api.ImagePull:
		lines = append(lines, "The image would be pulled to "+a.Node+" from its registry.")
	}
	return lines
}
