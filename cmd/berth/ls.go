package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"berth/internal/machine"
	"berth/internal/term"
)

const lsFormat = `table {{.Name}}\t{{.Active}}\t{{.DriverName}}\t{{.State}}\t{{.URL}}\t{{.Swarm}}\t{{.DockerVersion}}\t{{.Error}}`

// lsColumns are the fields of a row and their headers.
func lsColumns() term.Columns {
	return term.Columns{
		"Name": "NAME", "Active": "ACTIVE", "ActiveHost": "ACTIVE_HOST", "ActiveSwarm": "ACTIVE_SWARM", "DriverName": "DRIVER",
		"State": "STATE", "URL": "URL", "SwarmOptions": "SWARM_OPTIONS", "Swarm": "SWARM", "EngineOptions": "ENGINE_OPTIONS",
		"Error": "ERRORS", "DockerVersion": "DOCKER", "ResponseTime": "RESPONSE",
		"TTL": "TTL", "IdleStop": "IDLE_STOP",
	}
}

// lsRow is one machine in the list.
type lsRow struct {
	Name          string
	Active        string
	ActiveHost    bool
	ActiveSwarm   bool
	DriverName    string
	State         string
	URL           string
	SwarmOptions  machine.SwarmOptions
	Swarm         string
	EngineOptions machine.EngineOptions
	Error         string
	DockerVersion string
	ResponseTime  time.Duration
	TTL           string // what is left of it
	IdleStop      string
}

type lsOptions struct {
	quiet   bool
	filters []string
	timeout int
	format  string
}

func (p *program) lsCmd() *cobra.Command {
	o := lsOptions{}
	cmd := &cobra.Command{
		Use:               "ls",
		Short:             "List machines",
		Args:              noArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE:              func(cmd *cobra.Command, _ []string) error { return p.runLs(cmd.Context(), o) },
	}
	cmd.Flags().BoolVarP(&o.quiet, "quiet", "q", false, "Names only")
	cmd.Flags().StringArrayVar(&o.filters, "filter", nil, "Only machines with KEY=VALUE: driver, state, name, swarm, label (repeatable)")
	cmd.Flags().IntVarP(&o.timeout, "timeout", "t", 10, "Seconds to wait for a machine")
	cmd.Flags().StringVarP(&o.format, "format", "f", lsFormat, "Go template, with 'table ' in front for a header; or json")
	return cmd
}

// found is a machine of the store as far as it could be loaded.
type found struct {
	name string
	host host
	err  error
}

func (p *program) runLs(ctx context.Context, o lsOptions) error {
	filters, err := parseFilters(o.filters)
	if err != nil {
		return err
	}
	all, err := p.findAll()
	if err != nil {
		return err
	}
	swarms := p.swarms(all)
	shown := slices.DeleteFunc(slices.Clone(all), func(f found) bool { return !filters.record(f, swarms) || o.quiet && f.err != nil })
	if o.quiet && len(filters["state"]) == 0 {
		for _, f := range shown {
			p.say("%s", f.name)
		}
		return nil
	}
	rows := p.askAll(ctx, shown, time.Duration(o.timeout)*time.Second, swarms)
	rows = slices.DeleteFunc(rows, func(r lsRow) bool { return !filters.state(r) })
	if o.quiet {
		for _, r := range rows {
			p.say("%s", r.Name)
		}
		return nil
	}
	return term.Table(p.out, o.format, lsColumns(), rows)
}

// findAll loads every machine of the store; one that cannot be loaded is found all the same.
func (p *program) findAll() ([]found, error) {
	s, err := p.store()
	if err != nil {
		return nil, err
	}
	names, err := s.Names()
	if err != nil {
		return nil, err
	}
	var all []found
	for _, name := range names {
		h, err := p.load(s, name)
		var gone *machine.NotExistError
		if errors.As(err, &gone) { // removed since its name was read
			continue
		}
		all = append(all, found{name, h, err})
	}
	return all, nil
}

// askAll asks all machines at once, each no longer than timeout.
func (p *program) askAll(ctx context.Context, all []found, timeout time.Duration, swarms swarms) []lsRow {
	rows := make([]lsRow, len(all))
	places := make([]int, len(all))
	for i := range places {
		places[i] = i
	}
	_ = each(ctx, places, func(ctx context.Context, i int) error {
		ctx, cancel := context.WithTimeout(ctx, timeout)
		defer cancel()
		rows[i] = row(ctx, all[i], swarms)
		return nil // what is wrong with a machine stands in its row
	})
	return rows
}

func row(ctx context.Context, f found, swarms swarms) lsRow {
	if f.err != nil {
		return brokenRow(f)
	}
	st := machine.Ask(ctx, f.host.store, f.host.driver, f.host.Machine)
	r := lsRow{
		Name: f.name, DriverName: f.host.DriverName, State: st.State.String(), URL: st.URL,
		SwarmOptions: f.host.Swarm, Swarm: swarms.cell(f.host.Machine), EngineOptions: f.host.Engine,
		Active: "-", DockerVersion: "Unknown", ResponseTime: st.Took,
	}
	r.TTL, r.IdleStop = lifeCells(f.host.Life)
	if st.Engine.Version != "" {
		r.DockerVersion = "v" + st.Engine.Version
	}
	switch {
	case st.Err != nil && st.Warning != nil && aboutCertificates(st.Err):
		r.Error = oneLine(st.Warning) + ": " + oneLine(st.Err)
	case st.Err != nil:
		r.Error = oneLine(st.Err)
	case st.Warning != nil:
		r.Error = oneLine(st.Warning)
	}
	endpoint := os.Getenv("DOCKER_HOST")
	switch {
	case st.State == machine.StateTimeout:
		r.Active = ""
	case endpoint != "" && st.URL == endpoint:
		r.Active, r.ActiveHost = "*", true
	case endpoint != "" && st.URL != "" && f.host.ManagerURL() == endpoint:
		r.Active, r.ActiveSwarm = "* (swarm)", true
	}
	return r
}

