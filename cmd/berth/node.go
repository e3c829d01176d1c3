package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/docker/go-units"
	"github.com/moby/moby/api/types/swarm"
	"github.com/spf13/cobra"

	"berth/internal/fleet"
	"berth/internal/term"
)

const (
	nodeFormat     = `table {{.Name}}\t{{.ID}}\t{{.Status}}\t{{.Availability}}\t{{.Containers}}\t{{.CPUs}}\t{{.Memory}}\t{{.Engine}}\t{{.Labels}}`
	nodeTaskFormat = `table {{.Name}}\t{{.Image}}\t{{.Node}}\t{{.State}}\t{{.Note}}`
)

// nodeCmd is docker node for those who have no docker client, with what it has no flags for.
func (p *program) nodeCmd() *cobra.Command {
	cmd := &cobra.Command{Use: "node", Short: "See and steer the nodes of the fleet that berth serve serves"}
	cmd.AddCommand(p.nodeLsCmd(), p.nodeInspectCmd(), p.nodePsCmd(), p.nodeUpdateCmd(), p.nodeRmCmd())
	for _, sub := range cmd.Commands() {
		sub.DisableFlagsInUseLine = true
		sub.ValidArgsFunction = cobra.NoFileCompletions
	}
	return cmd
}

// onFleet runs f at the endpoint.
func (o *endpointFlags) onFleet(f func(*fleetEndpoint) error) error {
	if err := o.tls.check(); err != nil {
		return err
	}
	e, err := o.endpoint()
	if err != nil {
		return err
	}
	defer e.close()
	return f(e)
}

// nodeView is what is read of a node.
type nodeView struct {
	swarm.Node
	Berth struct {
		Addr                             string
		Containers, Running              int
		ReservedMemory, ReservedNanoCPUs int64
	}
}

// nodeRow is one node in the list.
type nodeRow struct {
	Name, ID, Status, Availability, Addr, Containers, CPUs, Memory, Engine, Labels, Error string
}

func nodeColumns() term.Columns {
	return term.Columns{
		"Name": "NAME", "ID": "ID", "Status": "STATUS", "Availability": "AVAILABILITY", "Addr": "ADDR", "Containers": "CONTAINERS", "CPUs": "CPUS",
		"Memory": "MEMORY", "Engine": "ENGINE", "Labels": "ADDED LABELS", "Error": "ERROR",
	}
}

func (p *program) nodeLsCmd() *cobra.Command {
	var at endpointFlags
	var format string
	var quiet bool
	cmd := &cobra.Command{
		Use: "ls [OPTIONS]", Aliases: []string{"list"}, Short: "List the nodes", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return at.onFleet(func(e *fleetEndpoint) error {
				var nodes []nodeView
				if err := e.do(cmd.Context(), http.MethodGet, "/nodes", http.Header{}, nil, &nodes); err != nil {
					return err
				}
				if quiet {
					format = "{{.ID}}"
				}
				return term.Table(p.out, format, nodeColumns(), nodeRows(nodes))
			})
		},
	}
	cmd.Flags().StringVar(&format, "format", nodeFormat, "Go template, with 'table ' in front for a header; or json")
	cmd.Flags().BoolVarP(&quiet, "quiet", "q", false, "Show IDs only")
	at.add(cmd.Flags())
	return cmd
}

func nodeRows(nodes []nodeView) []nodeRow {
	rows := make([]nodeRow, 0, len(nodes))
	for _, n := range nodes {
		total := n.Description.Resources
		rows = append(rows, nodeRow{
			Name: n.Description.Hostname, ID: n.ID, Status: string(n.Status.State), Availability: string(n.Spec.Availability), Addr: n.Berth.Addr,
			Containers: fmt.Sprintf("%d (%d running)", n.Berth.Containers, n.Berth.Running),
			CPUs:       fmt.Sprintf("%g / %g", float64(n.Berth.ReservedNanoCPUs)/1e9, float64(total.NanoCPUs)/1e9),
			Memory:     units.BytesSize(float64(n.Berth.ReservedMemory)) + " / " + units.BytesSize(float64(total.MemoryBytes)),
			Engine:     n.Description.Engine.EngineVersion, Labels: labelText(n.Spec.Labels), Error: n.Status.Message,
		})
	}
	return rows
}

func labelText(labels map[string]string) string {
	var list []string
	for _, k := range slices.Sorted(maps.Keys(labels)) {
		list = append(list, k+"="+labels[k])
	}
	return strings.Join(list, ",")
}

