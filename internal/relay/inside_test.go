//go:build linux

package relay

import (
	"archive/tar"
	"bytes"
	"context"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestWhatWasLeftThereIsReplaced(t *testing.T) {
	for name, leave := range map[string]func(path string) error{
		"nothing": func(string) error { return nil },
		"a socket": func(path string) error {
			l, err := listen(path)
			return errors.Join(err, l.Close())
		},
		"a folder that an engine made": func(path string) error { return os.Mkdir(path, 0o755) },
		"a socket that was not in place": func(path string) error {
			l, err := listen(filepath.Join(filepath.Dir(path), ".new.sock"))
			return errors.Join(err, l.Close())
		},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "docker.sock")
			if err := leave(path); err != nil {
				t.Fatal(err)
			}
			l, err := listen(path)
			if err != nil {
				t.Fatal(err)
			}
			connect(t, path)
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
			if info, err := os.Stat(path); err != nil || info.Mode().Type() != os.ModeSocket {
				t.Errorf("what stays is %v %v, want the socket", info, err)
			}
		})
	}
}

func TestJoiningWhereNobodyHolds(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	near, far := net.Pipe()
	defer near.Close()
	if err := join(ctx, far, "@berth-relay-test-nobody"); err == nil || !strings.Contains(err.Error(), "connection refused") {
		t.Errorf("join: %v, want that nobody is there", err)
	}
	if _, err := near.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("the manager reads %v, want the end", err)
	}
}

func TestFrames(t *testing.T) {
	var b bytes.Buffer
	for _, part := range []struct {
		kind byte
		text string
	}{{stdoutPart, "one"}, {stderrPart, "trouble\n"}, {stdoutPart, ""}, {stdoutPart, "two"}, {stderrPart, strings.Repeat("x", 2*lastWords)}, {stdoutPart, "!"}} {
		head := make([]byte, frameHead)
		head[0] = part.kind
		binary.BigEndian.PutUint32(head[4:], uint32(len(part.text)))
		fmt.Fprintf(&b, "%s%s", head, part.text)
	}
	f := &frames{in: &b}
	hearEnd(t, f, "onetwo!")
	if said := f.said(); len(said) != lastWords || !strings.HasPrefix(said, "trouble\nxxx") {
		t.Errorf("it said %d bytes: %.20q", len(said), said)
	}
	if _, err := (&frames{in: strings.NewReader("\x09\x00\x00\x00\x00\x00\x00\x01x")}).Read(make([]byte, 1)); err == nil || errors.Is(err, io.EOF) {
		t.Errorf("a frame of an unknown kind: %v", err)
	}
}

// binaryFor writes the head of a program.
func binaryFor(t *testing.T, machine elf.Machine, parts ...elf.ProgType) string {
	t.Helper()
	h := elf.Header64{Type: uint16(elf.ET_EXEC), Machine: uint16(machine), Version: uint32(elf.EV_CURRENT), Phoff: 64, Ehsize: 64, Phentsize: 56, Phnum: uint16(len(parts))}
	copy(h.Ident[:], elf.ELFMAG)
	h.Ident[elf.EI_CLASS], h.Ident[elf.EI_DATA], h.Ident[elf.EI_VERSION] = byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB), byte(elf.EV_CURRENT)
	var b bytes.Buffer
	if err := binary.Write(&b, binary.LittleEndian, h); err != nil {
		t.Fatal(err)
	}
	for _, p := range parts {
		if err := binary.Write(&b, binary.LittleEndian, elf.Prog64{Type: uint32(p)}); err != nil {
			t.Fatal(err)
		}
	}
	path := filepath.Join(t.TempDir(), "berth")
	if err := os.WriteFile(path, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestPrograms(t *testing.T) {
	text := filepath.Join(t.TempDir(), "text")
	if err := os.WriteFile(text, []byte("#!/bin/sh\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct{ path, arch, err string }{
		"a static one":             {binaryFor(t, elf.EM_AARCH64, elf.PT_LOAD), "arm64", ""},
		"one that needs libraries": {binaryFor(t, elf.EM_X86_64, elf.PT_LOAD, elf.PT_INTERP), "", "CGO_ENABLED=0"},
		"one of an odd machine":    {binaryFor(t, elf.EM_68K, elf.PT_LOAD), "", "EM_68K"},
		"one that is none":         {text, "", "not for Linux"},
		"one that is not there":    {text + "x", "", "no such file"},
	} {
		t.Run(name, func(t *testing.T) {
			p, err := ReadProgram(tt.path)
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Errorf("ReadProgram: %v, want %s", err, tt.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if p.Arch != tt.arch || len(p.Sum) != 12 {
				t.Errorf("arch %s, sum %s; want %s", p.Arch, p.Sum, tt.arch)
			}
			same(t, p)
		})
	}
}

// same checks that the image has the program, and that its making can be given up.
func same(t *testing.T, p *Program) {
	t.Helper()
	want, err := os.ReadFile(p.path)
	if err != nil {
		t.Fatal(err)
	}
	tree, err := p.open()
	if err != nil {
		t.Fatal(err)
	}
	names := ""
	for r := tar.NewReader(tree); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		names += h.Name + " "
		if b, err := io.ReadAll(r); h.Typeflag == tar.TypeReg && !bytes.Equal(b, want) {
			t.Errorf("%s is not the program: %v", h.Name, err)
		}
	}
	if names != "relay/ berth " {
		t.Errorf("the image has %s", names)
	}
	if err := tree.Close(); err != nil {
		t.Error(err)
	}
	if tree, err = p.open(); err != nil {
		t.Fatal(err)
	}
	if err := tree.Close(); err != nil { // unread
		t.Error(err)
	}
}
