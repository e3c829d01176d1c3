package libvirt

import (
	"context"
	"encoding/binary"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	rpc "github.com/digitalocean/go-libvirt"

	"berth/internal/hostlock"
	"berth/internal/machine"
	"berth/internal/vmimage"
)

const (
	defaultPool = "default"
	baseStart   = "berth-image-" // of volumes that hold an image, which machines share
	wholeEnd    = ".whole"
)

// lock keeps other berths of this user's from libvirt's volumes and addresses meanwhile: what is free is found out first and taken after.
func lock(ctx context.Context) (unlock func(), err error) { return hostlock.Lock(ctx, "libvirt") }

// pool is the storage pool of that name. The one called default is made if it is not there, where libvirt's other tools make it.
func (c conn) pool(name string) (rpc.StoragePool, error) {
	p, err := c.StoragePoolLookupByName(name)
	switch {
	case missing(err) && name == defaultPool:
		if p, err = c.makePool(name); err != nil {
			return p, err
		}
	case missing(err):
		return p, fmt.Errorf("--%s %s: libvirt has no such pool", flagPool, name)
	case err != nil:
		return p, err
	}
	active, err := c.StoragePoolIsActive(p)
	if err == nil && active == 0 {
		err = c.StoragePoolCreate(p, rpc.StoragePoolCreateWithBuild)
	}
	return p, err
}

func (c conn) makePool(name string) (rpc.StoragePool, error) {
	dir := "/var/lib/libvirt/images"
	if c.session {
		data := os.Getenv("XDG_DATA_HOME")
		if data == "" {
			home, err := os.UserHomeDir()
			if err != nil {
				return rpc.StoragePool{}, err
			}
			data = filepath.Join(home, ".local", "share")
		}
		dir = filepath.Join(data, "libvirt", "images")
	}
	p, err := c.StoragePoolDefineXML(fmt.Sprintf("<pool type='dir'><name>%s</name><target><path>%s</path></target></pool>", quote(name), quote(dir)), 0)
	if err != nil {
		return p, err
	}
	return p, c.StoragePoolSetAutostart(p, 1)
}

// baseName is what an image's volume is called.
func baseName(d vmimage.Digest) string {
	const digits = 32
	_, sum, _ := strings.Cut(string(d), ":")
	return fmt.Sprintf("%s%.*s", baseStart, digits, sum)
}

// makeVolumes has the image, a disk on top of it and the seed in the pool.
func (c conn) makeVolumes(ctx context.Context, spec machine.Spec, v vm, i machine.Instance) error {
	pool, err := c.pool(v.Pool)
	if err != nil {
		return err
	}
	format, size, err := inspect(file(i, imageFile))
	if err != nil {
		return fmt.Errorf("image %s: %w", v.Image, err)
	}
	if want := uint64(v.DiskSize) << 20; want < size { //nolint:gosec // positive
		return fmt.Errorf("--%s %d: the image %s alone has %d MB", flagDisk, v.DiskSize, v.Image, (size+1<<20-1)>>20)
	}
	path, err := c.base(ctx, spec, pool, v.Base, format, size, file(i, imageFile))
	if err != nil {
		return err
	}
	text := fmt.Sprintf("<volume><name>%s</name><capacity unit='MiB'>%d</capacity><target><format type='qcow2'/></target>"+
		"<backingStore><path>%s</path><format type='%s'/></backingStore></volume>", v.diskName(), v.DiskSize, quote(path), format)
	if _, err := c.StorageVolCreateXML(pool, text, 0); err != nil {
		return err
	}
	info, err := os.Stat(file(i, seedFile))
	if err != nil {
		return err
	}
	_, err = c.upload(ctx, spec, pool, v.seedName(), "raw", uint64(info.Size()), file(i, seedFile)) //nolint:gosec // positive
	return err
}

// base has the image in the pool, and returns where. A mark beside it says that all of it came: one without is of an upload that broke off.
func (c conn) base(ctx context.Context, spec machine.Spec, pool rpc.StoragePool, name, format string, size uint64, path string) (string, error) {
	_, err := c.StorageVolLookupByName(pool, name+wholeEnd)
	if err != nil && !missing(err) {
		return "", err
	}
	whole := err == nil
	vol, err := c.StorageVolLookupByName(pool, name)
	if err == nil && !whole {
		if err := c.StorageVolDelete(vol, 0); err != nil {
			return "", err
		}
	}
	if missing(err) || !whole {
		if vol, err = c.upload(ctx, spec, pool, name, format, size, path); err == nil {
			err = c.mark(pool, name)
		}
	}
	if err != nil {
		return "", err
	}
	return c.StorageVolGetPath(vol)
}

func (c conn) mark(pool rpc.StoragePool, name string) error {
	text := fmt.Sprintf("<volume><name>%s</name><capacity>1</capacity><target><format type='raw'/></target></volume>", quote(name+wholeEnd))
	if _, err := c.StorageVolLookupByName(pool, name+wholeEnd); err == nil {
		return nil
	}
	_, err := c.StorageVolCreateXML(pool, text, 0)
	return err
}

