package machine_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"berth/internal/machine"
)

// exported is what Export writes of a machine.
func exported(t *testing.T, s *machine.Store, m *machine.Machine, withCAKey bool) []byte {
	t.Helper()
	var b bytes.Buffer
	if _, err := machine.Export(s, m, &b, withCAKey); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func mustImport(t *testing.T, s *machine.Store, archive []byte, name string) *machine.Machine {
	t.Helper()
	a, err := machine.ReadArchive(bytes.NewReader(archive))
	if err != nil {
		t.Fatal(err)
	}
	if err := machine.Import(s, a, name); err != nil {
		t.Fatal(err)
	}
	return mustLoad(t, s, name)
}

func writeFile(t *testing.T, path, data string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(data), 0o600); err != nil {
		t.Fatal(err)
	}
}

// On another computer the client works, and everything about the machine is in that computer's store.
func TestAMachineMovesToAnotherStore(t *testing.T) {
	here, there, p := open(t), open(t), newProvider(t)
	m := mustCreate(t, here, p, "web1")
	dir := here.MachineDir("web1")
	writeFile(t, filepath.Join(dir, "id_rsa"), "the key")
	writeFile(t, filepath.Join(dir, "known_hosts"), "the host")
	m.Instance.SSHKeyPath = filepath.Join(dir, "id_rsa")
	m.Instance.Raw = json.RawMessage(fmt.Sprintf(`{"Serial":9007199254740993,"Files":[%q],"Cache":%q,"Other":"/etc/hosts"}`,
		filepath.Join(dir, "known_hosts"), filepath.Join(here.Dir(), "cache")))
	if err := here.Save(m); err != nil {
		t.Fatal(err)
	}
	archive := exported(t, here, m, false)
	if err := os.RemoveAll(here.Dir()); err != nil { // nothing of it is needed any more
		t.Fatal(err)
	}
	mustCreate(t, there, p, "own") // that store has an authority of its own
	got := mustImport(t, there, archive, "web1")
	if _, err := there.AskEngine(t.Context(), got); err != nil {
		t.Errorf("the client there: %v", err)
	}
	dir = there.MachineDir("web1")
	if got.Instance.SSHKeyPath != filepath.Join(dir, "id_rsa") || string(read(t, got.Instance.SSHKeyPath)) != "the key" {
		t.Errorf("SSH key at %s", got.Instance.SSHKeyPath)
	}
	want := fmt.Sprintf(`{"Cache":%q,"Files":[%q],"Other":"/etc/hosts","Serial":9007199254740993}`, filepath.Join(there.Dir(), "cache"), filepath.Join(dir, "known_hosts"))
	if raw := compact(t, got.Instance.Raw); raw != want {
		t.Errorf("driver's fields = %s, want %s", raw, want)
	}
	text := string(read(t, filepath.Join(dir, "config.json")))
	if strings.Contains(text, here.Dir()) {
		t.Errorf("the record still leads to %s:\n%s", here.Dir(), text)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if info, err := e.Info(); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %v, %v", e.Name(), info.Mode(), err)
		}
	}
	// Certificates cannot be renewed there, and it says so.
	err = machine.RenewCerts(t.Context(), there, p, got, func(string) {})
	wantError(t, err, "ca-key.pem is not here", "--with-ca-key")
	if _, err := there.AskEngine(t.Context(), got); err != nil {
		t.Errorf("after a renewal that failed: %v", err)
	}
	// But what it has is good enough to go on with, also under another name.
	got = mustImport(t, there, archive, "web2")
	if err := machine.Provision(t.Context(), there, aliased{p, "web1"}, got, func(string) {}); err != nil {
		t.Errorf("provision with the certificate that there is: %v", err)
	}
}

// aliased is a provider that knows a machine by its first name.
type aliased struct {
	*provider
	name string
}

func (a aliased) State(ctx context.Context, i machine.Instance) (machine.State, error) {
	i.Name = a.name
	return a.provider.State(ctx, i)
}

func (a aliased) RunEngine(ctx context.Context, i machine.Instance, e machine.EngineConfig) error {
	i.Name = a.name
	return a.provider.RunEngine(ctx, i, e)
}

func TestTheAuthoritysKeyGoesAlongOnlyIfAskedFor(t *testing.T) {
	here, there, third, p := open(t), open(t), open(t), newProvider(t)
	m := mustCreate(t, here, p, "web1")
	key := read(t, m.Auth.CaPrivateKeyPath)
	if bytes.Contains(unpacked(t, exported(t, here, m, false)), key) {
		t.Fatal("the authority's key is in the archive, unasked")
	}
	got := mustImport(t, there, exported(t, here, m, true), "web1")
	info, err := os.Stat(got.Auth.CaPrivateKeyPath)
	if err != nil || info.Mode().Perm() != 0o600 || !bytes.Equal(key, read(t, got.Auth.CaPrivateKeyPath)) {
		t.Fatalf("the key is not there: %v, %v", info, err)
	}
	if err := machine.RenewCerts(t.Context(), there, p, got, func(string) {}); err != nil {
		t.Fatal(err)
	}
	if _, err := there.AskEngine(t.Context(), got); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Join(there.CertDir(), "ca.pem")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the store there has got an authority: %v", err)
	}
	if bytes.Contains(unpacked(t, exported(t, there, got, false)), key) { // on from there
		t.Error("the authority's key is in the archive of an imported machine, unasked")
	}
	got = mustImport(t, third, exported(t, here, m, false), "web1")
	if _, err := machine.Export(third, got, &bytes.Buffer{}, true); !errors.Is(err, machine.ErrNoAuthorityKey) {
		t.Errorf("export of a key that is not there = %v", err)
	}
}

