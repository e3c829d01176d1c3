package main

import (
	"io"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
)

func TestPlaces(t *testing.T) {
	for arg, want := range map[string]place{
		"web:dog.file":      {"web", "", "dog.file"},
		"jo@web:/etc/x":     {"web", "jo", "/etc/x"},
		"web:":              {"web", "", ""},
		"web:a:b":           {"web", "", "a:b"},
		"localhost:/x":      {path: "/x"},
		"dog.file":          {path: "dog.file"},
		"./a:b":             {path: "./a:b"},
		"/tmp/a:b":          {path: "/tmp/a:b"},
		`C:\Users\jo\x`:     {path: `C:\Users\jo\x`},
		"../web:x":          {path: "../web:x"},
		"root@localhost:/x": {path: "/x"},
	} {
		if got := parsePlace(arg); got != want {
			t.Errorf("parsePlace(%q) = %+v, want %+v", arg, got, want)
		}
	}
	for path, want := range map[string]string{"~": "", "~/x": "x", "~jo/x": "~jo/x", "/~": "/~", "x": "x"} {
		if got := (place{path: path}).home(); got != want {
			t.Errorf("home of %q = %q, want %q", path, got, want)
		}
	}
}

func TestSSHOptions(t *testing.T) {
	for line, want := range map[string]sshOptions{
		"":                {},
		"ls -l":           {command: "ls -l"},
		"-t top -d 1":     {command: "top -d 1", terminal: true},
		"-T":              {noScreen: true},
		"-AtC -q id":      {command: "id", terminal: true, agent: true},
		"-- -x":           {command: "-x"},
		"-t -- -t":        {command: "-t", terminal: true},
		"- x":             {command: "- x"},
		"sh -c exit\\ 1":  {command: "sh -c exit\\ 1"},
		"ls -- -L":        {command: "ls -- -L"},
		"echo $((1+1)) ;": {command: "echo $((1+1)) ;"},
	} {
		got, err := readSSHOptions(strings.Fields(line))
		if err != nil || got != want {
			t.Errorf("%q = %+v, %v, want %+v", line, got, err, want)
		}
	}
	for _, line := range []string{"-L 80:x:80", "-tL", "--help", "-o Port=1"} {
		if _, err := readSSHOptions(strings.Fields(line)); err == nil || !strings.Contains(err.Error(), "--native-ssh=false") {
			t.Errorf("%q: %v, want the way to this computer's ssh", line, err)
		}
	}
}

func TestKeysLeaveAtTheBeginningOfALine(t *testing.T) {
	for typed, want := range map[string]struct {
		sent string
		left bool
	}{
		"ls\r":       {"ls\r", false},
		"~.":         {"", true},
		"ls\r~.more": {"ls\rmore", true},
		"a~.":        {"a~.", false},
		"~~.":        {"~.", false},
		"~x":         {"~x", false},
		"\r~\r~.":    {"\r~\r", true},
		"cd ~/x\r":   {"cd ~/x\r", false},
	} {
		for _, one := range []bool{false, true} { // all at once, and key by key
			var from io.Reader = strings.NewReader(typed)
			if one {
				from = iotest.OneByteReader(from)
			}
			left := false
			k := &keys{from: from, leave: func() { left = true }}
			sent, err := io.ReadAll(k)
			if err != nil || string(sent) != want.sent || left != want.left {
				t.Errorf("typed %q: sent %q, left %v, %v; want %q, %v", typed, sent, left, err, want.sent, want.left)
			}
		}
	}
}

func TestPluginArguments(t *testing.T) {
	for line, want := range map[string]string{
		"berth ls -q":                            "ls -q",
		"--context x -H unix:///y berth ls":      "ls",
		"--config=/z --debug berth url berth":    "url berth",
		"ls":                                     "ls",
		"docker-cli-plugin-metadata":             "docker-cli-plugin-metadata",
		"__complete berth st":                    "__complete st",
		"__completeNoDesc --context x berth url": "__completeNoDesc url",
		"berth":                                  "",
	} {
		if got := strings.Join(pluginArgs(strings.Fields(line)), " "); got != want {
			t.Errorf("%q = %q, want %q", line, got, want)
		}
	}
}

// What follows a machine's name is for the command there, whatever flags of ours it looks like.
func TestOneDashFlagsStayInCommands(t *testing.T) {
	root := (&program{name: "berth", argv: []string{"berth"}, drivers: drivers()}).rootCmd()
	for line, want := range map[string]string{
		"ls -filter name=x":                  "ls --filter name=x",
		"-storage-path /x ls -quiet":         "--storage-path /x ls --quiet",
		"ssh web ls -filter x":               "ssh web ls -filter x",
		"-native-ssh=false ssh web -timeout": "--native-ssh=false ssh web -timeout",
		"rm web -force":                      "rm web --force",
	} {
		if got := longFlags(root, strings.Fields(line)); !slices.Equal(got, strings.Fields(want)) {
			t.Errorf("%q = %q, want %q", line, got, want)
		}
	}
}

func TestWordsForOtherPrograms(t *testing.T) {
	for in, want := range map[string]string{"/a/b": "/a/b", "/a b": `"/a b"`, `/a"b`: `"/a\"b"`, "/50%": "/50%%"} {
		if got := sshWord(in); got != want {
			t.Errorf("sshWord(%q) = %s, want %s", in, got, want)
		}
	}
	for in, want := range map[string]string{"/a": "/a", "/a b": "'/a b'", "/it's": "'/it''s'"} {
		if got := rsyncWord(in); got != want {
			t.Errorf("rsyncWord(%q) = %s, want %s", in, got, want)
		}
	}
	for in, want := range map[string]string{"x": "x", "-x": "./-x", "a:b": "./a:b", "/a:b": "/a:b"} {
		if got := hereWord(in); got != want {
			t.Errorf("hereWord(%q) = %s, want %s", in, got, want)
		}
	}
}
