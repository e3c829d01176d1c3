// Package vmimage keeps the disk images that virtual machines start from: the distributions' cloud images by name, or any other by
// its URL or file. An image is downloaded once, checked against what its publisher says, and then shared.
//
// A machine gets an image as a file of its own, by a hard link where the file system has such: the cache may be emptied at any time
// without harm to a machine, and the disk space is free once nobody uses the image any more. The package knows no hypervisor; what
// is put on top of an image, and in which format, is a driver's business.
package vmimage

import (
	"cmp"
	"fmt"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// Default is the image of a machine that asks for no other.
const Default = "debian-13"

// Source is where an image comes from.
type Source struct {
	Name string // as it was asked for, or the file's name
	URL  string // https, http or file
	Sums string // URL of its publisher's checksums; "" for none
	// Digest is what the image must have, if it was said. It wins over Sums.
	Digest Digest
	// User is who the image lets in; "" for whom cloud-init is told to make.
	User string
	// ConfigDrive says that the image reads its first settings from a config drive, not from NoCloud's.
	ConfigDrive bool
}

// stock is an image of the catalogue. In its URLs, {arch} stands for the architecture as its publisher calls it, {firmware} for the
// firmware it boots with.
type stock struct {
	name, about string
	url         string
	sums        string            // beside the URL
	arch        map[string]string // by Go's name
	firmware    map[string]string // by Go's name; nil where one image is for all
	user        string
	configDrive bool
}

var (
	debianArch = map[string]string{"amd64": "amd64", "arm64": "arm64"}
	rpmArch    = map[string]string{"amd64": "x86_64", "arm64": "aarch64"}
)

// catalogue is by name. A name that holds no point release stands for the newest of its line.
var catalogue = []stock{
	{
		name: "debian-13", about: "Debian 13, the kernel for clouds",
		url:  "https://cloud.debian.org/images/cloud/trixie/latest/debian-13-genericcloud-{arch}.qcow2",
		sums: "SHA512SUMS", arch: debianArch,
	},
	{
		name: "debian-13-generic", about: "Debian 13, the kernel with all modules (9p)",
		url:  "https://cloud.debian.org/images/cloud/trixie/latest/debian-13-generic-{arch}.qcow2",
		sums: "SHA512SUMS", arch: debianArch,
	},
	{
		name: "debian-12", about: "Debian 12, the kernel for clouds",
		url:  "https://cloud.debian.org/images/cloud/bookworm/latest/debian-12-genericcloud-{arch}.qcow2",
		sums: "SHA512SUMS", arch: debianArch,
	},
	{
		name: "ubuntu-24.04", about: "Ubuntu 24.04 LTS server",
		url:  "https://cloud-images.ubuntu.com/releases/noble/release/ubuntu-24.04-server-cloudimg-{arch}.img",
		sums: "SHA256SUMS", arch: debianArch,
	},
	{
		name: "fedora-44", about: "Fedora 44 Cloud Base",
		url:  "https://download.fedoraproject.org/pub/fedora/linux/releases/44/Cloud/{arch}/images/Fedora-Cloud-Base-Generic-44-1.7.{arch}.qcow2",
		sums: "Fedora-Cloud-44-1.7-{arch}-CHECKSUM", arch: rpmArch,
	},
	{
		name: "alpine-3.24", about: "Alpine 3.24",
		url:  "https://dl-cdn.alpinelinux.org/alpine/v3.24/releases/cloud/generic_alpine-3.24.1-{arch}-{firmware}-cloudinit-r0.qcow2",
		sums: "generic_alpine-3.24.1-{arch}-{firmware}-cloudinit-r0.qcow2.sha512", arch: rpmArch,
		firmware: map[string]string{"amd64": "bios", "arm64": "uefi"},
	},
	{
		name: "flatcar", about: "Flatcar stable, with its own engine",
		url:  "https://stable.release.flatcar-linux.net/{arch}-usr/current/flatcar_production_qemu_image.img",
		sums: "flatcar_production_qemu_image.img.DIGESTS", arch: debianArch,
		user: "core", configDrive: true,
	},
}

// aliases are what people call images, too.
var aliases = map[string]string{
	"debian": "debian-13", "trixie": "debian-13", "bookworm": "debian-12", "ubuntu": "ubuntu-24.04", "noble": "ubuntu-24.04",
	"fedora": "fedora-44", "alpine": "alpine-3.24",
}

// Names lists the catalogue, for people: a name and what it is.
func Names() [][2]string {
	var out [][2]string
	for _, s := range catalogue {
		out = append(out, [2]string{s.name, s.about})
	}
	return out
}

// Find understands what a user asked for: a name of the catalogue, a URL, or a file. arch is Go's name of the machine's
// architecture. checksum is a pinned digest, as ALGORITHM:HEX, or the URL of a list of checksums, or "".
func Find(ref, checksum, arch string) (Source, error) {
	ref = cmp.Or(ref, Default)
	s, err := locate(ref, arch)
	if err != nil {
		return Source{}, err
	}
	switch {
	case checksum == "":
	case strings.Contains(checksum, "://"):
		s.Sums = checksum
	default:
		if s.Digest, err = ParseDigest(checksum); err != nil {
			return Source{}, err
		}
	}
	return s, nil
}

func locate(ref, arch string) (Source, error) {
	name := cmp.Or(aliases[ref], ref)
	if i := slices.IndexFunc(catalogue, func(s stock) bool { return s.name == name }); i >= 0 {
		return catalogue[i].source(arch)
	}
	if scheme, _, ok := strings.Cut(ref, "://"); ok {
		u, err := url.Parse(ref)
		if err != nil || scheme != "file" && u.Host == "" || !slices.Contains([]string{"http", "https", "file"}, scheme) || u.Path == "" {
			return Source{}, fmt.Errorf("image %q: want a name, a file, or a URL with http, https or file", ref)
		}
		return Source{Name: path.Base(u.Path), URL: ref}, nil
	}
	file, err := filepath.Abs(ref)
	if err != nil {
		return Source{}, fmt.Errorf("image %q: %w", ref, err)
	}
	info, err := os.Stat(file)
	if err != nil {
		var known []string
		for _, s := range catalogue {
			known = append(known, s.name)
		}
		return Source{}, fmt.Errorf("image %q: it is neither a file (%w) nor one of %s", ref, err, strings.Join(known, ", "))
	}
	if !info.Mode().IsRegular() {
		return Source{}, fmt.Errorf("image %q: it is no file", ref)
	}
	return Source{Name: filepath.Base(file), URL: fileURL(file)}, nil
}

func (s stock) source(arch string) (Source, error) {
	theirs, ok := s.arch[arch]
	if !ok {
		return Source{}, fmt.Errorf("image %s: there is none for %s", s.name, arch)
	}
	fill := strings.NewReplacer("{arch}", theirs, "{firmware}", s.firmware[arch])
	image := fill.Replace(s.url)
	return Source{
		Name: s.name, URL: image, Sums: image[:strings.LastIndex(image, "/")+1] + fill.Replace(s.sums),
		User: s.user, ConfigDrive: s.configDrive,
	}, nil
}

func fileURL(file string) string {
	slashed := filepath.ToSlash(file)
	if !strings.HasPrefix(slashed, "/") { // C:/…
		slashed = "/" + slashed
	}
	return (&url.URL{Scheme: "file", Path: slashed}).String()
}

// file is the path of a file URL; "" for any other.
func (s Source) file() string {
	u, err := url.Parse(s.URL)
	if err != nil || u.Scheme != "file" {
		return ""
	}
	p := u.Path
	if len(p) > 2 && p[0] == '/' && p[2] == ':' { // /C:/…
		p = p[1:]
	}
	return filepath.FromSlash(p)
}
