// Command replicator keeps live copies of SQLite databases. See replicator
// --help; DESIGN.md in the root of the module says how it works.
//
// This package wires the others together. A command is a file with an options
// struct and a run function; the daemon_*.go files build a node from its
// configuration, the adapt_*.go files fit one package to the interfaces that
// another one declares.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/sqlite-replicator/replicator/internal/clock"
	"github.com/sqlite-replicator/replicator/internal/sqlite"
)

// An environment is what a command sees of the world.
type environment struct {
	stdout, stderr io.Writer
	environ        []string // as os.Environ gives it
	wd             string   // absolute
	terminal       bool     // stdout is one: colours and live lines are welcome
	watched        bool     // stderr is a terminal: somebody wants to see that work goes on
	clock          func() time.Time
	memoryLimit    func(bytes int64) int64 // of the process, see [debug.SetMemoryLimit]; nil: it is left alone
	shareSQLite    func(bytes int64)       // see [sqlite.ShareMemory]; nil: it is left alone
	tempSQLite     func(dir string)        // see [sqlite.TempDir]; nil: it is left alone
}

// stopWithin bounds an orderly end. What is not done then is what a crash would
// leave, which is safe.
const stopWithin = 10 * time.Second

func main() {
	ctx, cancel := context.WithCancel(context.Background())
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	go func() {
		<-signals
		cancel()
		select {
		case <-signals:
		case <-time.After(stopWithin):
			fmt.Fprintf(os.Stderr, "replicator: not done after %s, leaving\n", stopWithin)
		}
		os.Exit(codeFailure)
	}()
	wd, err := os.Getwd()
	if err != nil {
		fmt.Fprintf(os.Stderr, "replicator: working directory: %v\n", err)
		os.Exit(codeFailure)
	}
	e := &environment{
		stdout: os.Stdout, stderr: os.Stderr, environ: os.Environ(), wd: wd,
		terminal: isTerminal(os.Stdout), watched: isTerminal(os.Stderr), clock: clock.System{}.Now,
		memoryLimit: debug.SetMemoryLimit, shareSQLite: sqlite.ShareMemory, tempSQLite: sqlite.TempDir,
	}
	os.Exit(execute(ctx, e, os.Args[1:]))
}

// execute runs one command line and returns the exit code.
func execute(ctx context.Context, e *environment, args []string) int {
	out := &checkedWriter{w: e.stdout}
	e.stdout = out
	root := newRoot(e)
	root.SetArgs(args)
	root.SetOut(e.stdout)
	root.SetErr(e.stderr)
	err := root.ExecuteContext(ctx)
	if out.err != nil && err == nil {
		err = &ranError{fmt.Errorf("the output is not complete: %w", out.err)}
	}
	if err != nil {
		fmt.Fprintf(e.stderr, "replicator: %s\n", legible(err.Error()))
	}
	return exitCode(err)
}

func newRoot(e *environment) *cobra.Command {
	root := &cobra.Command{
		Use:           "replicator",
		Short:         "Live copies of SQLite databases",
		Long:          "replicator keeps live copies of SQLite databases that other programs write.\n\nExit codes: 0 ok, 1 failure, 2 usage or config, 3 lag or time exceeded, 4 diverged.",
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          cobra.NoArgs,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.CompletionOptions.HiddenDefaultCmd = true
	root.AddCommand(
		newPrimary(e), newReplica(e), newDemo(e), newDemoWriter(e),
		newStatus(e), newSync(e), newWait(e), newVerify(e),
		newSnapshot(e), newRestore(e), newLog(e), newConfig(e), newVersion(e),
		newBench(e), newBenchWriter(e), newBenchReader(e), newBenchPin(e), newBenchReplay(e),
	)
	return root
}
