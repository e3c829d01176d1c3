package main

import (
	"cmp"
	"context"
	"runtime/debug"
	"time"

	"github.com/spf13/cobra"
)

// The linker sets these in releases: -X main.version=… -X main.commit=…
var version, commit string

func (p *program) versionCmd() *cobra.Command {
	return &cobra.Command{
		Use: "version [NAME]", Short: "Show the version of " + p.name + ", or of a machine's engine", Args: atMostOne, ValidArgsFunction: p.completeNames,
		RunE: func(cmd *cobra.Command, names []string) error {
			if len(names) == 0 {
				return p.printVersion()
			}
			h, err := p.host(names)
			if err != nil {
				return err
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), connectTime)
			defer cancel()
			if err := mustRun(ctx, h); err != nil {
				return err
			}
			e, err := h.store.AskEngine(ctx, h.Machine)
			if err != nil {
				return err
			}
			p.say("%s", e.Version)
			return nil
		},
	}
}

// connectTime is how long a machine may take to answer one question.
const connectTime = 20 * time.Second

func (p *program) printVersion() error {
	v, c := buildVersion()
	p.say("%s version %s, build %s", p.name, v, c)
	return nil
}

// buildVersion is the release's version and commit, or what the Go toolchain noted of them.
func buildVersion() (v, c string) {
	v, c = version, commit
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" && c == "" {
				c = s.Value[:min(8, len(s.Value))]
			}
		}
	}
	return cmp.Or(v, "dev"), cmp.Or(c, "HEAD")
}
