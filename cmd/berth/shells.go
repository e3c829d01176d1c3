package main

import (
	"fmt"
	"strings"
)

// shell is how one shell writes an assignment. set and unset are formats: the name, and for set the quoted value.
type shell struct {
	set, unset string
	comment    string // begins the hint's lines
	eval       string // the format of the command that evaluates ours
	escape     *strings.Replacer
}

// shells are the ones that env knows; any other is taken for sh.
func shells() map[string]shell {
	sh := shell{
		set: `export %s="%s"`, unset: `unset %s`, comment: "#", eval: "eval $(%s)",
		escape: strings.NewReplacer(`\`, `\\`, `"`, `\"`, `$`, `\$`, "`", "\\`"),
	}
	powershell := shell{
		set: `$Env:%s = "%s"`, unset: `Remove-Item Env:\\%s`, comment: "#", eval: "& %s | Invoke-Expression",
		escape: strings.NewReplacer("`", "``", `"`, "`\"", `$`, "`$"),
	}
	return map[string]shell{
		"sh": sh, "bash": sh, "zsh": sh,
		"fish": {
			set: `set -gx %s "%s";`, unset: `set -e %s;`, comment: "#", eval: "eval (%s)",
			escape: strings.NewReplacer(`\`, `\\`, `"`, `\"`, `$`, `\$`),
		},
		"powershell": powershell, "pwsh": powershell,
		"cmd": {
			set: `SET %s=%s`, unset: `SET %s=`, comment: "REM", eval: "\t@FOR /f \"tokens=*\" %%i IN ('%s') DO @%%i",
			// A quoted value would keep its quotes; a caret takes the meaning from what has one.
			escape: strings.NewReplacer("^", "^^", "&", "^&", "|", "^|", "<", "^<", ">", "^>", "%", "%%"),
		},
		"tcsh": {
			set: `setenv %s "%s";`, unset: `unsetenv %s;`, comment: ":", eval: "eval `%s`",
			// Inside tcsh's double quotes nothing takes the meaning from $ and `: they are put between single quotes.
			escape: strings.NewReplacer(`$`, `"'$'"`, "`", "\"'`'\"", `"`, `"'"'"`, "!", `\!`),
		},
		"emacs": {
			set: `(setenv "%s" "%s")`, unset: `(setenv "%s" nil)`, comment: ";;",
			eval:   `(with-temp-buffer (shell-command "%s" (current-buffer)) (eval-buffer))`,
			escape: strings.NewReplacer(`\`, `\\`, `"`, `\"`),
		},
	}
}

// quote makes a value safe between the shell's quotes. No variable of ours has lines, and a line would be a command.
func (s shell) quote(value string) string {
	return s.escape.Replace(strings.NewReplacer("\n", "", "\r", "", "\x00", "").Replace(value))
}

// hint is how to use the output: the command that made it, evaluated.
func (s shell) hint(argv []string) string {
	words := make([]string, len(argv))
	copy(words, argv)
	if strings.ContainsAny(words[0], ` \`) {
		words[0] = `"` + words[0] + `"`
	}
	run := fmt.Sprintf(s.eval, oneComment(strings.Join(words, " ")))
	return fmt.Sprintf("%[1]s Run this command to configure your shell: \n%[1]s %[2]s", s.comment, run)
}

// oneComment keeps the hint on its line, so that nothing in it is ever run.
func oneComment(text string) string {
	return strings.NewReplacer("\n", " ", "\r", " ").Replace(text)
}