// lifeCells say how long a machine still has, and how long it may be idle; "" for good.
func lifeCells(l machine.Lifetime) (ttl, idleStop string) {
	if !l.Expires.IsZero() {
		ttl = "over"
		if left := time.Until(l.Expires); left > 0 {
			ttl = spanText(left)
		}
	}
	if l.IdleStop > 0 {
		idleStop = spanText(l.IdleStop)
	}
	return ttl, idleStop
}

func brokenRow(f found) lsRow {
	r := lsRow{Name: f.name, Active: "-", DriverName: "not found", State: machine.StateError.String(), DockerVersion: "Unknown", Error: oneLine(f.err)}
	switch {
	case f.host.Machine != nil: // the record is fine, its driver is not there
		r.DriverName = f.host.DriverName
	case errors.Is(f.err, fs.ErrNotExist):
		r.Error = "it has no config.json: its create was cut off, or the file is lost"
	}
	return r
}

// oneLine makes an error fit into a cell.
func oneLine(err error) string {
	return strings.Join(strings.Fields(err.Error()), " ")
}

// swarms are what the machines say of the Swarms that they are in.
type swarms struct {
	managers map[string]string // by discovery URL
	title    string            // what a manager is called
}

func (p *program) swarms(all []found) swarms {
	s := swarms{map[string]string{}, "manager"}
	if p.dropIn() {
		s.title = "master" // which scripts look for
	}
	for _, f := range all {
		if f.err == nil && f.host.Swarm.Master {
			s.managers[f.host.Swarm.Discovery] = f.name
		}
	}
	return s
}

// cell is a machine's place in the list.
func (s swarms) cell(m *machine.Machine) string {
	switch {
	case m.Swarm.Discovery == "":
		return ""
	case m.Swarm.Master:
		return m.Name + " (" + s.title + ")"
	}
	return s.managers[m.Swarm.Discovery]
}

// lsFilters are the wanted values by key: one of them for each key.
type lsFilters map[string][]string

func parseFilters(given []string) (lsFilters, error) {
	f := lsFilters{}
	for _, g := range given {
		key, value, ok := strings.Cut(g, "=")
		key = strings.ToLower(key)
		switch {
		case !ok:
			return nil, fmt.Errorf("Unsupported filter syntax: %q: want KEY=VALUE", g) //nolint:staticcheck,revive // docker-machine's text
		case !slices.Contains([]string{"driver", "state", "name", "swarm", "label"}, key):
			return nil, fmt.Errorf("Unsupported filter key '%s': want driver, state, name, swarm or label", key) //nolint:staticcheck,revive // docker-machine's text
		case key == "label" && !strings.Contains(value, "="):
			return nil, fmt.Errorf("Unsupported filter syntax: %q: want label=KEY=VALUE", g) //nolint:staticcheck,revive // docker-machine's text
		case key == "name":
			if _, err := regexp.Compile(value); err != nil {
				return nil, fmt.Errorf("filter name=%s: %w", value, err)
			}
		}
		f[key] = append(f[key], value)
	}
	return f, nil
}

// record applies the filters that the record alone answers. A machine whose record cannot be read is always shown.
func (f lsFilters) record(m found, swarms swarms) bool {
	if m.err != nil {
		return true
	}
	h := m.host
	return f.any("driver", func(v string) bool { return strings.EqualFold(v, h.DriverName) }) &&
		f.any("name", func(v string) bool { ok, err := regexp.MatchString(v, h.Name); return ok && err == nil }) &&
		f.any("swarm", func(v string) bool {
			return h.Swarm.Discovery != "" && strings.EqualFold(v, swarms.managers[h.Swarm.Discovery])
		}) &&
		f.any("label", func(v string) bool { return hasLabel(h.Engine.Labels, v) })
}

func (f lsFilters) state(r lsRow) bool {
	return r.DriverName == "not found" || f.any("state", func(v string) bool { return strings.EqualFold(v, r.State) })
}

// any tells whether one of the values wanted for key fits; wanting none is no condition.
func (f lsFilters) any(key string, fits func(string) bool) bool {
	return len(f[key]) == 0 || slices.ContainsFunc(f[key], fits)
}

func hasLabel(labels []string, want string) bool {
	key, value, _ := strings.Cut(want, "=")
	return slices.ContainsFunc(labels, func(l string) bool {
		k, v, _ := strings.Cut(l, "=")
		return k == key && strings.EqualFold(v, value)
	})
}

// noArgs refuses any argument.
func noArgs(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return &usageError{errors.New("Error: Too many arguments given"), cmd.CommandPath()} //nolint:revive,staticcheck // docker-machine's text
	}
	return nil
}
