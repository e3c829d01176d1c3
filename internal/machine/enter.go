package machine

import (
	"context"
	"os/exec"
)

// Enterer is the optional ability to run programs on a host that has no SSH, because it is on this computer.
//
// What is returned is prepared and not started; the caller gives it its streams. It ends with the host, and with ctx. A host
// that does not run is an error.
type Enterer interface {
	// Enter is a command in the shell there; "" is that shell itself, as at a login. With a terminal, the caller gives it one of
	// its own as all three streams, which becomes the command's controlling terminal; the word is its TERM.
	Enter(ctx context.Context, i Instance, command, terminal string) (*exec.Cmd, error)
	// EnterFiles is a server of SFTP on its stdin and stdout. Relative paths begin where Enter does.
	EnterFiles(ctx context.Context, i Instance) (*exec.Cmd, error)
}
