package plugin

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"
	"unicode"

	"berth/internal/machine"
)

// stateTime is how long a machine may take to get into a state after the plugin said that it is done: docker-machine's 60 times 3
// seconds.
const stateTime = 3 * time.Minute

// snapshot takes over the plugin's JSON. It works also while the plugin is busy, or after ctx has ended.
func (s *session) snapshot(ctx context.Context, i machine.Instance) (machine.Instance, error) {
	var raw []byte
	if err := s.ask(context.WithoutCancel(ctx), "GetConfigRaw", struct{}{}, &raw); err != nil {
		return i, err
	}
	fields := map[string]json.RawMessage{}
	if err := json.Unmarshal(raw, &fields); err != nil || fields == nil {
		return i, fmt.Errorf("driver %s: the plugin's configuration is no JSON object: %.100q", s.driver, raw)
	}
	i.Raw, i.Whole = raw, true
	return i, nil
}

// locate asks where a running machine and its engine are.
func (s *session) locate(ctx context.Context, i machine.Instance) (machine.Instance, error) {
	ip, err := s.text(ctx, "GetIP")
	if err != nil {
		return i, err
	}
	at, err := s.text(ctx, "GetURL")
	if err != nil {
		return i, err
	}
	i.IPAddress, i.URL, i.EnginePort = ip, at, enginePort(at)
	return i, nil
}

// locateSSH asks how SSH reaches the machine. There are machines without, which are machines all the same.
func (s *session) locateSSH(ctx context.Context, i machine.Instance) machine.Instance {
	for method, field := range map[string]*string{
		"GetSSHHostname": &i.SSHHost, "GetSSHUsername": &i.SSHUser, "GetSSHKeyPath": &i.SSHKeyPath,
	} {
		v, err := s.text(ctx, method)
		if err != nil {
			s.debug(method + ": " + err.Error())
			continue
		}
		*field = v
	}
	if i.SSHHost == i.IPAddress {
		i.SSHHost = ""
	}
	port := 0
	if err := s.await(ctx, "GetSSHPort", s.send("GetSSHPort", struct{}{}, &port)); err != nil {
		s.debug("GetSSHPort: " + err.Error())
		return i
	}
	i.SSHPort = port
	return i
}

// text asks for one of the machine's names or addresses. They end up in command lines and files, so they are to look like what they are.
func (s *session) text(ctx context.Context, method string) (string, error) {
	text := ""
	if err := s.await(ctx, method, s.send(method, struct{}{}, &text)); err != nil {
		return "", err
	}
	if strings.HasPrefix(text, "-") || strings.ContainsFunc(text, unicode.IsControl) {
		return "", fmt.Errorf("driver %s: the plugin answers %s with %.100q", s.driver, method, text)
	}
	return text, nil
}

// enginePort is the port in an engine's URL; 0 if there is none.
func enginePort(at string) int {
	u, err := url.Parse(at)
	if err != nil {
		return 0
	}
	port, err := strconv.ParseUint(u.Port(), 10, 16)
	if err != nil {
		return 0
	}
	return int(port)
}

// reach waits until the machine is in one of the states.
func (s *session) reach(ctx context.Context, wanted ...machine.State) error {
	late := fmt.Errorf("not %s within %s", strings.ToLower(wanted[0].String()), stateTime)
	ctx, cancel := context.WithTimeoutCause(ctx, stateTime, late)
	defer cancel()
	for pause := 100 * time.Millisecond; ; pause = min(2*pause, 3*time.Second) {
		state, err := s.state(ctx)
		for _, w := range wanted {
			if err == nil && state == w {
				return nil
			}
		}
		if !s.alive() {
			return err
		}
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			if err == nil {
				err = fmt.Errorf("it is %s", state)
			}
			return fmt.Errorf("%w (%w)", cut(ctx, "wait for the machine"), err)
		}
	}
}

// refusal is an error in the plugin's own words. A panic that the plugin survived comes with a stack, which is for its makers.
func (s *session) refusal(text string) error {
	first, rest, _ := strings.Cut(text, "\n")
	if !strings.HasPrefix(first, "Panic in the driver") {
		return &serverError{text}
	}
	for line := range strings.Lines(rest) {
		s.debug(strings.TrimRight(line, "\n"))
	}
	return &serverError{first}
}
