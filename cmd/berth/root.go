package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"berth/internal/cert"
	"berth/internal/machine"
	"berth/internal/term"
)

// program is one run of berth: what came from outside, and where its answers go.
type program struct {
	name    string // as the user called it
	argv    []string
	in      io.Reader
	out     io.Writer
	err     io.Writer
	drivers map[string]machine.Driver

	storagePath string
	debug       bool
	nativeSSH   bool
	auth        machine.AuthOptions
	keyType     string

	mu    sync.Mutex     // one line at a time from machines that are worked on together
	steps *term.Progress // what is drawn on the terminal just now, if anything
}

// execute reads the command line and runs its command.
func (p *program) execute(ctx context.Context) error {
	if p.name == "docker" {
		return p.dialStdio(ctx)
	}
	if p.name == pluginCommand && len(p.argv) > 1 && p.argv[1] == metadataArg {
		return p.printPluginMetadata()
	}
	root := p.rootCmd() //nolint:contextcheck // a command gets its context when it runs
	args := longFlags(root, p.argv[1:])
	root.SetArgs(args)
	root.SetIn(p.in)
	root.SetOut(p.out)
	root.SetErr(p.err)
	return root.ExecuteContext(ctx)
}

func (p *program) rootCmd() *cobra.Command {
	showVersion := false
	root := &cobra.Command{
		Use:           p.name[strings.LastIndex(p.name, " ")+1:], // of docker berth, the last word
		Annotations:   map[string]string{cobra.CommandDisplayNameAnnotation: p.name},
		Short:         "Create and manage machines running Docker",
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          cobra.ArbitraryArgs,
		PersistentPreRunE: func(*cobra.Command, []string) error {
			return p.readEnvironment()
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			switch {
			case showVersion:
				return p.printVersion()
			case len(args) > 0:
				return p.unknownCommand(cmd, args[0])
			}
			return cmd.Help()
		},
	}
	root.Flags().BoolVarP(&showVersion, "version", "v", false, "Print the version")
	root.CompletionOptions.DisableDefaultCmd = p.name == pluginCommand // docker's own completes it
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return &usageError{err, cmd.CommandPath()}
	})
	p.globalFlags(root.PersistentFlags())
	root.AddCommand(p.machineCommands()...)
	root.AddCommand(p.extraCommands()...)
	root.AddCommand(p.fleetCommands()...)
	for _, cmd := range root.Commands() {
		cmd.DisableFlagsInUseLine = true // Use says it, as docker-machine does
	}
	p.completeFlags(root)
	if p.dropIn() {
		root.SetHelpFunc(p.helpLikeDockerMachine)
	}
	return root
}

// machineCommands are the commands for one host at a time.
func (p *program) machineCommands() []*cobra.Command {
	return []*cobra.Command{
		p.activeCmd(), p.configCmd(), p.createCmd(), p.envCmd(), p.inspectCmd(), p.ipCmd(), p.killCmd(), p.lsCmd(),
		p.mountCmd(), p.provisionCmd(), p.regenerateCertsCmd(), p.restartCmd(), p.rmCmd(), p.scpCmd(), p.sshCmd(), p.startCmd(), p.statusCmd(),
		p.stopCmd(), p.upgradeCmd(), p.urlCmd(), p.versionCmd(),
	}
}

func (p *program) globalFlags(f *pflag.FlagSet) {
	f.BoolVarP(&p.debug, "debug", "D", false, "Say more on stderr [$MACHINE_DEBUG]")
	f.StringVarP(&p.storagePath, "storage-path", "s", "", "Where the machines are kept [$MACHINE_STORAGE_PATH] (default ~/.docker/machine)")
	f.StringVar(&p.auth.CaCertPath, "tls-ca-cert", "", "Certificate authority of new machines [$MACHINE_TLS_CA_CERT]")
	f.StringVar(&p.auth.CaPrivateKeyPath, "tls-ca-key", "", "Its private key [$MACHINE_TLS_CA_KEY]")
	f.StringVar(&p.auth.ClientCertPath, "tls-client-cert", "", "Client certificate of new machines [$MACHINE_TLS_CLIENT_CERT]")
	f.StringVar(&p.auth.ClientKeyPath, "tls-client-key", "", "Its private key [$MACHINE_TLS_CLIENT_KEY]")
	native, err := strconv.ParseBool(os.Getenv("MACHINE_NATIVE_SSH"))
	f.BoolVar(&p.nativeSSH, "native-ssh", native || err != nil, "Use berth's own SSH; =false runs this computer's ssh and scp [$MACHINE_NATIVE_SSH]")
	f.StringVar(&p.keyType, "tls-key-type", "", "Keys of new certificates: ecdsa or rsa [$MACHINE_TLS_KEY_TYPE] (default what the store has, else ecdsa)")
	// docker-machine has these, and programs that run it pass them; berth sends no crash reports and asks GitHub nothing.
	f.String("bugsnag-api-token", "", "")
	f.String("github-api-token", "", "")
	for _, unused := range []string{"bugsnag-api-token", "github-api-token"} {
		_ = f.MarkHidden(unused) // all are defined above
	}
}