// Back in the store that it came from it is as it was, also under another name.
func TestAMachineComesBack(t *testing.T) {
	s, p := open(t), newProvider(t)
	m := mustCreate(t, s, p, "web1")
	archive := exported(t, s, m, false)
	got := mustImport(t, s, archive, "web2")
	if got.Auth.CaPrivateKeyPath != m.Auth.CaPrivateKeyPath {
		t.Errorf("the authority's key is %s, want the store's", got.Auth.CaPrivateKeyPath)
	}
	if _, err := s.AskEngine(t.Context(), got); err != nil {
		t.Error(err)
	}
	a, err := machine.ReadArchive(bytes.NewReader(archive))
	if err != nil {
		t.Fatal(err)
	}
	var taken *machine.ExistsError
	if err := machine.Import(s, a, "web1"); !errors.As(err, &taken) {
		t.Errorf("import over a machine = %v, want an ExistsError", err)
	}
	wantError(t, machine.Import(s, a, "../web1"), "Invalid hostname")
}

// A driver that keeps the machine's name to itself goes on with it, and with the key that it had.
func TestADriversOwnObjectKeepsItsName(t *testing.T) {
	here, there := open(t), open(t)
	drv := &stranger{}
	if err := machine.Create(t.Context(), here, drv, options("web1")); err != nil {
		t.Fatal(err)
	}
	m := mustLoad(t, here, "web1")
	dir := here.MachineDir("web1")
	writeFile(t, filepath.Join(dir, "id_rsa"), "the key")
	m.Instance.Raw = json.RawMessage(fmt.Sprintf(`{"MachineName":"web1","StorePath":%q,"SSHKeyPath":""}`, here.Dir()))
	m.Instance.SSHKeyPath = filepath.Join(dir, "id_rsa")
	if err := here.Save(m); err != nil {
		t.Fatal(err)
	}
	got := mustImport(t, there, exported(t, here, m, false), "web2")
	key := filepath.Join(there.MachineDir("web2"), "id_rsa")
	want := fmt.Sprintf(`{"MachineName":"web1","SSHKeyPath":%q,"StorePath":%q}`, key, there.Dir())
	if raw := compact(t, got.Instance.Raw); raw != want || got.Instance.SSHKeyPath != key {
		t.Errorf("Driver object = %s, key %s; want %s", raw, got.Instance.SSHKeyPath, want)
	}
}

