package main

import (
	"fmt"
	"os/exec"
	"strings"
	"testing"
)

// What env prints must come out of the shell as it was put in, whatever is in it, and nothing of it may run.
func TestShellsKeepAValueAValue(t *testing.T) {
	values := []string{
		"tcp://192.0.2.1:2376", "/home/jo/.docker/machine/machines/web1", "", "a b", `C:\Users\jo`, `back\`, "it's", `"`, `$HOME`, "$(echo x)",
		"`echo x`", "a;b", "a&b|c>d<e", "#a", "*", "~", "a!b", "%PATH%", "^", "(x)", "{a,b}", "ä", `\"`, "$", "!",
	}
	for name, print := range map[string]string{
		"sh": `printf %s "$K"`, "bash": `printf %s "$K"`, "zsh": `printf %s "$K"`, "fish": `printf %s "$K"`, "tcsh": `printenv K`,
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := exec.LookPath(name); err != nil {
				t.Skip("no", name, "on this computer")
			}
			for _, value := range values {
				script := fmt.Sprintf(shells()[name].set, "K", shells()[name].quote(value)) + "\n" + print
				args := []string{"-c", script}
				if name == "tcsh" {
					args = []string{"-f", "-c", script}
				}
				out, err := exec.Command(name, args...).CombinedOutput()
				if got := strings.TrimSuffix(string(out), "\n"); err != nil || got != value {
					t.Errorf("%q came out as %q, %v\n%s", value, got, err, script)
				}
			}
		})
	}
}

// A line in a value would be a command.
func TestQuoteKeepsToOneLine(t *testing.T) {
	for name, sh := range shells() {
		if got := sh.quote("a\nb\r\nc\x00d"); got != "abcd" {
			t.Errorf("%s quotes lines as %q", name, got)
		}
		if got := sh.hint([]string{"berth", "env", "a\nb"}); strings.Count(got, "\n") != 1 {
			t.Errorf("%s: the hint has other than two lines: %q", name, got)
		}
	}
}