func (p *program) nodeInspectCmd() *cobra.Command {
	var at endpointFlags
	cmd := &cobra.Command{
		Use: "inspect [OPTIONS] NODE...", Short: "Show all about nodes", Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return at.onFleet(func(e *fleetEndpoint) error {
				all := make([]json.RawMessage, len(args))
				for i, name := range args {
					if err := e.do(cmd.Context(), http.MethodGet, "/nodes/"+url.PathEscape(name), http.Header{}, nil, &all[i]); err != nil {
						return err
					}
				}
				return p.sayJSON(all)
			})
		},
	}
	at.add(cmd.Flags())
	return cmd
}

// nodeTaskRow is one container of a node.
type nodeTaskRow struct{ Name, ID, Image, Node, State, Note string }

func (p *program) nodePsCmd() *cobra.Command {
	var at endpointFlags
	var format string
	cmd := &cobra.Command{
		Use: "ps [OPTIONS] NODE...", Short: "List the containers of nodes, and what keeps a drain from moving them", Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return at.onFleet(func(e *fleetEndpoint) error {
				var rows []nodeTaskRow
				for _, name := range args {
					more, err := e.containersOf(cmd.Context(), name)
					if err != nil {
						return err
					}
					rows = append(rows, more...)
				}
				return term.Table(p.out, format, term.Columns{"Name": "NAME", "ID": "ID", "Image": "IMAGE", "Node": "NODE", "State": "STATE", "Note": "NOTE"}, rows)
			})
		},
	}
	cmd.Flags().StringVar(&format, "format", nodeTaskFormat, "Go template, with 'table ' in front for a header; or json")
	at.add(cmd.Flags())
	return cmd
}

func (e *fleetEndpoint) node(ctx context.Context, name string) (n nodeView, err error) {
	err = e.do(ctx, http.MethodGet, "/nodes/"+url.PathEscape(name), http.Header{}, nil, &n)
	return n, err
}

func (e *fleetEndpoint) containersOf(ctx context.Context, name string) ([]nodeTaskRow, error) {
	n, err := e.node(ctx, name)
	if err != nil {
		return nil, err
	}
	filter, err := json.Marshal(map[string][]string{"node": {n.ID}})
	if err != nil {
		return nil, err
	}
	var tasks []swarm.Task
	if err := e.do(ctx, http.MethodGet, "/tasks?filters="+url.QueryEscape(string(filter)), http.Header{}, nil, &tasks); err != nil {
		return nil, err
	}
	var rows []nodeTaskRow
	for _, t := range tasks {
		rows = append(rows, nodeTaskRow{t.ServiceID, t.ID, t.Spec.ContainerSpec.Image, n.Description.Hostname, string(t.Status.State), t.Status.Err})
	}
	return rows, nil
}

// nodeUpdate are the flags of berth node update.
type nodeUpdate struct {
	endpointFlags
	availability string
	labels       []string
	without      []string
	volumes      bool
	detach       bool
}

