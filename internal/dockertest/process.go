package dockertest

import (
	"bytes"
	"slices"
	"strconv"
	"strings"
	"time"
)

// process plays a command: it goes through its steps until one has to wait for time, input or a signal. It has no goroutine
// of its own; whoever brings the awaited thing drives it on. Guarded by Daemon.mu.
type process struct {
	d        *Daemon
	out      *output
	tty      bool
	hostname string
	env      []string
	readFile func(path string) ([]byte, bool)
	onExit   func(code int) // called once, with Daemon.mu held

	steps   []step
	status  int // of the last command
	eof     bool
	input   []byte // not consumed yet
	counted int    // bytes seen by doCount
	trapped *int
	timer   *timer
	frozen  bool
	done    bool
}

// run goes on with the steps.
func (p *process) run() {
	for !p.done && !p.frozen {
		if len(p.steps) == 0 {
			p.exit(p.status)
			return
		}
		if !p.perform(p.steps[0]) {
			return
		}
	}
}

// perform does one step and reports whether it is over.
func (p *process) perform(s step) bool {
	switch s.kind {
	case doForever:
		return false
	case doSleep:
		return p.sleep(s)
	case doCat, doCount:
		return p.consume(s)
	case doShell:
		return p.shell()
	}
	p.steps = p.steps[1:]
	switch s.kind {
	case doPrint:
		p.print(s.stream, []byte(s.text))
	case doStatus:
		p.status = s.code
	case doExit:
		if s.code >= 0 {
			p.status = s.code
		}
		p.exit(p.status)
	case doTrap:
		p.trapped = &s.code
	case doHostname:
		p.print(s.stream, []byte(p.hostname+"\n"))
	case doEnv:
		p.print(s.stream, []byte(strings.Join(p.env, "\n")+"\n"))
	case doFile:
		p.printFile(s)
	}
	return true
}

func (p *process) sleep(s step) bool {
	if p.timer == nil {
		p.timer = p.d.after(s.dur, func() {
			if p.done {
				return
			}
			p.steps[0].dur = -1
			p.run()
		})
		return false
	}
	if s.dur >= 0 {
		return false // woken by something else, the time is not up
	}
	p.timer = nil
	p.steps = p.steps[1:]
	return true
}

// consume feeds the input to cat or wc.
func (p *process) consume(s step) bool {
	if s.kind == doCat {
		p.print(s.stream, p.input)
	}
	p.counted += len(p.input)
	p.input = nil
	if !p.eof {
		return false
	}
	if s.kind == doCount {
		p.print(s.stream, []byte(strconv.Itoa(p.counted)+"\n"))
	}
	p.steps = p.steps[1:]
	return true
}

// shell takes one line of input and puts its commands in front.
func (p *process) shell() bool {
	i := bytes.IndexByte(p.input, '\n')
	switch {
	case i >= 0:
		p.steps = append(parseScript(string(p.input[:i])), p.steps...)
		p.input = p.input[i+1:]
	case p.eof && len(p.input) > 0:
		p.steps = append(parseScript(string(p.input)), p.steps...)
		p.input = nil
	case p.eof:
		p.steps = p.steps[1:]
	default:
		return false
	}
	return true
}

func (p *process) printFile(s step) {
	data, ok := p.readFile(s.text)
	p.status = 0
	if !ok {
		p.status = 1
		p.print(stderr, []byte("cat: can't open '"+s.text+"': No such file or directory\n"))
		return
	}
	p.print(s.stream, data)
}

func (p *process) print(stream byte, data []byte) {
	if p.tty {
		data, stream = bytes.ReplaceAll(data, []byte("\n"), []byte("\r\n")), stdout
	}
	p.out.write(p.d.now(), stream, slices.Clone(data))
}

// feed brings input. On a terminal it is echoed, Enter ends a line and Ctrl-D ends the input.
func (p *process) feed(data []byte) {
	if p.done || p.eof {
		return
	}
	if p.tty {
		data = bytes.ReplaceAll(data, []byte("\r"), []byte("\n"))
		if i := bytes.IndexByte(data, 4); i >= 0 {
			data, p.eof = data[:i], true
		}
		p.print(stdout, data)
	}
	p.input = append(p.input, data...)
	p.run()
}

// closeInput is the end of stdin.
func (p *process) closeInput() {
	p.eof = true
	p.run()
}

// signal delivers a signal; deadly says whether it asks the process to end. Signal 9 cannot be trapped.
func (p *process) signal(n int, deadly bool) {
	switch {
	case n == 9:
		p.exit(137)
	case !deadly:
	case p.trapped == nil:
		p.exit(128 + n)
	case *p.trapped >= 0:
		p.exit(*p.trapped)
	}
}

func (p *process) freeze() { p.frozen = true }

func (p *process) thaw() {
	p.frozen = false
	p.run()
}

func (p *process) exit(code int) {
	if p.done {
		return
	}
	p.halt()
	p.onExit(code)
}

// halt ends the process without a word to anyone, for Close.
func (p *process) halt() {
	p.done = true
	p.timer.stop()
	p.steps, p.input = nil, nil
}

// signals are the names that kill accepts.
var signals = map[string]int{
	"HUP": 1, "INT": 2, "QUIT": 3, "ABRT": 6, "KILL": 9, "USR1": 10, "SEGV": 11, "USR2": 12, "PIPE": 13, "ALRM": 14, "TERM": 15,
	"CHLD": 17, "CONT": 18, "STOP": 19, "TSTP": 20, "TTIN": 21, "TTOU": 22, "WINCH": 28,
}

// deadly are the signals that end a process which has not made other arrangements. Here the fake is kinder than a kernel: as
// process 1 a plain sleep would ignore them, and every stop in every test would take its ten seconds.
var deadly = map[int]bool{2: true, 3: true, 6: true, 9: true, 11: true, 15: true}

func parseSignal(s string) (int, bool) {
	if n, err := strconv.Atoi(s); err == nil {
		return n, n > 0 && n <= 64
	}
	n, ok := signals[strings.TrimPrefix(strings.ToUpper(s), "SIG")]
	return n, ok
}

// zeroTime is how the engine writes a time that has not come.
const zeroTime = "0001-01-01T00:00:00Z"

func timestamp(t time.Time) string {
	if t.IsZero() {
		return zeroTime
	}
	return t.Format(time.RFC3339Nano)
}
