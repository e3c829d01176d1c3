package main

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"berth/internal/machine"
)

func (p *program) mountCmd() *cobra.Command {
	unmount := false
	cmd := &cobra.Command{
		Use:   "mount [OPTIONS] [[USER@]NAME:]PATH [DIR]",
		Short: "Mount a directory of a machine here, or unmount it",
		Long: `Mount a directory of a machine here with this computer's sshfs, or unmount it. Without DIR it is mounted on the directory
of the same path; without a machine's name the one called default is meant.`,
		ValidArgsFunction: p.completePlace,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) < 1 || len(args) > 2 {
				return &usageError{errors.New("Improper number of arguments"), cmd.CommandPath()} //nolint:revive,staticcheck // docker-machine's text
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			from := parseMounted(args[0])
			dir := from.path
			if len(args) == 2 {
				dir = args[1]
			}
			if unmount {
				return p.unmount(cmd.Context(), dir)
			}
			return p.mount(cmd.Context(), from, dir)
		},
	}
	cmd.Flags().BoolVarP(&unmount, "unmount", "u", false, "Unmount")
	return cmd
}

// parseMounted reads where to mount from, which is always on a machine.
func parseMounted(arg string) place {
	name, path, named := strings.Cut(arg, ":")
	if !named {
		return place{machine: defaultName, path: arg}
	}
	user, machine, has := strings.Cut(name, "@")
	if !has {
		user, machine = "", name
	}
	return place{machine, user, path}
}

func (p *program) mount(ctx context.Context, from place, dir string) error {
	h, err := p.host([]string{from.machine})
	if err != nil {
		return fmt.Errorf("Error loading host: %w", err) //nolint:staticcheck,revive // docker-machine's text
	}
	if _, here := h.driver.(machine.Enterer); here {
		return fmt.Errorf("machine %q is on this computer, whose files it shares: there is nothing to mount", h.Name)
	}
	if err := mustBeReachable(ctx, h); err != nil {
		return err
	}
	cfg, err := external(h, from.user)
	if err != nil {
		return err
	}
	args := pinned(sshWord(cfg.KnownHostsFile))
	for _, key := range cfg.KeyFiles {
		if err := checkKey(key); err != nil {
			return err
		}
		args = append(args, "-o", "IdentitiesOnly=yes", "-o", "IdentityFile="+sshWord(key))
	}
	args = append(args, "-o", "Port="+strconv.Itoa(cfg.Port), cfg.User+"@"+hostWord(cfg.Host)+":"+from.path, hereWord(dir))
	return p.runProgram(ctx, "sshfs", "use the mount feature", args)
}

func (p *program) unmount(ctx context.Context, dir string) error {
	name := "fusermount"
	if _, err := exec.LookPath(name); err != nil {
		name = "fusermount3"
	}
	return p.runProgram(ctx, name, "use the unmount option", []string{"-u", hereWord(dir)})
}
