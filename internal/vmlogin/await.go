package vmlogin

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"time"
)

// Boot is a machine that is coming up.
type Boot struct {
	SSH, Engine string // addresses, HOST:PORT
	// Limit is how long it may take to boot, EngineLimit how long its engine may take then.
	Limit, EngineLimit time.Duration
	// Lives is an error once there is nothing to wait for any more.
	Lives func(context.Context) error
	// Console is what the machine wrote last, for an error.
	Console func() string
}

// lookTime bounds one look, paceTime is between two. A hypervisor takes connections to its forwards while nobody in the machine does: only
// what comes back tells.
const (
	lookTime = 20 * time.Second
	paceTime = time.Second
)

// AwaitSSH returns when the machine's sshd greets.
func (b Boot) AwaitSSH(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, b.Limit, fmt.Errorf("not after %s", b.Limit))
	defer cancel()
	for {
		err := look(ctx, b.SSH, greeting)
		if err == nil {
			return nil
		}
		if gone := b.Lives(ctx); gone != nil && ctx.Err() == nil {
			return fmt.Errorf("%w%s", gone, b.console())
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for it to boot: %w: %w%s", context.Cause(ctx), err, b.console())
		case <-time.After(paceTime):
		}
	}
}

func (b Boot) console() string {
	if b.Console == nil {
		return ""
	}
	if text := b.Console(); text != "" {
		return "\nThe end of its console:\n" + text
	}
	return ""
}

// AwaitEngine returns when the machine's engine answers, or when it has not for a while: there may be none, and it is for others to
// say that it is missing.
func (b Boot) AwaitEngine(ctx context.Context) error {
	limited, cancel := context.WithTimeout(ctx, b.EngineLimit)
	defer cancel()
	for limited.Err() == nil {
		if look(limited, b.Engine, answers) == nil {
			break
		}
		select {
		case <-limited.Done():
		case <-time.After(paceTime):
		}
	}
	return ctx.Err()
}

func greeting(_ context.Context, c net.Conn) error {
	begin := make([]byte, 4)
	if _, err := io.ReadFull(c, begin); err != nil {
		return fmt.Errorf("its sshd does not answer: %w", err)
	}
	if !bytes.Equal(begin, []byte("SSH-")) {
		return errors.New("what answers in the place of its sshd is none")
	}
	return nil
}

// answers: who it is shows later, when it is asked. Here only that it is there matters.
func answers(ctx context.Context, c net.Conn) error {
	t := tls.Client(c, &tls.Config{InsecureSkipVerify: true}) //nolint:gosec // nothing is said
	err := t.HandshakeContext(ctx)
	if _, refused := errors.AsType[tls.AlertError](err); refused {
		return nil
	}
	return err
}

func look(ctx context.Context, address string, ask func(context.Context, net.Conn) error) error {
	ctx, cancel := context.WithTimeout(ctx, lookTime)
	defer cancel()
	c, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
	if err != nil {
		return err
	}
	defer c.Close() //nolint:errcheck // only read
	stop := context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	return ask(ctx, c)
}