func TestLargeFilesStay(t *testing.T) {
	s, p := open(t), newProvider(t)
	m := mustCreate(t, s, p, "web1")
	dir := s.MachineDir("web1")
	writeFile(t, filepath.Join(dir, "disk.img"), strings.Repeat("x", 2<<20))
	if err := os.MkdirAll(filepath.Join(dir, "data", "deep"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/etc/shadow", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	m.Instance.SSHKeyPath = "/home/jo/.ssh/id_rsa"
	var b bytes.Buffer
	left, err := machine.Export(s, m, &b, false)
	if want := "data disk.img link the SSH key /home/jo/.ssh/id_rsa, which is not in its folder"; err != nil || strings.Join(left, " ") != want {
		t.Errorf("left = %q, %v, want %s", left, err, want)
	}
	if b.Len() > 64<<10 {
		t.Errorf("the archive has %d bytes", b.Len())
	}
	m.Unfinished = "create the host"
	_, err = machine.Export(s, m, &b, false)
	wantError(t, err, `export web1: create was interrupted at the step "create the host"`)
}

// entry is one of a hand-made archive.
type entry struct {
	name, data, link string
	kind             byte
}

func archiveOf(t *testing.T, entries ...entry) []byte {
	t.Helper()
	var b bytes.Buffer
	zip, err := gzip.NewWriterLevel(&b, gzip.BestSpeed)
	if err != nil {
		t.Fatal(err)
	}
	w := tar.NewWriter(zip)
	for _, e := range entries {
		h := &tar.Header{Name: e.name, Mode: 0o777, Size: int64(len(e.data)), Typeflag: e.kind, Linkname: e.link}
		if e.kind == 0 {
			h.Typeflag = tar.TypeReg
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(e.data)); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(w.Close(), zip.Close()); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// unpacked is the text of all that is in an archive.
func unpacked(t *testing.T, archive []byte) []byte {
	t.Helper()
	zip, err := gzip.NewReader(bytes.NewReader(archive))
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if _, err := b.ReadFrom(zip); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestBadArchives(t *testing.T) {
	note := entry{name: "berth.json", data: `{"Format":1,"Name":"web1","Store":"/s","Machine":"/s/machines/web1"}`}
	record := entry{name: "config.json", data: `{"ConfigVersion":3,"DriverName":"none","Driver":{}}`}
	for name, tt := range map[string]struct {
		archive []byte
		want    string
	}{
		"no archive":           {[]byte("hello"), "it is none that berth export wrote"},
		"an empty one":         {archiveOf(t), "it lacks berth.json or config.json"},
		"no record":            {archiveOf(t, note), "it lacks berth.json or config.json"},
		"a newer one":          {archiveOf(t, entry{name: "berth.json", data: `{"Format":2}`}), "a newer berth wrote it"},
		"a newer record":       {archiveOf(t, note, entry{name: "config.json", data: `{"ConfigVersion":4}`}), "from the future"},
		"a record that is not": {archiveOf(t, note, entry{name: "config.json", data: `[]`}), "config.json"},
		"a way out":            {archiveOf(t, note, record, entry{name: "machine/../../../etc/passwd"}), "has no place"},
		"a way out, plainly":   {archiveOf(t, note, record, entry{name: "../config.json"}), "has no place"},
		"an absolute path":     {archiveOf(t, note, record, entry{name: "/etc/passwd"}), "has no place"},
		"a Windows way out":    {archiveOf(t, note, record, entry{name: `machine/..\..\x`}), "has no place"},
		"a folder deeper":      {archiveOf(t, note, record, entry{name: "machine/a/b"}), "has no place"},
		"the record, again":    {archiveOf(t, note, record, entry{name: "machine/config.json"}), "has no place"},
		"a lock":               {archiveOf(t, note, record, entry{name: "machine/.berth.lock"}), "has no place"},
		"a link":               {archiveOf(t, note, record, entry{name: "machine/key.pem", kind: tar.TypeSymlink, link: "/etc/shadow"}), "is no plain file"},
		"a hard link":          {archiveOf(t, note, record, entry{name: "machine/key.pem", kind: tar.TypeLink, link: "/etc/shadow"}), "is no plain file"},
		"a device":             {archiveOf(t, note, record, entry{name: "machine/null", kind: tar.TypeChar}), "is no plain file"},
		"a bad name":           {archiveOf(t, entry{name: "berth.json", data: `{"Format":1,"Name":"../x"}`}), "Invalid hostname"},
		"a bomb":               {archiveOf(t, note, record, entry{name: "machine/x", data: strings.Repeat("0", 70<<20)}), "unpacks to more than 64 MiB"},
		"cut off":              {archiveOf(t, note, record)[:60], "archive: "},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := machine.ReadArchive(bytes.NewReader(tt.archive))
			wantError(t, err, tt.want)
		})
	}
	many := []entry{note, record}
	for i := range 1001 {
		many = append(many, entry{name: fmt.Sprintf("machine/f%d", i)})
	}
	_, err := machine.ReadArchive(bytes.NewReader(archiveOf(t, many...)))
	wantError(t, err, "more than 1000 files")
	// One that was packed anew by hand is fine.
	a, err := machine.ReadArchive(bytes.NewReader(archiveOf(t, entry{name: "./machine/", kind: tar.TypeDir},
		entry{name: "./berth.json", data: note.data}, entry{name: "./config.json", data: record.data}, entry{name: "./machine/id_rsa", data: "k"})))
	if err != nil || a.Name != "web1" || a.DriverName != "none" || a.Whole {
		t.Errorf("packed anew: %+v, %v", a, err)
	}
}

// What goes wrong in the middle leaves nothing.
func TestAnImportThatFailsLeavesNothing(t *testing.T) {
	s := open(t)
	a, err := machine.ReadArchive(bytes.NewReader(archiveOf(t,
		entry{name: "berth.json", data: `{"Format":1,"Name":"web1"}`},
		entry{name: "config.json", data: `{"ConfigVersion":3,"DriverName":"none","Driver":{}}`},
		entry{name: "machine/ca.pem", data: "no certificate"})))
	if err != nil {
		t.Fatal(err)
	}
	wantError(t, machine.Import(s, a, "web1"), "import web1: certificate authority")
	a, err = machine.ReadArchive(bytes.NewReader(archiveOf(t,
		entry{name: "berth.json", data: `{"Format":1,"Name":"web1"}`},
		entry{name: "config.json", data: `{"ConfigVersion":3,"DriverName":"none","Driver":{}}`},
		entry{name: "machine/" + strings.Repeat("x", 255), data: "no file has such a name and a temporary one beside it"})))
	if err != nil {
		t.Fatal(err)
	}
	wantError(t, machine.Import(s, a, "web1"), "import web1:", "file name too long")
	if s.Exists("web1") {
		t.Error("the name is taken")
	}
}
