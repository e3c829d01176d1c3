package relay

import (
	"archive/tar"
	"crypto/sha256"
	"debug/elf"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
)

// Command is the word that makes berth the program in a relay.
const Command = "relay"

// Program is the berth binary, which is all that a relay's image holds.
type Program struct {
	path string
	size int64
	Sum  string // the beginning of its checksum
	Arch string // in Docker's words
}

// ReadProgram looks at the binary that relays are to be made of. It must be one for Linux that needs no other files.
func ReadProgram(path string) (*Program, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("relay: %w", err)
	}
	defer f.Close()
	p := &Program{path: path}
	if p.Arch, err = static(f); err != nil {
		return nil, fmt.Errorf("relay: %s: %w", path, err)
	}
	h := sha256.New()
	if p.size, err = io.Copy(h, f); err != nil {
		return nil, fmt.Errorf("relay: %w", err)
	}
	p.Sum = hex.EncodeToString(h.Sum(nil))[:12]
	return p, nil
}

// machines are the architectures of binaries, as Docker calls them.
var machines = map[elf.Machine]string{
	elf.EM_X86_64: "amd64", elf.EM_AARCH64: "arm64", elf.EM_386: "386", elf.EM_ARM: "arm", elf.EM_RISCV: "riscv64",
	elf.EM_S390: "s390x", elf.EM_PPC64: "ppc64le", elf.EM_LOONGARCH: "loong64",
}

// static returns the architecture of a binary that needs no dynamic linker.
func static(f io.ReaderAt) (arch string, err error) {
	e, err := elf.NewFile(f)
	if err != nil {
		return "", fmt.Errorf("relays are made of the berth binary, and this one is not for Linux: %w", err)
	}
	for _, p := range e.Progs {
		if p.Type == elf.PT_INTERP {
			return "", errors.New("relays are made of the berth binary alone, and this one needs libraries: build it with CGO_ENABLED=0")
		}
	}
	arch, ok := machines[e.Machine]
	if !ok {
		return "", fmt.Errorf("relays cannot be made for %s", e.Machine)
	}
	return arch, nil
}

// open returns the image's file system, an archive that is made while it is read. Reading it needs no memory; Close ends it.
func (p *Program) open() (io.ReadCloser, error) {
	f, err := os.Open(p.path)
	if err != nil {
		return nil, err
	}
	r, w := io.Pipe()
	done := make(chan struct{})
	go func() { // ends with the reader, at the latest
		defer close(done)
		w.CloseWithError(errors.Join(p.pack(w, f), f.Close())) //nolint:errcheck // it returns nil
	}()
	return &packing{r, done}, nil
}

// packing is an archive in the making.
type packing struct {
	*io.PipeReader
	done <-chan struct{}
}

// Close waits until nothing is made any more.
func (p *packing) Close() error {
	err := p.PipeReader.Close()
	<-p.done
	return err
}

func (p *Program) pack(w io.Writer, binary io.Reader) error {
	t := tar.NewWriter(w)
	for _, h := range []*tar.Header{
		{Typeflag: tar.TypeDir, Name: folder[1:] + "/", Mode: 0o700},
		{Typeflag: tar.TypeReg, Name: program[1:], Mode: 0o755, Size: p.size},
	} {
		if err := t.WriteHeader(h); err != nil {
			return err
		}
	}
	if _, err := io.Copy(t, binary); err != nil {
		return err
	}
	return t.Close()
}