// upload makes a volume of a file. One that broke off is removed: it would be taken for the whole.
func (c conn) upload(ctx context.Context, spec machine.Spec, pool rpc.StoragePool, name, format string, size uint64, path string) (rpc.StorageVol, error) {
	f, err := os.Open(path)
	if err != nil {
		return rpc.StorageVol{}, err
	}
	defer f.Close() //nolint:errcheck // read only
	info, err := f.Stat()
	if err != nil {
		return rpc.StorageVol{}, err
	}
	text := fmt.Sprintf("<volume><name>%s</name><capacity>%d</capacity><allocation>0</allocation><target><format type='%s'/></target></volume>", quote(name), size, format)
	vol, err := c.StorageVolCreateXML(pool, text, 0)
	if err != nil {
		return vol, err
	}
	r := &watched{in: f, moved: func(done int64) { spec.Bar("Copying the image to libvirt", done, info.Size()) }, ctx: ctx.Err}
	err = c.StorageVolUpload(vol, r, 0, 0, 0)
	if err == nil && r.done != info.Size() {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return vol, errors.Join(fmt.Errorf("copy %s to libvirt: %w", filepath.Base(path), err), c.deleteLater(pool, name))
	}
	return vol, nil
}

func (c conn) deleteLater(pool rpc.StoragePool, name string) error {
	vol, err := c.StorageVolLookupByName(pool, name)
	if err == nil {
		err = c.StorageVolDelete(vol, 0)
	}
	return unlessMissing(err)
}

// watched tells how far a reader has come, and ends with its context.
type watched struct {
	in    io.Reader
	moved func(done int64)
	done  int64
	ctx   func() error
}

func (w *watched) Read(p []byte) (int, error) {
	if err := w.ctx(); err != nil {
		return 0, err
	}
	n, err := w.in.Read(p)
	if w.done += int64(n); n > 0 {
		w.moved(w.done)
	}
	return n, err
}

// removeVolumes removes the machine's, and its image's if no other machine is on top of that.
func (c conn) removeVolumes(v vm) error {
	pool, err := c.StoragePoolLookupByName(v.Pool)
	if err != nil {
		return unlessMissing(err)
	}
	if active, err := c.StoragePoolIsActive(pool); err != nil || active == 0 {
		return errors.Join(err, errors.New("its storage pool "+v.Pool+" is not active: virsh pool-start "+v.Pool))
	}
	err = errors.Join(c.deleteLater(pool, v.diskName()), c.deleteLater(pool, v.seedName()))
	if err != nil {
		return err
	}
	return c.dropImages(pool)
}

// dropImages removes the images that no machine is on top of.
func (c conn) dropImages(pool rpc.StoragePool) error {
	all, _, err := c.StoragePoolListAllVolumes(pool, 1, 0)
	if err != nil {
		return err
	}
	used := map[string]bool{}
	var bases []rpc.StorageVol
	for _, vol := range all {
		if strings.HasPrefix(vol.Name, baseStart) {
			bases = append(bases, vol)
			continue
		}
		text, err := c.StorageVolGetXMLDesc(vol, 0)
		if missing(err) {
			continue // meanwhile
		}
		if err != nil {
			return err
		}
		var d struct {
			Backing string `xml:"backingStore>path"`
		}
		if err := xml.Unmarshal([]byte(text), &d); err != nil {
			return err
		}
		used[filepath.Base(d.Backing)] = true
	}
	for _, vol := range bases {
		if !used[strings.TrimSuffix(vol.Name, wholeEnd)] {
			err = errors.Join(err, unlessMissing(c.StorageVolDelete(vol, 0)))
		}
	}
	return err
}

// inspect tells an image's format and how big its disk is, from its head. Nothing that the image says leads to another file.
func inspect(path string) (format string, size uint64, err error) {
	f, err := os.Open(path)
	if err != nil {
		return "", 0, err
	}
	defer f.Close() //nolint:errcheck // read only
	info, err := f.Stat()
	if err != nil {
		return "", 0, err
	}
	head := make([]byte, 104)
	n, err := f.ReadAt(head, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return "", 0, err
	}
	const magic, externalData = "QFI\xfb", 1 << 2
	switch {
	case n == 0:
		return "", 0, errors.New("it is empty")
	case !strings.HasPrefix(string(head), magic):
		for foreign, format := range map[string]string{"KDMV": "VMDK", "<<< ": "VDI", "vhdxfile": "VHDX", "conectix": "VHD", "\x1f\x8b": "gzip", "\xfd7zXZ": "xz"} {
			if strings.HasPrefix(string(head), foreign) {
				return "", 0, fmt.Errorf("it has the format %s: qcow2 and raw disks can be booted", format)
			}
		}
		return "raw", uint64(info.Size()), nil //nolint:gosec // positive
	case n < len(head):
		return "", 0, errors.New("it is cut")
	case binary.BigEndian.Uint64(head[8:]) != 0:
		return "", 0, errors.New("it is only a part, and leads to another file")
	case binary.BigEndian.Uint32(head[4:]) >= 3 && binary.BigEndian.Uint64(head[72:])&externalData != 0:
		return "", 0, errors.New("its data are in another file")
	}
	return "qcow2", binary.BigEndian.Uint64(head[24:]), nil
}

// room refuses to begin what would fill the pool.
func (c conn) room(set settings, pool rpc.StoragePool, size int64) error {
	const first = 1 << 30 // a machine's first files
	_, _, _, free, err := c.StoragePoolGetInfo(pool)
	if err != nil {
		return err
	}
	if need := uint64(max(size, 0)) + first; free < need { //nolint:gosec // positive
		return fmt.Errorf("storage pool %s has %d MB free, and the image and the machine's first files need %d", set.Pool, free>>20, need>>20)
	}
	return nil
}
