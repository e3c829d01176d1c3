package qemu

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"berth/internal/driver/drivertest"
	"berth/internal/machine"
)

func TestDriver(t *testing.T) {
	needQEMU(t)
	image := guestImage(t)
	drivertest.Run(t, func(t *testing.T) drivertest.Subject {
		t.Helper()
		return drivertest.Subject{Driver: Driver{}, Spec: spec(t, image, nil)}
	})
}

func TestASavedMachineGoesOnWhereItWas(t *testing.T) {
	needQEMU(t)
	i := running(t, spec(t, guestImage(t), nil))
	awaitConsole(t, i, 3)
	ctx := t.Context()
	d := Driver{}
	if err := d.Save(ctx, i); err != nil {
		t.Fatal(err)
	}
	wantState(t, i, machine.StateSaved)
	info, err := os.Stat(file(i, savedFile))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("its memory is in a file with mode %v, %v, want 0600", info.Mode(), err)
	}
	if err := d.Stop(ctx, i); err == nil || !strings.Contains(err.Error(), "saved") {
		t.Errorf("stop of a saved machine = %v, want that it is saved", err)
	}
	i, err = d.Start(ctx, i)
	if err != nil {
		t.Fatal(err)
	}
	wantState(t, i, machine.StateRunning)
	if exists(file(i, savedFile)) {
		t.Error("its memory is still on the disk, to be resumed a second time")
	}
	// It did not boot anew: SeaBIOS would have taken its time, and the guest says the next dot at once.
	awaitConsole(t, i, 0)
	if err := d.Stop(ctx, i); err != nil { // it still feels its button
		t.Fatal(err)
	}
	wantState(t, i, machine.StateStopped)
	if i, err = d.Start(ctx, i); err != nil {
		t.Fatal(err)
	}
	if err := d.Save(ctx, i); err != nil {
		t.Fatal(err)
	}
	if err := d.Kill(ctx, i); err != nil {
		t.Fatal(err)
	}
	wantState(t, i, machine.StateStopped)
}

