package main

import (
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/docker/go-units"
	"github.com/spf13/cobra"

	"berth/internal/fleet"
	"berth/internal/term"
)

const (
	psFormat    = `table {{.Node}}\t{{.ID}}\t{{.Name}}\t{{.Image}}\t{{.Status}}`
	staleFormat = `table {{.Node}}\t{{.ID}}\t{{.Name}}\t{{.Of}}\t{{.Image}}\t{{.Created}}\t{{.Status}}`
)

// psRow is one container in the list.
type psRow struct{ Node, ID, Name, Of, Image, Created, Status string }

// psCmd is docker ps -a by nodes for those who have no docker client, and shows what was set aside.
func (p *program) psCmd() *cobra.Command {
	var at endpointFlags
	var format string
	var stale, quiet bool
	cmd := &cobra.Command{
		Use: "ps [OPTIONS]", Short: "List the containers of the fleet, or what is kept of those that were lost", Args: noArgs, ValidArgsFunction: cobra.NoFileCompletions,
		Long: `List the containers of the fleet that berth serve serves.

With --stale, list what is kept of containers that were started elsewhere since their node was lost, and whose node came back. They are
stopped, have another name, and are never removed but by you, once there is nothing in them or their volumes that you want:

    docker cp NODE/NAME:/data .
    docker rm -v NODE/NAME`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return at.onFleet(func(e *fleetEndpoint) error {
				q := url.Values{"all": {"1"}}
				if stale {
					q.Set("filters", `{"label":["`+fleet.LabelStale+`"]}`)
				}
				var list []psContainer
				if err := e.do(cmd.Context(), http.MethodGet, "/containers/json?"+q.Encode(), http.Header{}, nil, &list); err != nil {
					return err
				}
				switch {
				case quiet:
					format = "{{.ID}}"
				case format == "" && stale:
					format = staleFormat
				case format == "":
					format = psFormat
				}
				columns := term.Columns{"Node": "NODE", "ID": "ID", "Name": "NAME", "Of": "OF", "Image": "IMAGE", "Created": "CREATED", "Status": "STATUS"}
				return term.Table(p.out, format, columns, psRows(list, time.Now()))
			})
		},
	}
	cmd.Flags().BoolVar(&stale, "stale", false, "Only what is kept of lost containers: OF is the name that each had, STATUS tells since when")
	cmd.Flags().StringVar(&format, "format", "", "Go template, with 'table ' in front for a header; or json")
	cmd.Flags().BoolVarP(&quiet, "quiet", "q", false, "Show IDs only")
	at.add(cmd.Flags())
	return cmd
}

// psContainer is what is read of a row of the list.
type psContainer struct {
	ID            string `json:"Id"`
	Names         []string
	Image, Status string
	Created       int64
	Labels        map[string]string
}

func psRows(list []psContainer, now time.Time) []psRow {
	rows := make([]psRow, 0, len(list))
	for _, c := range list {
		name := ""
		if len(c.Names) > 0 {
			name = strings.TrimPrefix(c.Names[0], "/")
		}
		rows = append(rows, psRow{
			Node: c.Labels[fleet.LabelNode], ID: c.ID[:min(len(c.ID), 12)], Name: name, Of: c.Labels[fleet.LabelStale], Image: c.Image,
			Created: units.HumanDuration(now.Sub(time.Unix(c.Created, 0))) + " ago", Status: c.Status,
		})
	}
	return rows
}
