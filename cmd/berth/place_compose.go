package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	composecli "github.com/compose-spec/compose-go/v2/cli"
	compose "github.com/compose-spec/compose-go/v2/types"

	"berth/internal/api"
	"berth/internal/fleet"
	"berth/internal/term"
)

// Labels by which Compose knows what is its own.
const (
	labelService = "com.docker.compose.service"
	labelNumber  = "com.docker.compose.container-number"
	labelOneOff  = "com.docker.compose.oneoff"
)

// composeRow is one container in the table of a project.
type composeRow struct {
	Service, Container, Node, Why string

	placement *api.Placement
}

func composeColumns() term.Columns {
	return term.Columns{"Service": "SERVICE", "Container": "CONTAINER", "Node": "NODE", "Why": "WHY"}
}

// placeCompose places what `docker compose up` would create.
func (p *program) placeCompose(ctx context.Context, e *fleetEndpoint, o *placeOptions) error {
	project, err := loadProject(ctx, o)
	if err != nil {
		return err
	}
	plan, err := newComposePlan(ctx, e, project)
	if err != nil {
		return err
	}
	rows, err := plan.place(ctx, e)
	if err != nil {
		return err
	}
	if o.format == "json" {
		err = p.sayComposeJSON(rows)
	} else {
		err = term.Table(p.out, cmp.Or(o.format, placeComposeFormat), composeColumns(), rows)
	}
	if err != nil {
		return err
	}
	if o.format == "" {
		p.sayMoves(rows)
	}
	refused := 0
	for _, r := range rows {
		if r.Node == "" {
			refused++
		}
	}
	if refused > 0 {
		return fmt.Errorf("%d of %d containers cannot be placed", refused, len(rows))
	}
	return nil
}

func (p *program) sayMoves(rows []composeRow) {
	for _, r := range rows {
		if r.placement == nil {
			continue
		}
		for _, m := range r.placement.Moves {
			p.say("%s: would move, as nothing has used it yet", m)
		}
	}
}

func (p *program) sayComposeJSON(rows []composeRow) error {
	type row struct {
		Service, Container, Node string
		Exists                   bool           `json:",omitempty"`
		Placement                *api.Placement `json:",omitempty"`
	}
	out := make([]row, len(rows))
	for i, r := range rows {
		out[i] = row{r.Service, r.Container, r.Node, r.placement == nil, r.placement}
	}
	return p.sayJSON(out)
}

// loadProject reads Compose files as docker compose does, and sets the scales that the command line asks for.
func loadProject(ctx context.Context, o *placeOptions) (*compose.Project, error) {
	options, err := composecli.NewProjectOptions(o.compose,
		composecli.WithOsEnv, composecli.WithEnvFiles(), composecli.WithDotEnv, composecli.WithDefaultProfiles(), composecli.WithName(o.project))
	if err != nil {
		return nil, fmt.Errorf("--compose: %w", err)
	}
	project, err := options.LoadProject(ctx)
	if err != nil {
		return nil, fmt.Errorf("--compose %s: %w", strings.Join(o.compose, " "), err)
	}
	for _, s := range o.scale {
		name, text, _ := strings.Cut(s, "=")
		n, err := strconv.Atoi(text)
		if err != nil || n < 0 {
			return nil, fmt.Errorf("--scale %s: want SERVICE=NUMBER", s)
		}
		service, ok := project.Services[name]
		if !ok {
			return nil, fmt.Errorf("--scale %s: the project has no service %s", s, name)
		}
		service.SetScale(n)
		project.Services[name] = service
	}
	return project, nil
}

// composePlan is what a project would create, in the order in which it would.
type composePlan struct {
	project *compose.Project
	running map[string]map[int]existing // by service and number
	ask     api.Rehearsal
	rows    []composeRow // one for each request, and one for each container that exists
}

// existing is a container that the project has already.
type existing struct{ name, node string }

func newComposePlan(ctx context.Context, e *fleetEndpoint, project *compose.Project) (*composePlan, error) {
	c := &composePlan{project: project}
	var err error
	if c.running, err = runningProject(ctx, e, project.Name); err != nil {
		return nil, err
	}
	for _, key := range slices.Sorted(maps.Keys(project.Networks)) {
		if n := project.Networks[key]; !n.External {
			c.ask.Networks = append(c.ask.Networks, c.object(n.Name, n.Driver, "com.docker.compose.network", key, n.Labels))
		}
	}
	for _, key := range slices.Sorted(maps.Keys(project.Volumes)) {
		if v := project.Volumes[key]; !v.External {
			c.ask.Volumes = append(c.ask.Volumes, c.object(v.Name, v.Driver, "com.docker.compose.volume", key, v.Labels))
		}
	}
	seen := map[string]bool{}
	for _, name := range slices.Sorted(maps.Keys(project.Services)) {
		c.add(name, seen)
	}
	return c, nil
}

