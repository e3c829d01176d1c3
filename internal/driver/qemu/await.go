package qemu

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"time"

	"berth/internal/machine"
)

// How long a machine may take to boot, and its engine to answer then.
const (
	bootTime           = 5 * time.Minute
	emulatedBootTime   = 20 * time.Minute
	engineTime         = 30 * time.Second
	emulatedEngineTime = 5 * time.Minute
)

// sign is what shows that a machine has come so far. An error is that it has not, yet.
type sign func(ctx context.Context, i machine.Instance) error

// await returns when the machine shows the sign, if the driver is to wait at all.
func (d Driver) await(ctx context.Context, i machine.Instance, v vm, progress func(string), wanted sign) (machine.Instance, error) {
	boot, address := bootTime, addressTime
	if how, err := chooseAccelerator(v.Accel, v.Arch); err == nil && how.name == tcg {
		boot, address = emulatedBootTime, emulatedAddressTime
	}
	if !v.onLoopback() && v.Static == "" {
		progress("Waiting for the machine's address...")
		var err error
		if i, err = awaitAddress(ctx, i, v, address); err != nil {
			return i, err
		}
	}
	if !d.AwaitBoot {
		return i, nil
	}
	progress("Waiting for the machine to boot...")
	return i, awaitSign(ctx, i, boot, wanted)
}

func awaitSign(ctx context.Context, i machine.Instance, limit time.Duration, wanted sign) error {
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("not after %s", limit))
	defer cancel()
	for {
		err := wanted(ctx, i)
		if err == nil {
			return nil
		}
		if err := mustLive(i); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for it to boot: %w: %w\nThe end of its console (%s):\n%s", context.Cause(ctx), err, file(i, serialFile), tail(i, serialFile))
		case <-time.After(time.Second):
		}
	}
}

// mustLive is an error if the machine's process has ended.
func mustLive(i machine.Instance) error {
	if p, err := findProcess(i); err != nil || p.runs() {
		return err
	}
	return fmt.Errorf("the machine has switched itself off, or its QEMU ended: %s\nThe end of its console (%s):\n%s", tail(i, logFile), file(i, serialFile), tail(i, serialFile))
}

// signTime bounds one look. QEMU takes connections to its forwards while nobody in the machine does: only what comes back tells.
const signTime = 20 * time.Second

// sshd greets.
func sshd(ctx context.Context, i machine.Instance) error {
	return look(ctx, i.IPAddress, i.SSHPort, func(c net.Conn) error {
		greeting := make([]byte, 4)
		if _, err := io.ReadFull(c, greeting); err != nil {
			return fmt.Errorf("its sshd does not answer: %w", err)
		}
		if !bytes.Equal(greeting, []byte("SSH-")) {
			return errors.New("what answers in the place of its sshd is none")
		}
		return nil
	})
}

// engineUp: sshd greets, and the engine answers if it does so soon. There may be none, and it is for others to say that it is missing.
func engineUp(ctx context.Context, i machine.Instance) error {
	if err := sshd(ctx, i); err != nil {
		return err
	}
	patience := engineTime
	if v, err := readVM(i); err == nil {
		if how, err := chooseAccelerator(v.Accel, v.Arch); err == nil && how.name == tcg {
			patience = emulatedEngineTime
		}
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for ctx.Err() == nil {
		port := i.EnginePort
		if port == 0 {
			port = enginePort
		}
		err := look(ctx, i.IPAddress, port, func(c net.Conn) error {
			// Who it is shows later, when it is asked: here only that it is there matters.
			t := tls.Client(c, &tls.Config{InsecureSkipVerify: true}) //nolint:gosec // nothing is said
			err := t.HandshakeContext(ctx)
			var alert tls.AlertError
			if errors.As(err, &alert) {
				return nil
			}
			return err
		})
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
		case <-time.After(time.Second):
		}
	}
	return nil
}

func look(ctx context.Context, host string, port int, ask func(net.Conn) error) error {
	ctx, cancel := context.WithTimeout(ctx, signTime)
	defer cancel()
	c, err := (&net.Dialer{}).DialContext(ctx, "tcp", net.JoinHostPort(host, strconv.Itoa(port)))
	if err != nil {
		return err
	}
	defer c.Close() //nolint:errcheck // only read
	if at, ok := ctx.Deadline(); ok {
		if err := c.SetDeadline(at); err != nil {
			return err
		}
	}
	stop := context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	return ask(c)
}
