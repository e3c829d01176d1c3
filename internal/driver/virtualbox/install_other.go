//go:build !windows

package virtualbox

func installDir() string { return "" }
