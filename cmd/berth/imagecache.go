package main

import (
	"errors"
	"fmt"
	"runtime"
	"strconv"

	"github.com/spf13/cobra"

	"berth/internal/term"
	"berth/internal/vmimage"
)

func (p *program) imageCacheCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use: "image-cache COMMAND", Short: "Disk images that virtual machines are made from", Args: noArgs, ValidArgsFunction: cobra.NoFileCompletions,
		Long: `Disk images that virtual machines are made from. A create downloads what --vm-image names once and keeps it in the store;
machines share it. Removing an image from the cache harms no machine: its disk space is free once the last machine that has it is removed.`,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	for _, sub := range []*cobra.Command{p.imageCacheLsCmd(), p.imageCacheRmCmd(), p.imageCachePullCmd()} {
		sub.DisableFlagsInUseLine = true
		cmd.AddCommand(sub)
	}
	return cmd
}

func (p *program) imageCache() (*vmimage.Cache, error) {
	s, err := p.store()
	if err != nil {
		return nil, err
	}
	return &vmimage.Cache{Dir: vmimage.Dir(s.CacheDir())}, nil
}

// cachedImage is a row of image-cache ls.
type cachedImage struct{ Name, Digest, Checked, Size, Machines, Added, Source string }

const imageCacheFormat = "table {{.Name}}\t{{.Digest}}\t{{.Checked}}\t{{.Size}}\t{{.Machines}}\t{{.Added}}\t{{.Source}}"

func imageRow(i vmimage.Image) cachedImage {
	row := cachedImage{
		Name: i.Name, Digest: i.Digest.Short(), Checked: "no", Size: term.Bytes(i.Size), Machines: strconv.Itoa(i.Users),
		Added: i.Added.Local().Format("2006-01-02 15:04"), Source: i.Source,
	}
	if i.Checked {
		row.Checked = "yes"
	}
	if i.Users < 0 {
		row.Machines = "?"
	}
	if i.Partial {
		row.Digest, row.Checked = "(a part)", ""
	}
	return row
}

func (p *program) imageCacheLsCmd() *cobra.Command {
	format, quiet := imageCacheFormat, false
	cmd := &cobra.Command{
		Use: "ls [OPTIONS]", Short: "List the images that are there, and how many machines have them", Args: noArgs, ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(*cobra.Command, []string) error {
			cache, err := p.imageCache()
			if err != nil {
				return err
			}
			list, err := cache.List()
			if err != nil {
				return err
			}
			rows := make([]cachedImage, 0, len(list))
			for _, i := range list {
				rows = append(rows, imageRow(i))
			}
			if quiet {
				format = "{{.Name}}"
			}
			return term.Table(p.out, format, term.Columns{
				"Name": "NAME", "Digest": "DIGEST", "Checked": "CHECKED", "Size": "SIZE", "Machines": "MACHINES", "Added": "ADDED", "Source": "SOURCE",
			}, rows)
		},
	}
	cmd.Flags().StringVarP(&format, "format", "f", format, "Go template, or json")
	cmd.Flags().BoolVarP(&quiet, "quiet", "q", false, "Only the names")
	return cmd
}

func (p *program) imageCacheRmCmd() *cobra.Command {
	all := false
	cmd := &cobra.Command{
		Use: "rm [OPTIONS] IMAGE...", Short: "Remove images, and parts of downloads", ValidArgsFunction: p.completeImages,
		RunE: func(cmd *cobra.Command, names []string) error {
			if len(names) == 0 && !all || len(names) > 0 && all {
				return &usageError{errors.New("name the images, or say --all"), cmd.CommandPath()}
			}
			return p.removeImages(names, all)
		},
	}
	cmd.Flags().BoolVarP(&all, "all", "a", false, "Remove all that is there")
	return cmd
}

func (p *program) removeImages(names []string, all bool) error {
	cache, err := p.imageCache()
	if err != nil {
		return err
	}
	if all {
		list, err := cache.List()
		if err != nil {
			return err
		}
		for _, i := range list {
			names = append(names, i.Name)
		}
		names = unique(names)
	}
	var failed []error
	for _, name := range names {
		err := cache.Remove(name)
		failed = append(failed, err)
		if err == nil {
			p.say("Removed %s", name)
		}
	}
	return errors.Join(failed...)
}

func (p *program) imageCachePullCmd() *cobra.Command {
	progress := progressFlags{}
	checksum, arch, fresh := "", runtime.GOARCH, false
	cmd := &cobra.Command{
		Use: "pull [OPTIONS] [IMAGE...]", Short: "Download images ahead of their first use, or anew", ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, refs []string) error {
			if len(refs) == 0 {
				refs = []string{vmimage.Default}
			}
			style, err := progress.parse(p)
			if err != nil {
				return err
			}
			cache, err := p.imageCache()
			if err != nil {
				return err
			}
			return p.showing(style, refs, func(steps *term.Progress) error {
				for _, ref := range refs {
					err := pullImage(cmd, cache, ref, checksum, arch, fresh, steps)
					steps.Done(ref, err)
					if err != nil {
						return err
					}
				}
				return nil
			})
		},
	}
	cmd.Flags().StringVar(&checksum, "vm-image-checksum", "", "What the image must have: sha256:HEX, sha512:HEX, or the `URL` of its publisher's list")
	cmd.Flags().StringVar(&arch, "arch", arch, "Architecture: amd64 or arm64")
	cmd.Flags().BoolVar(&fresh, "newer", false, "Also if there is one: what a name stands for is newer from time to time")
	progress.define(cmd.Flags())
	return cmd
}

func pullImage(cmd *cobra.Command, cache *vmimage.Cache, ref, checksum, arch string, fresh bool, steps *term.Progress) error {
	source, err := vmimage.Find(ref, checksum, arch)
	if err != nil {
		return err
	}
	i, err := cache.Get(cmd.Context(), source, fresh, barred{steps, ref})
	if err == nil {
		steps.Line(ref, fmt.Sprintf("%s is there: %s, %s", i.Name, i.Digest.Short(), term.Bytes(i.Size)))
	}
	return err
}

// barred shows what vmimage does as the steps of one name.
type barred struct {
	*term.Progress
	name string
}

func (b barred) Line(text string)                   { b.Progress.Line(b.name, text) }
func (b barred) Bar(what string, done, total int64) { b.Progress.Bar(b.name, what, done, total) }

func (p *program) completeImages(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	if err := p.readEnvironment(); err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	cache, err := p.imageCache()
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	list, err := cache.List()
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	var names []string
	for _, i := range list {
		names = append(names, i.Name)
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}
