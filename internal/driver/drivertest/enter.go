package drivertest

import (
	"bytes"
	"context"
	"errors"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/pkg/sftp"

	"berth/internal/machine"
)

// testEnter is for hosts on this computer, which programs get into without SSH.
func testEnter(t *testing.T, prepare func(*testing.T) Subject) {
	h := newHost(t, prepare(t))
	e, ok := h.Driver.(machine.Enterer)
	if !ok {
		t.Skip("the driver's hosts have SSH")
	}
	if _, err := e.Enter(h.context(), h.instance, "true", ""); err == nil {
		t.Error("a command was let into a host that is not there")
	}
	h.create()
	if out := h.inside(e, "hostname"); strings.TrimSpace(out) != h.Spec.Name {
		t.Errorf("inside, the host is called %q, want %s", out, h.Spec.Name)
	}
	h.insideFails(e, "exit 42", 42)
	h.insideFails(e, "kill -9 $$", 128+9)

	// A relative path of a command is the same file for a copy.
	h.inside(e, "echo spot >drivertest.file")
	if got := h.fileInside(e, "drivertest.file"); got != "spot\n" {
		t.Errorf("the file holds %q, want spot", got)
	}

	ctx, cancel := context.WithCancel(h.context())
	endless := h.enter(ctx, e, "exec sleep 1000")
	if err := endless.Start(); err != nil {
		t.Fatal(err)
	}
	cancel()
	if err := endless.Wait(); err == nil {
		t.Error("a command outlived its context")
	}
	h.endWithHost(e)
}

// endWithHost: a host that is switched off takes all along that runs in it.
func (h *host) endWithHost(e machine.Enterer) {
	h.t.Helper()
	power, ok := h.Driver.(machine.Power)
	if !ok {
		return
	}
	cmd := h.enter(h.context(), e, "exec sleep 1000")
	if err := cmd.Start(); err != nil {
		h.t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	if err := power.Kill(h.context(), h.stored()); err != nil {
		h.t.Fatal(err)
	}
	select {
	case err := <-ended:
		if err == nil {
			h.t.Error("a command that was ended with its host ended well")
		}
	case <-time.After(time.Minute):
		h.t.Error("a command outlived its host")
	}
	if _, err := e.Enter(h.context(), h.stored(), "true", ""); err == nil {
		h.t.Error("a command was let into a host that is off")
	}
}

func (h *host) enter(ctx context.Context, e machine.Enterer, command string) *exec.Cmd {
	h.t.Helper()
	cmd, err := e.Enter(ctx, h.stored(), command, "")
	if err != nil {
		h.t.Fatalf("enter: %v", err)
	}
	return cmd
}

func (h *host) inside(e machine.Enterer, command string) string {
	h.t.Helper()
	out, err := h.enter(h.context(), e, command).Output()
	if err != nil {
		h.t.Fatalf("%s: %v", command, err)
	}
	return string(out)
}

func (h *host) insideFails(e machine.Enterer, command string, status int) {
	h.t.Helper()
	err := h.enter(h.context(), e, command).Run()
	if failed, ok := errors.AsType[*exec.ExitError](err); !ok || failed.ExitCode() != status {
		h.t.Errorf("%s: %v, want exit status %d", command, err, status)
	}
}

func (h *host) fileInside(e machine.Enterer, path string) string {
	h.t.Helper()
	cmd, err := e.EnterFiles(h.context(), h.stored())
	if err != nil {
		h.t.Fatalf("enter files: %v", err)
	}
	in, inErr := cmd.StdinPipe()
	out, outErr := cmd.StdoutPipe()
	if err := errors.Join(inErr, outErr, cmd.Start()); err != nil {
		h.t.Fatal(err)
	}
	files, err := sftp.NewClientPipe(out, in)
	if err != nil {
		h.t.Fatalf("speak SFTP: %v", err)
	}
	f, err := files.Open(path)
	if err != nil {
		h.t.Fatalf("open %s: %v", path, err)
	}
	var text bytes.Buffer
	_, err = f.WriteTo(&text)
	if err := errors.Join(err, f.Close(), files.Close(), cmd.Wait()); err != nil {
		h.t.Fatal(err)
	}
	return text.String()
}