// runningProject lists what the project has by now.
func runningProject(ctx context.Context, e *fleetEndpoint, project string) (map[string]map[int]existing, error) {
	filter, err := json.Marshal(map[string][]string{"label": {fleet.LabelProject + "=" + project, labelOneOff + "=False"}})
	if err != nil {
		return nil, err
	}
	var list []struct {
		Names  []string
		Labels map[string]string
	}
	if err := e.do(ctx, http.MethodGet, "/containers/json?all=1&filters="+url.QueryEscape(string(filter)), nil, nil, &list); err != nil {
		return nil, err
	}
	running := map[string]map[int]existing{}
	for _, row := range list {
		n, err := strconv.Atoi(row.Labels[labelNumber])
		if err != nil || len(row.Names) == 0 {
			continue // not one that Compose counts
		}
		service := row.Labels[labelService]
		if running[service] == nil {
			running[service] = map[int]existing{}
		}
		running[service][n] = existing{strings.TrimPrefix(row.Names[0], "/"), row.Labels[fleet.LabelNode]}
	}
	return running, nil
}

// object is the body of the create of a network or volume.
func (c *composePlan) object(name, driver, labelKey, key string, labels compose.Labels) json.RawMessage {
	all := maps.Clone(map[string]string(labels))
	if all == nil {
		all = map[string]string{}
	}
	all[fleet.LabelProject], all[labelKey] = c.project.Name, key
	b, err := json.Marshal(map[string]any{"Name": name, "Driver": driver, "Labels": all})
	if err != nil {
		panic(err) // texts only
	}
	return b
}

// add plans a service after those that it depends on.
func (c *composePlan) add(name string, seen map[string]bool) {
	s, ok := c.project.Services[name]
	if !ok || seen[name] {
		return
	}
	seen[name] = true
	for _, on := range slices.Sorted(maps.Keys(s.DependsOn)) {
		c.add(on, seen)
	}
	if s.Provider != nil {
		return // no container
	}
	for n := 1; n <= s.GetScale(); n++ {
		row := composeRow{Service: name, Container: c.container(name, n)}
		if has, ok := c.running[name][n]; ok {
			row.Node, row.Why = has.node, "exists"
		} else {
			row.placement = &api.Placement{}
			c.ask.Requests = append(c.ask.Requests, api.RehearsedCreate{Name: row.Container, Platform: s.Platform, Body: c.body(&s, n)})
		}
		c.rows = append(c.rows, row)
	}
}

// container is the name of a service's nth container.
func (c *composePlan) container(service string, n int) string {
	if has, ok := c.running[service][n]; ok {
		return has.name
	}
	if s := c.project.Services[service]; s.ContainerName != "" {
		return s.ContainerName
	}
	return fmt.Sprintf("%s-%s-%d", c.project.Name, service, n)
}

// place asks the endpoint and completes the rows.
func (c *composePlan) place(ctx context.Context, e *fleetEndpoint) ([]composeRow, error) {
	if len(c.rows) == 0 {
		return nil, errors.New("the project has no container to place")
	}
	if len(c.ask.Requests) == 0 {
		return c.rows, nil
	}
	answers, err := e.rehearse(ctx, "", nil, c.ask)
	if err != nil {
		return nil, err
	}
	for i := range c.rows {
		r := &c.rows[i]
		if r.placement == nil {
			continue
		}
		*r.placement, answers = answers[0], answers[1:]
		r.Node, r.Why = r.placement.Node, composeWhy(r.placement)
	}
	return c.rows, nil
}

// composeWhy is one line.
func composeWhy(a *api.Placement) string {
	if a.Node == "" {
		line, _, _ := strings.Cut(a.Message, "\n")
		return line
	}
	switch a.Image {
	case api.ImagePull:
		return a.Decided + "; the image would be pulled or built"
	case api.ImageCopy:
		return a.Decided + "; the image would be copied"
	}
	return a.Decided
}
