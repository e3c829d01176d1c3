package virtualbox

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"

	qcow2reader "github.com/lima-vm/go-qcow2reader"
	"github.com/lima-vm/go-qcow2reader/image"
	"github.com/lima-vm/go-qcow2reader/image/qcow2"

	"berth/internal/machine"
)

// makeDisk makes the machine's disk of its image, which VirtualBox cannot read itself: publishers compress theirs. So berth reads it, and
// VBoxManage writes what comes out, without a file in between. It leaves out what is nothing but zeros.
func makeDisk(ctx context.Context, m manager, spec machine.Spec, set settings, i machine.Instance) (err error) {
	f, err := os.Open(file(i, imageFile))
	if err != nil {
		return err
	}
	defer f.Close() //nolint:errcheck // read only
	in, size, err := openImage(f)
	if err != nil {
		return fmt.Errorf("image %s: %w", set.image.Name, err)
	}
	want := int64(set.DiskSize) << 20
	if want < size {
		return fmt.Errorf("--%s %d: the image %s alone has %d MB", flagDisk, set.DiskSize, set.image.Name, (size+1<<20-1)>>20)
	}
	bar := func(done int64) { spec.Bar("Creating the disk", done, size) }
	r := &watched{in: io.NewSectionReader(in, 0, size), moved: bar}
	_, err = m.work(ctx, r, "convertfromraw", "stdin", file(i, diskFile), strconv.FormatInt(want, 10), "--format", "VMDK")
	if r.err != nil && ctx.Err() == nil { // VBoxManage takes the end of what comes for the end of the image
		return fmt.Errorf("read image %s: %w", set.image.Name, r.err)
	}
	return err
}

// openImage reads a qcow2 or a raw image. Nothing that an image says leads to another file.
func openImage(f *os.File) (io.ReaderAt, int64, error) {
	img, err := qcow2reader.OpenWithType(nameless{f}, qcow2.Type)
	if errors.Is(err, image.ErrWrongType) {
		return openRaw(f)
	}
	if err != nil {
		return nil, 0, err
	}
	if q, ok := img.(*qcow2.Qcow2); ok && (q.BackingFile != "" || q.BackingFileOffset != 0) {
		return nil, 0, fmt.Errorf("it is only a part, and leads to %s", q.BackingFile)
	}
	if err := img.Readable(); err != nil {
		return nil, 0, err
	}
	return img, img.Size(), nil
}

// nameless hides the file's name, by which an image's other parts would be found.
type nameless struct{ io.ReaderAt }

// others are what foreign formats begin with.
var others = map[string]string{"KDMV": "VMDK", "# Disk DescriptorFile": "VMDK", "<<< ": "VDI", "vhdxfile": "VHDX", "conectix": "VHD", "\x1f\x8b": "gzip", "\xfd7zXZ": "xz"}

func openRaw(f *os.File) (io.ReaderAt, int64, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, 0, err
	}
	head := make([]byte, 64)
	n, err := f.ReadAt(head, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, 0, err
	}
	for magic, format := range others {
		if n >= len(magic) && string(head[:len(magic)]) == magic {
			return nil, 0, fmt.Errorf("it has the format %s: qcow2 and raw disks can be booted", format)
		}
	}
	if n == 0 {
		return nil, 0, errors.New("it is empty")
	}
	return f, info.Size(), nil
}

// watched tells how far a reader has come, and remembers what was wrong with it.
type watched struct {
	in    io.Reader
	moved func(done int64)
	done  int64
	err   error
}

func (w *watched) Read(p []byte) (int, error) {
	n, err := w.in.Read(p)
	if w.done += int64(n); n > 0 {
		w.moved(w.done)
	}
	if err != nil && !errors.Is(err, io.EOF) {
		w.err = err
	}
	return n, err
}
