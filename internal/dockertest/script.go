package dockertest

import (
	"strconv"
	"strings"
	"time"
)

// step is one thing a process does. Those that wait say so by kind.
type step struct {
	kind   stepKind
	stream byte
	text   string
	dur    time.Duration
	code   int
}

type stepKind int

const (
	doPrint    stepKind = iota // write text to stream
	doStatus                   // set the exit status to code
	doExit                     // exit with code, or with the last status if that is negative
	doSleep                    // wait for dur
	doForever                  // wait for a signal
	doCat                      // echo stdin until its end
	doCount                    // count stdin's bytes, print the number (wc -c)
	doShell                    // run the lines that come on stdin
	doTrap                     // on a stop signal exit with code; ignore it if that is negative
	doHostname                 // print the host name
	doEnv                      // print the environment
	doFile                     // print the container's file text
)

// compile turns a command into steps. ok is false if there is no such executable; every command that starts with "nosuch"
// is one. A command that the interpreter does not know runs until it is stopped, as a server would.
func compile(cmd []string) (steps []step, ok bool) {
	name, args := cmd[0], cmd[1:]
	name = name[strings.LastIndexByte(name, '/')+1:]
	if strings.HasPrefix(name, "nosuch") || strings.ContainsAny(name, " ") {
		return nil, false
	}
	switch name {
	case "sh", "bash", "ash":
		if len(args) >= 2 && args[0] == "-c" {
			return append(parseScript(args[1]), step{kind: doExit, code: -1}), true
		}
		return []step{{kind: doShell}, {kind: doExit, code: -1}}, true
	}
	return append(parseCommand(cmd), step{kind: doExit, code: -1}), true
}

// parseScript reads commands that are separated by ; && or newlines. Loops and everything else beyond that run for ever.
func parseScript(script string) []step {
	script = strings.TrimSpace(script)
	if strings.HasPrefix(script, "while ") || strings.HasPrefix(script, "for ") {
		return []step{{kind: doForever}}
	}
	var steps []step
	for rest := script; rest != ""; {
		var one string
		one, rest = cutCommand(rest)
		if strings.HasPrefix(one, "while ") || strings.HasPrefix(one, "for ") {
			return append(steps, step{kind: doForever})
		}
		if words := shellWords(one); len(words) > 0 {
			steps = append(steps, parseCommand(words)...)
		}
	}
	return steps
}

// cutCommand cuts the script at the first separator outside of quotes.
func cutCommand(s string) (one, rest string) {
	var quote byte
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case quote != 0:
			if c == quote {
				quote = 0
			}
		case c == '\'' || c == '"':
			quote = c
		case c == ';' || c == '\n':
			return strings.TrimSpace(s[:i]), strings.TrimSpace(s[i+1:])
		case strings.HasPrefix(s[i:], "&&"):
			return strings.TrimSpace(s[:i]), strings.TrimSpace(s[i+2:])
		}
	}
	return strings.TrimSpace(s), ""
}

// shellWords splits at spaces and takes quotes away.
func shellWords(s string) []string {
	var words []string
	var word strings.Builder
	var quote rune
	started := false
	for _, c := range s {
		switch {
		case quote != 0 && c == quote:
			quote = 0
		case quote == 0 && (c == '\'' || c == '"'):
			quote, started = c, true
		case quote == 0 && c == ' ':
			if started {
				words = append(words, word.String())
			}
			word.Reset()
			started = false
		default:
			word.WriteRune(c)
			started = true
		}
	}
	if started {
		words = append(words, word.String())
	}
	return words
}

func parseCommand(words []string) []step {
	stream := byte(stdout)
	if n := len(words); n > 1 && (words[n-1] == ">&2" || words[n-1] == "1>&2") {
		stream, words = stderr, words[:n-1]
	}
	name, args := words[0], words[1:]
	arg := ""
	if len(args) > 0 {
		arg = args[0]
	}
	status := step{kind: doStatus}
	switch name[strings.LastIndexByte(name, '/')+1:] {
	case "exec":
		if len(args) > 0 {
			return append(parseCommand(args), step{kind: doExit, code: -1})
		}
		return nil
	case "true", ":":
		return []step{status}
	case "false":
		return []step{{kind: doStatus, code: 1}}
	case "echo":
		return []step{{kind: doPrint, stream: stream, text: echo(args)}, status}
	case "seq":
		return []step{{kind: doPrint, stream: stream, text: seq(arg)}, status}
	case "sleep":
		return sleep(arg)
	case "exit":
		return []step{{kind: doExit, code: exitCode(arg)}}
	case "trap":
		return trap(args)
	case "cat":
		if arg != "" && arg != "-" {
			return []step{{kind: doFile, stream: stream, text: arg}}
		}
		return []step{{kind: doCat, stream: stream}, status}
	case "wc":
		return []step{{kind: doCount, stream: stream}, status}
	case "hostname":
		return []step{{kind: doHostname, stream: stream}, status}
	case "env":
		return []step{{kind: doEnv, stream: stream}, status}
	}
	return []step{{kind: doForever}}
}

func echo(args []string) string {
	if len(args) > 0 && args[0] == "-n" {
		return strings.Join(args[1:], " ")
	}
	return strings.Join(args, " ") + "\n"
}

func seq(arg string) string {
	n, err := strconv.Atoi(arg)
	if err != nil {
		return ""
	}
	var b strings.Builder
	for i := range n {
		b.WriteString(strconv.Itoa(i+1) + "\n")
	}
	return b.String()
}

func sleep(arg string) []step {
	const longest = 1e9 // more seconds than any test lives, and few enough for a Duration
	if d, err := strconv.ParseFloat(arg, 64); err == nil && d >= 0 {
		if d > longest {
			return []step{{kind: doForever}}
		}
		return []step{{kind: doSleep, dur: time.Duration(d * float64(time.Second))}, {kind: doStatus}}
	}
	return []step{{kind: doPrint, stream: stderr, text: "sleep: invalid number '" + arg + "'\n"}, {kind: doStatus, code: 1}}
}

func exitCode(arg string) int {
	n, err := strconv.Atoi(arg)
	if err != nil {
		return -1
	}
	return n & 0xff
}

// trap knows trap "" TERM and trap "exit N" TERM.
func trap(args []string) []step {
	if len(args) == 0 || args[0] == "" {
		return []step{{kind: doTrap, code: -1}}
	}
	code := 0
	if words := strings.Fields(args[0]); len(words) == 2 && words[0] == "exit" {
		code = max(0, exitCode(words[1]))
	}
	return []step{{kind: doTrap, code: code}}
}
