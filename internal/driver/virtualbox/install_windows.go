package virtualbox

import "golang.org/x/sys/windows/registry"

// installDir is where the installer says that it put VirtualBox.
func installDir() string {
	key, err := registry.OpenKey(registry.LOCAL_MACHINE, `SOFTWARE\Oracle\VirtualBox`, registry.QUERY_VALUE)
	if err != nil {
		return ""
	}
	defer key.Close() //nolint:errcheck // read only
	dir, _, err := key.GetStringValue("InstallDir")
	if err != nil {
		return ""
	}
	return dir
}