// readEnvironment fills in what the command line left open.
func (p *program) readEnvironment() error {
	if v := os.Getenv("MACHINE_DEBUG"); v != "" && !p.debug {
		on, err := strconv.ParseBool(v)
		if err != nil {
			return fmt.Errorf("MACHINE_DEBUG=%s: want true or false", v)
		}
		p.debug = on
	}
	if v := os.Getenv("MACHINE_NATIVE_SSH"); v != "" {
		if _, err := strconv.ParseBool(v); err != nil {
			return fmt.Errorf("MACHINE_NATIVE_SSH=%s: want true or false", v)
		}
	}
	p.keyType = cmp.Or(p.keyType, os.Getenv("MACHINE_TLS_KEY_TYPE"))
	if _, err := cert.ParseKeys(p.keyType); err != nil {
		return fmt.Errorf("--tls-key-type: %w", err)
	}
	for _, path := range []struct {
		value *string
		env   string
	}{
		{&p.storagePath, "MACHINE_STORAGE_PATH"},
		{&p.auth.CaCertPath, "MACHINE_TLS_CA_CERT"},
		{&p.auth.CaPrivateKeyPath, "MACHINE_TLS_CA_KEY"},
		{&p.auth.ClientCertPath, "MACHINE_TLS_CLIENT_CERT"},
		{&p.auth.ClientKeyPath, "MACHINE_TLS_CLIENT_KEY"},
	} {
		if *path.value == "" {
			*path.value = os.Getenv(path.env)
		}
		if *path.value == "" {
			continue
		}
		abs, err := filepath.Abs(*path.value)
		if err != nil {
			return err
		}
		*path.value = abs
	}
	return nil
}

// store opens the store that the command line or the environment names.
func (p *program) store() (*machine.Store, error) {
	dir := p.storagePath
	if dir == "" {
		home, err := os.UserHomeDir()
		if err != nil {
			return nil, fmt.Errorf("where are the machines? %w: say it with --storage-path", err)
		}
		dir = filepath.Join(home, ".docker", "machine")
	}
	p.debugf("store %s", dir)
	s, err := machine.Open(dir)
	if err != nil {
		return nil, err
	}
	s.Provisioner = &provisioner{s, p.debugf}
	if s.Keys, err = cert.ParseKeys(p.keyType); err != nil {
		return nil, err
	}
	return s, nil
}

func (p *program) unknownCommand(root *cobra.Command, word string) error {
	text := fmt.Sprintf("%[1]s: '%[2]s' is not a %[1]s command. See '%[1]s --help'.", p.name, word)
	if near := root.SuggestionsFor(word); len(near) > 0 {
		text += "\nDid you mean " + strings.Join(near, " or ") + "?"
	}
	return errors.New(text)
}

// say prints a line for the user on stdout, warn one on stderr.
func (p *program) say(format string, args ...any)  { p.line(p.out, format, args...) }
func (p *program) warn(format string, args ...any) { p.line(p.err, format, args...) }

func (p *program) debugf(format string, args ...any) {
	if p.debug {
		p.line(p.err, "DBG | "+format, args...)
	}
}

func (p *program) line(w io.Writer, format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	write := func() {
		fmt.Fprintf(w, format+"\n", args...) //nolint:errcheck // work goes on when nobody reads any more
	}
	if p.steps != nil {
		p.steps.Above(write)
		return
	}
	write()
}

// longFlags turns -name into --name where a flag is called so. docker-machine took both, pflag takes only the second. What is
// for a command on a machine is left alone.
func longFlags(root *cobra.Command, args []string) []string {
	known, takesValue := flagNames(root)
	out := slices.Clone(args)
	isValue := false // of the flag before
	var words []string
	for i, a := range out {
		if a == "--" && !isValue || len(words) > 1 && words[0] == "ssh" {
			break
		}
		name, _, inline := strings.Cut(strings.TrimLeft(a, "-"), "=")
		flag := strings.HasPrefix(a, "-")
		if !isValue && flag && !strings.HasPrefix(a, "--") && len(name) > 1 && known[name] {
			out[i] = "-" + a
		}
		if !isValue && !flag {
			words = append(words, a)
		}
		isValue = !isValue && !inline && flag && takesValue[name]
	}
	return out
}

// flagNames are all flags of all commands, long and short, and those that any command wants a value for.
func flagNames(root *cobra.Command) (known, takesValue map[string]bool) {
	known, takesValue = map[string]bool{}, map[string]bool{}
	note := func(f *pflag.Flag) {
		for _, name := range []string{f.Name, f.Shorthand} {
			known[name] = true
			takesValue[name] = takesValue[name] || f.NoOptDefVal == ""
		}
	}
	for _, cmd := range append(root.Commands(), root) {
		cmd.Flags().VisitAll(note)
		cmd.PersistentFlags().VisitAll(note)
	}
	return known, takesValue
}
