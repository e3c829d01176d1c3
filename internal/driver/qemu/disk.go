package qemu

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"berth/internal/machine"
)

// toolTime bounds a run of qemu-img, which writes little.
const toolTime = time.Minute

// makeDisks puts the machine's disk on top of its image, and makes its further ones.
func makeDisks(ctx context.Context, i machine.Instance, v vm) error {
	format, size, err := inspect(ctx, file(i, imageFile))
	if err != nil {
		return err
	}
	want := int64(v.DiskSize) << 20
	if want < size {
		return fmt.Errorf("--%s %d: the image %s alone has %d MB", flagDisk, v.DiskSize, v.Image, (size+1<<20-1)>>20)
	}
	// The image is beside the disk and named without its folder, so that the store can be moved.
	if err := imageTool(ctx, i.Dir, nil, "create", "-q", "-f", "qcow2", "-F", format, "-b", imageFile, diskFile, strconv.FormatInt(want, 10)); err != nil {
		return err
	}
	for n, mb := range v.ExtraDisk {
		if err := imageTool(ctx, i.Dir, nil, "create", "-q", "-f", "qcow2", fmt.Sprintf(extraFile, n+1), strconv.FormatInt(int64(mb)<<20, 10)); err != nil {
			return err
		}
	}
	return nil
}

// inspect tells an image's format and how big its disk is. Nothing that the image itself says leads to another file.
func inspect(ctx context.Context, path string) (format string, size int64, err error) {
	var out bytes.Buffer
	if err := imageTool(ctx, "", &out, "info", "--output=json", path); err != nil {
		return "", 0, err
	}
	var info struct {
		Format  string
		Size    int64  `json:"virtual-size"`
		Backing string `json:"backing-filename"`
		Data    struct {
			Data struct {
				File string `json:"data-file"`
			}
		} `json:"format-specific"`
	}
	if err := json.Unmarshal(out.Bytes(), &info); err != nil {
		return "", 0, fmt.Errorf("qemu-img info: %w", err)
	}
	switch {
	case info.Backing != "" || info.Data.Data.File != "":
		return "", 0, fmt.Errorf("the image is only a part: it leads to %s", info.Backing+info.Data.Data.File)
	case info.Format != "qcow2" && info.Format != "raw" && info.Format != "vmdk" && info.Format != "vhdx" && info.Format != "vpc":
		return "", 0, fmt.Errorf("the image has the format %s, which is none to boot", info.Format)
	}
	return info.Format, info.Size, nil
}

// imageTool runs qemu-img in a folder.
func imageTool(ctx context.Context, dir string, out *bytes.Buffer, args ...string) error {
	program, err := findImageTool()
	if err != nil {
		return err
	}
	limited, cancel := context.WithTimeout(ctx, toolTime)
	defer cancel()
	cmd := exec.CommandContext(limited, program, args...)
	var complaints bytes.Buffer
	cmd.Dir, cmd.Stderr = dir, &complaints
	if out != nil {
		cmd.Stdout = out
	}
	err = cmd.Run()
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case err != nil:
		return fmt.Errorf("qemu-img %s: %w: %s", args[0], err, strings.TrimSpace(complaints.String()))
	}
	return nil
}
