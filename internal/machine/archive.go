package machine

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// archiveFormat is the version of the archives that Export writes: a gzipped tar of
//
//	berth.json          what it is: archiveNote
//	config.json         the machine's record, as it was
//	machine/NAME        files of the machine's folder: keys, certificates, whatever its driver keeps there
//	authority/ca-key.pem the authority's key, if that was asked for
const archiveFormat = 1

const (
	archiveNoteName   = "berth.json"
	archiveRecordName = "config.json"
	archiveFiles      = "machine"
	authorityKey      = "ca-key.pem" // also in the folder of a machine that was imported with it
	archiveCAKey      = "authority/" + authorityKey
)

// What an archive may hold: records and keys are small. Disk images stay where they are.
const (
	maxArchiveFile  = 1 << 20
	maxArchiveTotal = 64 << 20
	maxArchiveFiles = 1000
)

// archiveNote says what an archive is, and where its machine was, for the paths in its record.
type archiveNote struct {
	Format  int
	Name    string
	Store   string // the folder of the store
	Machine string // that of the machine
}

// ErrNoAuthorityKey says that the authority's key was asked for and is not here.
var ErrNoAuthorityKey = errors.New("the key of its certificate authority is not on this computer")

// Export writes what the store holds of the machine as an archive that Import reads, here or on another computer. left are the things
// that are not in it. The authority's key lets its owner into all machines of the store, and goes along only if asked for.
func Export(s *Store, m *Machine, out io.Writer, withCAKey bool) (left []string, err error) {
	if m.Unfinished != "" {
		return nil, fmt.Errorf("export %s: %w", m.Name, m.unfinished())
	}
	files, left, err := s.archiveFiles(m)
	if err != nil {
		return nil, fmt.Errorf("export %s: %w", m.Name, err)
	}
	if withCAKey {
		key, err := os.ReadFile(m.Auth.CaPrivateKeyPath)
		if errors.Is(err, fs.ErrNotExist) {
			err = ErrNoAuthorityKey
		}
		if err != nil {
			return nil, fmt.Errorf("export %s: %w", m.Name, err)
		}
		files = append(files, archived{archiveCAKey, key})
	}
	if key := m.Instance.SSHKeyPath; key != "" && filepath.Dir(key) != s.MachineDir(m.Name) && !hasFile(files, path.Join(archiveFiles, filepath.Base(key))) {
		left = append(left, "the SSH key "+key+", which is not in its folder")
	}
	if err := writeArchive(out, files); err != nil {
		return nil, fmt.Errorf("export %s: %w", m.Name, err)
	}
	return left, nil
}

// archived is one file of an archive.
type archived struct {
	name string
	data []byte
}

func hasFile(files []archived, name string) bool {
	return slices.ContainsFunc(files, func(f archived) bool { return f.name == name })
}

// archiveFiles are the files of an archive but for the authority's key.
func (s *Store) archiveFiles(m *Machine) (files []archived, left []string, err error) {
	note, err := json.Marshal(archiveNote{archiveFormat, m.Name, s.dir, s.MachineDir(m.Name)})
	if err != nil {
		return nil, nil, err
	}
	record, err := m.encode(s.dir)
	if err != nil {
		return nil, nil, err
	}
	files = []archived{{archiveNoteName, note}, {archiveRecordName, record}}
	entries, err := os.ReadDir(s.MachineDir(m.Name))
	if err != nil {
		return nil, nil, err
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".") || strings.HasPrefix(e.Name(), archiveRecordName) || e.Name() == authorityKey {
			continue // locks, the record, and what is to be asked for
		}
		info, err := e.Info()
		if err != nil {
			return nil, nil, err
		}
		if !info.Mode().IsRegular() || info.Size() > maxArchiveFile {
			left = append(left, e.Name())
			continue
		}
		data, err := os.ReadFile(filepath.Join(s.MachineDir(m.Name), e.Name()))
		if err != nil {
			return nil, nil, err
		}
		files = append(files, archived{path.Join(archiveFiles, e.Name()), data})
	}
	if !m.UsesTLS() || hasFile(files, archiveFiles+"/cert.pem") {
		return files, left, nil
	}
	ca, crt, key, err := s.ReadClientFiles(m) // where docker-machine made no copies
	if err != nil {
		return nil, nil, err
	}
	for name, data := range map[string][]byte{"ca.pem": ca, "cert.pem": crt, "key.pem": key} {
		files = append(files, archived{path.Join(archiveFiles, name), data})
	}
	return files, left, nil
}

