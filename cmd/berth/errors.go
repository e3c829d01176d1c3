package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"berth/internal/machine"
)

// Exit codes, as docker-machine's.
const (
	exitError    = 1
	exitPreCheck = 3 // the driver's pre-create check failed: nothing was made
)

// usageError is a command line that cannot be understood; help names the command whose --help explains.
type usageError struct {
	err  error
	help string
}

func (e *usageError) Error() string { return e.err.Error() }
func (e *usageError) Unwrap() error { return e.err }

func exitCode(err error) int {
	if failed, ok := errors.AsType[*statusError](err); ok {
		return failed.status
	}
	if onlyPreChecks(err) {
		return exitPreCheck
	}
	return exitError
}

// onlyPreChecks tells whether every error in err is a failed pre-create check.
func onlyPreChecks(err error) bool {
	if joined, ok := err.(interface{ Unwrap() []error }); ok { //nolint:errorlint // looks at each level itself
		for _, e := range joined.Unwrap() {
			if !onlyPreChecks(e) {
				return false
			}
		}
		return true
	}
	var check *machine.PreCheckError
	return errors.As(err, &check)
}

// explain is what the user reads: what went wrong, and below it what to do about it.
func (p *program) explain(err error) string {
	var lines []string
	for _, e := range flatten(err) {
		text := e.Error()
		if !strings.HasPrefix(text, "Error") && !strings.HasPrefix(text, p.name+": ") {
			text = "Error: " + text
		}
		if hint := p.hint(e); hint != "" {
			text += hint
		}
		if !slices.Contains(lines, text) { // several machines with one trouble
			lines = append(lines, text)
		}
	}
	return strings.Join(lines, "\n")
}

// flatten lists the errors of several machines one by one.
func flatten(err error) []error {
	joined, ok := err.(interface{ Unwrap() []error }) //nolint:errorlint // looks at each level itself
	if !ok {
		return []error{err}
	}
	var all []error
	for _, e := range joined.Unwrap() {
		all = append(all, flatten(e)...)
	}
	return all
}

// hint is the user's next move after an error; "" for none.
func (p *program) hint(err error) string {
	var (
		missing    *machine.NotExistError
		fixed      *machine.NoUpgradeError
		exists     *machine.ExistsError
		unfinished *machine.UnfinishedError
		usage      *usageError
		noUpgrade  *machine.NoUpgradeError
	)
	switch {
	case errors.As(err, &missing):
		return fmt.Sprintf(` Use "%[1]s ls" to list machines. Use "%[1]s create" to add a new one.`, p.name)
	case errors.As(err, &fixed) && fixed.DriverName == "local":
		return fmt.Sprintf("\nIts engine is this computer's own dockerd: upgrade that (apt-get install --only-upgrade docker.io), then: %s restart %s", p.name, fixed.Name)
	case errors.As(err, &exists):
		return fmt.Sprintf("\nUse another name, or remove that machine: %s rm %s", p.name, exists.Name)
	case errors.As(err, &unfinished) && unfinished.Resume:
		return fmt.Sprintf("\nThe machine is in the list as Error. Go on with: %[1]s provision %[2]s. Or remove it with: %[1]s rm %[2]s", p.name, unfinished.Name)
	case errors.As(err, &unfinished):
		return fmt.Sprintf("\nThe machine is in the list as Error. Remove it with: %s rm %s", p.name, unfinished.Name)
	case errors.As(err, &noUpgrade) && !noUpgrade.Plain:
		if _, here := p.drivers[noUpgrade.DriverName].(machine.Enterer); here {
			return fmt.Sprintf("\nIt runs this computer's own dockerd: upgrade that package here (apt-get install --only-upgrade docker.io, or docker-ce), then: %s restart %s", p.name, noUpgrade.Name)
		}
	case errors.As(err, &usage):
		return fmt.Sprintf("\nSee '%s --help'.", usage.help)
	}
	return ""
}
