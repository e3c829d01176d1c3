package main

import (
	"bytes"
	"encoding/json"

	"github.com/spf13/cobra"

	"berth/internal/term"
)

func (p *program) inspectCmd() *cobra.Command {
	format := ""
	cmd := &cobra.Command{
		Use: "inspect [OPTIONS] [NAME]", Short: "Show all about a machine", Args: atMostOne, ValidArgsFunction: p.completeNames,
		RunE: func(_ *cobra.Command, names []string) error { return p.runInspect(names, format) },
	}
	cmd.Flags().StringVarP(&format, "format", "f", "", "Go template; it has the functions json and prettyjson")
	return cmd
}

func (p *program) runInspect(names []string, format string) error {
	h, err := p.host(names)
	if err != nil {
		return err
	}
	record, err := h.store.Inspect(h.Machine)
	if err != nil {
		return err
	}
	if format == "" {
		p.say("%s", record)
		return nil
	}
	var v any
	d := json.NewDecoder(bytes.NewReader(record))
	d.UseNumber() // ids stay what they are
	if err := d.Decode(&v); err != nil {
		return err
	}
	return term.Print(p.out, format, v)
}