// TestASaveThatCannotBeWrittenLetsTheMachineGoOn uses a folder in the place of the file.
func TestASaveThatCannotBeWrittenLetsTheMachineGoOn(t *testing.T) {
	needQEMU(t)
	i := running(t, spec(t, guestImage(t), nil))
	said := awaitConsole(t, i, 3)
	if err := os.MkdirAll(filepath.Join(file(i, savedPart), "in the way"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := (Driver{}).Save(t.Context(), i); err == nil {
		t.Error("the save went well")
	}
	wantState(t, i, machine.StateRunning)
	awaitConsole(t, i, said)
	if err := os.RemoveAll(file(i, savedPart)); err != nil {
		t.Fatal(err)
	}
}

// TestAMemoryThatCannotBeReadStaysSaved: nothing is lost that somebody may still mend.
func TestAMemoryThatCannotBeReadStaysSaved(t *testing.T) {
	needQEMU(t)
	i := running(t, spec(t, guestImage(t), nil))
	awaitConsole(t, i, 3)
	if err := (Driver{}).Save(t.Context(), i); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(file(i, savedFile), 1000); err != nil {
		t.Fatal(err)
	}
	if _, err := (Driver{}).Start(t.Context(), i); err == nil || !strings.Contains(err.Error(), "stays saved") {
		t.Errorf("start = %v, want that it stays saved", err)
	}
	wantState(t, i, machine.StateSaved)
}

func TestAPausedMachineIsStoppedAndStarted(t *testing.T) {
	needQEMU(t)
	i := running(t, spec(t, guestImage(t), nil))
	said := awaitConsole(t, i, 3)
	if err := command(t.Context(), i, "stop", nil, nil); err != nil {
		t.Fatal(err)
	}
	wantState(t, i, machine.StatePaused)
	if _, err := (Driver{}).Start(t.Context(), i); err != nil {
		t.Fatal(err)
	}
	awaitConsole(t, i, said)
	if err := command(t.Context(), i, "stop", nil, nil); err != nil {
		t.Fatal(err)
	}
	if err := (Driver{}).Stop(t.Context(), i); err != nil {
		t.Fatal(err)
	}
	wantState(t, i, machine.StateStopped)
}

// TestPortsAreKept: over a stop and a start, but for one that somebody else has taken meanwhile.
func TestPortsAreKept(t *testing.T) {
	needQEMU(t)
	i := running(t, spec(t, guestImage(t), nil))
	d := Driver{}
	if err := d.Kill(t.Context(), i); err != nil {
		t.Fatal(err)
	}
	again, err := d.Start(t.Context(), i)
	if err != nil || again.SSHPort != i.SSHPort || again.EnginePort != i.EnginePort || again.InnerPort != enginePort {
		t.Fatalf("ports %d and %d have become %d and %d: %v", i.SSHPort, i.EnginePort, again.SSHPort, again.EnginePort, err)
	}
	if err := d.Kill(t.Context(), i); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", net.JoinHostPort(loopback, strconv.Itoa(i.EnginePort)))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close() //nolint:errcheck // the end of the test
	again, err = d.Start(t.Context(), i)
	if err != nil || again.EnginePort == i.EnginePort {
		t.Errorf("with port %d taken it starts with %d: %v", i.EnginePort, again.EnginePort, err)
	}
}

func TestAPortThatTheUserNamedIsNotReplaced(t *testing.T) {
	needQEMU(t)
	l, err := net.Listen("tcp", loopback+":0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close() //nolint:errcheck // the end of the test
	port := strconv.Itoa(l.Addr().(*net.TCPAddr).Port)
	s := spec(t, guestImage(t), map[string]any{flagForward: []string{port + ":80"}})
	if err := (Driver{}).PreCreateCheck(t.Context(), s); err == nil || !strings.Contains(err.Error(), port) {
		t.Errorf("check = %v, want it to name port %s", err, port)
	}
	if _, err := (Driver{}).Create(t.Context(), s); err == nil || !strings.Contains(err.Error(), port) {
		t.Errorf("create = %v, want it to name port %s", err, port)
	}
	if err := (Driver{}).Remove(t.Context(), machine.Instance{Name: s.Name, Dir: s.Dir}); err != nil {
		t.Error(err)
	}
}

// TestAPidThatIsAnotherProcessesIsLeftAlone: after a power cut, say.
func TestAPidThatIsAnotherProcessesIsLeftAlone(t *testing.T) {
	i := machine.Instance{Name: "m", Dir: t.TempDir()}
	path := file(i, pidFile)
	if err := os.WriteFile(path, []byte(strconv.Itoa(os.Getpid())+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if p, err := findProcess(i); p.runs() || err != nil {
		t.Errorf("this test is taken for the machine: %v, %v", p, err)
	}
	for _, text := range []string{"", "x", "-1", "0", "1", "99999999999"} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if p, err := findProcess(i); p.runs() || err != nil {
			t.Errorf("pid %q = %v, %v, want none", text, p, err)
		}
	}
}

// TestAProcessThatBeganAfterThePidFileIsNotTheMachine, whatever its command line says.
func TestAProcessThatBeganAfterThePidFileIsNotTheMachine(t *testing.T) {
	needQEMU(t)
	i := running(t, spec(t, guestImage(t), nil))
	old := time.Now().Add(-time.Hour)
	if err := os.Chtimes(file(i, pidFile), old, old); err != nil {
		t.Fatal(err)
	}
	if p, err := findProcess(i); p.runs() || err != nil {
		t.Errorf("= %v, %v, want none", p, err)
	}
	if err := os.Chtimes(file(i, pidFile), time.Now(), time.Now()); err != nil {
		t.Fatal(err)
	}
}

// TestAHungQEMUIsKilled: stopped by a signal it answers nothing.
func TestAHungQEMUIsKilled(t *testing.T) {
	needQEMU(t)
	i := running(t, spec(t, guestImage(t), nil))
	p, err := findProcess(i)
	if err != nil || !p.runs() {
		t.Fatalf("process = %v, %v", p, err)
	}
	halt(t, p.pid)
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if state, err := (Driver{}).State(ctx, i); state != machine.StateError || err == nil {
		t.Errorf("its state is %s, %v, want Error", state, err)
	}
	if err := (Driver{}).Kill(t.Context(), i); err != nil {
		t.Fatal(err)
	}
	wantState(t, i, machine.StateStopped)
}

// TestImagesAreShared: a second machine copies nothing.
func TestImagesAreShared(t *testing.T) {
	needQEMU(t)
	image := guestImage(t)
	a := spec(t, image, nil)
	b := spec(t, image, map[string]any{flagExtra: []string{"5", "1G"}})
	b.Dir, b.CacheDir = filepath.Join(filepath.Dir(a.Dir), "n"), a.CacheDir
	if err := os.Mkdir(b.Dir, 0o700); err != nil {
		t.Fatal(err)
	}
	one, two := running(t, a), running(t, b)
	first, err := os.Stat(file(one, imageFile))
	second, failed := os.Stat(file(two, imageFile))
	if err := errors.Join(err, failed); err != nil || !os.SameFile(first, second) {
		t.Errorf("the images are two files: %v", err)
	}
	awaitConsole(t, two, 3)
	for _, name := range []string{"disk-1.qcow2", "disk-2.qcow2"} {
		if !exists(file(two, name)) {
			t.Errorf("%s is not there", name)
		}
	}
}

// TestASaveThatWasBrokenOff: by a kill of berth, at two places.
func TestASaveThatWasBrokenOff(t *testing.T) {
	needQEMU(t)
	d, ctx := Driver{}, t.Context()
	i := running(t, spec(t, guestImage(t), nil))
	awaitConsole(t, i, 3)

	// Before the memory had its name, the machine just goes on.
	if err := command(ctx, i, "stop", nil, nil); err != nil {
		t.Fatal(err)
	}
	if err := command(ctx, i, "migrate", map[string]any{"uri": "exec:cat >/dev/null"}, nil); err != nil {
		t.Fatal(err)
	}
	if err := awaitMigration(ctx, i); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Start(ctx, i); err != nil {
		t.Fatal(err)
	}
	awaitConsole(t, i, console(t, i))

	// After that it is saved, although its process is there.
	if err := writeMemory(ctx, i); err != nil {
		t.Fatal(err)
	}
	wantState(t, i, machine.StateSaved)
	if err := d.Stop(ctx, i); !errors.Is(err, errSaved) {
		t.Errorf("stop = %v, want that it is saved", err)
	}
	wantState(t, i, machine.StateSaved)
	i, err := d.Start(ctx, i)
	if err != nil {
		t.Fatal(err)
	}
	wantState(t, i, machine.StateRunning)
	awaitConsole(t, i, 0)
}