func (p *program) nodeUpdateCmd() *cobra.Command {
	o := &nodeUpdate{}
	cmd := &cobra.Command{
		Use: "update [OPTIONS] NODE...", Short: "Change what is wanted of nodes", Args: cobra.MinimumNArgs(1),
		Long: `Change what is wanted of nodes.

    --availability pause    no new containers
    --availability drain    no new containers, and those that can move go to other nodes
    --availability active   as before

Added labels count like the engine's own for constraints. All of it outlives the manager.

A drain is waited for, and fails if containers stay: it says why. It goes on if the command is ended, and tries again by itself what
could not be moved. Until then nothing is lost: a container is stopped, made on the other node, started there, and only then removed
where it was. With --with-volumes its local volumes go along, verified before the originals are removed.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if o.volumes && o.availability != string(fleet.Drain) {
				return &usageError{errors.New("--with-volumes goes with --availability drain"), cmd.CommandPath()}
			}
			return o.onFleet(func(e *fleetEndpoint) error {
				for _, name := range args {
					if err := p.updateNode(cmd.Context(), e, o, name); err != nil {
						return err
					}
				}
				return nil
			})
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.availability, "availability", "", "active, pause or drain")
	f.StringArrayVar(&o.labels, "label-add", nil, "KEY=VALUE to add; repeatable")
	f.StringArrayVar(&o.without, "label-rm", nil, "KEY of an added label to take away; repeatable")
	f.BoolVar(&o.volumes, "with-volumes", false, "Let a drain carry local volumes along")
	f.BoolVarP(&o.detach, "detach", "d", false, "Do not wait for a drain")
	o.add(f)
	return cmd
}

func (p *program) updateNode(ctx context.Context, e *fleetEndpoint, o *nodeUpdate, name string) error {
	n, err := e.node(ctx, name)
	if err != nil {
		return err
	}
	spec, err := o.spec(n)
	if err != nil {
		return err
	}
	path := fmt.Sprintf("/nodes/%s/update?version=%d", n.ID, n.Version.Index)
	if err := e.do(ctx, http.MethodPost, path, http.Header{}, spec, nil); err != nil {
		return err
	}
	p.say("%s", n.Description.Hostname)
	if o.availability != string(fleet.Drain) || o.detach {
		return nil
	}
	return p.awaitDrain(ctx, e, n)
}

const (
	drainLook = 250 * time.Millisecond
	// drainPatience is how long a manager may be away while a drain is waited for: another takes it up.
	drainPatience = time.Minute
	// idlePatience is how long a manager that has just started takes until it moves containers.
	idlePatience = 15 * time.Second
)

// awaitDrain prints how a drain gets on, until nothing is left that can move.
func (p *program) awaitDrain(ctx context.Context, e *fleetEndpoint, n nodeView) error {
	said := map[string]string{}
	say := func(name, what string) {
		if said[name] != what {
			said[name] = what
			p.say("%s: %s", name, what)
		}
	}
	heard, active := time.Now(), time.Now()
	for {
		var d fleet.Draining
		err := e.do(ctx, http.MethodGet, "/berth/nodes/"+n.ID+"/draining", http.Header{}, nil, &d)
		switch {
		case ctx.Err() != nil:
			return fmt.Errorf("%w; the drain of %s goes on, docker node ps %s shows how far it is", ctx.Err(), n.Description.Hostname, n.Description.Hostname)
		case err != nil && time.Since(heard) > drainPatience:
			return err
		case err == nil:
			heard = time.Now()
			for _, m := range d.Moved {
				say(m.Name, "moved to "+m.To)
			}
			for _, m := range d.Moving {
				if m.To != "" {
					say(m.Name, m.Step+" ("+m.To+")")
				}
			}
			if d.Availability != fleet.Drain {
				return fmt.Errorf("node %s is %s again", n.Description.Hostname, d.Availability)
			}
			if d.Active {
				active = time.Now()
			}
			if time.Since(active) > idlePatience {
				return fmt.Errorf("another manager with this store moves the containers: docker node ps %s shows what is left", n.Description.Hostname)
			}
			if d.Done {
				return stuckError(n.Description.Hostname, d.Stuck)
			}
		}
		select {
		case <-time.After(drainLook):
		case <-ctx.Done():
		}
	}
}

// stuckError lists what stays on a node, and why.
func stuckError(node string, stuck []fleet.Stuck) error {
	if len(stuck) == 0 {
		return nil
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s cannot be emptied: %d left", node, len(stuck))
	for _, s := range stuck {
		fmt.Fprintf(&b, "\n    %s: %s", s.Name, strings.Join(s.Reasons, "; "))
	}
	return errors.New(b.String())
}

// spec is what is wanted of the node now with what the flags say.
func (o *nodeUpdate) spec(n nodeView) (swarm.NodeSpec, error) {
	spec := n.Spec
	spec.Labels = maps.Clone(n.Spec.Labels)
	if spec.Labels == nil {
		spec.Labels = map[string]string{}
	}
	switch o.availability {
	case "":
	case string(fleet.Active), string(fleet.Pause), string(fleet.Drain):
		spec.Availability = swarm.NodeAvailability(o.availability)
	default:
		return spec, fmt.Errorf("--availability %s: want active, pause or drain", o.availability)
	}
	switch {
	case o.volumes:
		spec.Labels[fleet.LabelDrainVolumes] = "true"
	case o.availability != "":
		delete(spec.Labels, fleet.LabelDrainVolumes) // of an earlier drain
	}
	for _, kv := range o.labels {
		k, v, _ := strings.Cut(kv, "=")
		spec.Labels[k] = v
	}
	for _, k := range o.without {
		if _, there := spec.Labels[k]; !there {
			return spec, fmt.Errorf("--label-rm %s: node %s has no such added label", k, n.Description.Hostname)
		}
		delete(spec.Labels, k)
	}
	return spec, nil
}

func (p *program) nodeRmCmd() *cobra.Command {
	var at endpointFlags
	var force bool
	cmd := &cobra.Command{
		Use: "rm [OPTIONS] NODE...", Aliases: []string{"remove"}, Short: "Take nodes out of the fleet that do not answer any more", Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return at.onFleet(func(e *fleetEndpoint) error {
				var failed error
				for _, name := range args {
					path := "/nodes/" + url.PathEscape(name)
					if force {
						path += "?force=1"
					}
					if err := e.do(cmd.Context(), http.MethodDelete, path, http.Header{}, nil, nil); err != nil {
						failed = errors.Join(failed, err)
						continue
					}
					p.say("%s", name)
				}
				return failed
			})
		},
	}
	cmd.Flags().BoolVarP(&force, "force", "f", false, "Also one that answers; its containers run on unseen")
	at.add(cmd.Flags())
	return cmd
}
