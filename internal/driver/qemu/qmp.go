package qemu

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"time"

	"berth/internal/machine"
)

// askTime bounds a question to QEMU, which answers at once unless it hangs.
const askTime = 10 * time.Second

// monitor is a connection to QEMU's machine protocol, or to the guest agent, whose commands have the same form. QEMU serves one
// at a time: it is not to be kept.
type monitor struct {
	conn net.Conn
	in   *json.Decoder
	stop func() bool
	done context.CancelFunc
}

// message is anything that comes: a greeting, an answer or an event.
type message struct {
	Return json.RawMessage `json:"return"`
	Error  *commandError   `json:"error"`
	Event  string          `json:"event"`
}

// commandError is a command that QEMU refused.
type commandError struct {
	Class string `json:"class"`
	Desc  string `json:"desc"`
}

func (e *commandError) Error() string { return e.Desc }

// openSocket connects; the connection ends with ctx, or after a while.
func openSocket(ctx context.Context, path string, limit time.Duration) (*monitor, error) {
	ctx, done := context.WithTimeout(ctx, limit)
	conn, err := (&net.Dialer{}).DialContext(ctx, "unix", path)
	if err != nil {
		done()
		return nil, err
	}
	m := &monitor{conn: conn, in: json.NewDecoder(conn), done: done}
	m.stop = context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) }) // wakes who reads
	return m, nil
}

// openMonitor connects to a machine's QEMU.
func openMonitor(ctx context.Context, i machine.Instance) (*monitor, error) {
	m, err := openSocket(ctx, file(i, qmpSocket), askTime)
	if err != nil {
		return nil, err
	}
	if err = m.in.Decode(&message{}); err == nil { // its greeting
		err = m.run("qmp_capabilities", nil, nil)
	}
	if err != nil {
		return nil, errors.Join(err, m.Close())
	}
	return m, nil
}

// Close ends the connection.
func (m *monitor) Close() error {
	m.stop()
	m.done()
	return m.conn.Close()
}

// run gives a command and waits for its answer.
func (m *monitor) run(command string, args map[string]any, result any) error {
	ask := map[string]any{"execute": command}
	if args != nil {
		ask["arguments"] = args
	}
	if err := json.NewEncoder(m.conn).Encode(ask); err != nil {
		return fmt.Errorf("%s: %w", command, err)
	}
	for {
		answer := message{}
		if err := m.in.Decode(&answer); err != nil {
			return fmt.Errorf("%s: %w", command, err)
		}
		switch {
		case answer.Error != nil:
			return fmt.Errorf("%s: %w", command, answer.Error)
		case answer.Return == nil: // an event
			continue
		case result == nil:
			return nil
		}
		return json.Unmarshal(answer.Return, result)
	}
}

// command is one command alone to a machine's QEMU.
func command(ctx context.Context, i machine.Instance, name string, args map[string]any, result any) error {
	m, err := openMonitor(ctx, i)
	if err != nil {
		return err
	}
	return errors.Join(m.run(name, args, result), m.Close())
}

// askStatus is QEMU's run state.
func askStatus(ctx context.Context, i machine.Instance) (string, error) {
	var answer struct{ Status string }
	err := command(ctx, i, "query-status", nil, &answer)
	return answer.Status, err
}
