package plugin

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// binaryPrefix is how a plugin's program is called, before the driver's name.
const binaryPrefix = "docker-machine-driver-"

// inDockerMachine are the drivers that docker-machine's own program is the plugin for.
var inDockerMachine = []string{
	"amazonec2", "azure", "digitalocean", "exoscale", "generic", "google", "hyperv", "none", "openstack", "rackspace", "softlayer",
	"virtualbox", "vmwarefusion", "vmwarevcloudair", "vmwarevsphere",
}

// NotFoundError says that there is no plugin for a driver.
type NotFoundError struct {
	Name string
	Err  error // what the search of PATH said
}

func (e *NotFoundError) Error() string {
	return fmt.Sprintf("Driver %q not found. Do you have the plugin binary %q accessible in your PATH?", e.Name, binaryPrefix+e.Name)
}
func (e *NotFoundError) Unwrap() error { return e.Err }

// Find looks for the plugin of a driver on PATH: docker-machine-driver-NAME, or an original docker-machine for the drivers that it
// has inside.
func Find(name string) (path string, err error) {
	if !flagName.MatchString(name) || strings.Contains(name, "..") { // it becomes part of a path
		return "", &NotFoundError{name, fmt.Errorf("%.100q is no driver's name", name)}
	}
	path, err = exec.LookPath(binaryPrefix + name)
	if err != nil && slices.Contains(inDockerMachine, name) {
		path, err = original()
	}
	if err != nil {
		return "", &NotFoundError{name, err}
	}
	return filepath.Abs(path)
}

// original is the docker-machine on PATH, unless that is this program under another name.
func original() (string, error) {
	path, err := exec.LookPath("docker-machine")
	if err != nil {
		return "", err
	}
	self, err := os.Executable()
	if err != nil {
		return "", err
	}
	mine, err := os.Stat(self)
	if err != nil {
		return "", err
	}
	found, err := os.Stat(path)
	if err != nil {
		return "", err
	}
	if os.SameFile(mine, found) {
		return "", fmt.Errorf("%s is this program", path)
	}
	return path, nil
}