func writeArchive(out io.Writer, files []archived) error {
	zip := gzip.NewWriter(out)
	t := tar.NewWriter(zip)
	for _, f := range files {
		h := &tar.Header{Typeflag: tar.TypeReg, Name: f.name, Mode: 0o600, Size: int64(len(f.data))}
		if err := t.WriteHeader(h); err != nil {
			return err
		}
		if _, err := t.Write(f.data); err != nil {
			return err
		}
	}
	return errors.Join(t.Close(), zip.Close())
}

// Archive is a machine that Export wrote.
type Archive struct {
	Name       string // that the machine had
	DriverName string
	Whole      bool // its Driver object is the driver's alone, with the name in it

	note   archiveNote
	record []byte
	files  map[string][]byte // of the machine's folder, by name
	caKey  []byte
}

// ReadArchive reads an archive and looks it over, before anything of it is put anywhere.
func ReadArchive(in io.Reader) (*Archive, error) {
	a, err := readArchive(in)
	if err != nil {
		return nil, fmt.Errorf("archive: %w", err)
	}
	return a, nil
}

func readArchive(in io.Reader) (*Archive, error) {
	zip, err := gzip.NewReader(in)
	if err != nil {
		return nil, fmt.Errorf("it is none that berth export wrote: %w", err)
	}
	a := &Archive{files: map[string][]byte{}}
	all := &io.LimitedReader{R: zip, N: maxArchiveTotal}
	t := tar.NewReader(all)
	for n := 0; ; n++ {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, tooMuch(all, err)
		}
		if n >= maxArchiveFiles {
			return nil, fmt.Errorf("it holds more than %d files", maxArchiveFiles)
		}
		data, err := io.ReadAll(t)
		if err != nil {
			return nil, tooMuch(all, err)
		}
		if err := a.take(h, data); err != nil {
			return nil, err
		}
	}
	if a.note.Name == "" || a.record == nil {
		return nil, fmt.Errorf("it is none that berth export wrote: it lacks %s or %s", archiveNoteName, archiveRecordName)
	}
	m, err := parse(a.note.Name, a.note.Machine, a.record)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", archiveRecordName, err)
	}
	a.Name, a.DriverName, a.Whole = a.note.Name, m.DriverName, m.Instance.Whole
	return a, nil
}

// tooMuch explains an archive that was cut off because of its size.
func tooMuch(all *io.LimitedReader, err error) error {
	if all.N <= 0 {
		return fmt.Errorf("it unpacks to more than %d MiB", maxArchiveTotal>>20)
	}
	return err
}

// take sorts one file in. No name that it has leads out of a folder, and nothing but files is taken.
func (a *Archive) take(h *tar.Header, data []byte) error {
	switch name := strings.TrimPrefix(h.Name, "./"); {
	case h.Typeflag == tar.TypeDir:
		return nil // made again by whoever packed it anew
	case h.Typeflag != tar.TypeReg:
		return fmt.Errorf("%q is no plain file", shorten(h.Name))
	case name == archiveNoteName:
		if err := json.Unmarshal(data, &a.note); err != nil {
			return fmt.Errorf("%s: %w", archiveNoteName, err)
		}
		if a.note.Format > archiveFormat {
			return fmt.Errorf("a newer berth wrote it, in format %d; this one knows up to %d", a.note.Format, archiveFormat)
		}
		return CheckName(a.note.Name)
	case name == archiveRecordName:
		a.record = bytes.Clone(data)
		return nil
	case name == archiveCAKey:
		a.caKey = bytes.Clone(data)
		return nil
	default:
		dir, base := path.Split(name)
		if dir != archiveFiles+"/" || !inStore(base) || base == authorityKey || strings.HasPrefix(base, archiveRecordName) {
			return fmt.Errorf("%q has no place in the archive of a machine", shorten(h.Name))
		}
		a.files[base] = bytes.Clone(data)
		return nil
	}
}
