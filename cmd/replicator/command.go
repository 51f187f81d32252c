package main

import (
	"context"
	"io"

	"github.com/spf13/cobra"
)

// command is one without arguments, whose body sees the context and the world.
func command(e *environment, use, short string, body func(context.Context, *environment) error) *cobra.Command {
	return &cobra.Command{
		Use: use, Short: short, Args: cobra.NoArgs,
		RunE: runs(func(cmd *cobra.Command, _ []string) error { return body(cmd.Context(), e) }),
	}
}

// group is a command that only holds others. Without one of them it says which there are.
func group(use, short string, commands ...*cobra.Command) *cobra.Command {
	cmd := &cobra.Command{
		Use: use, Short: short, Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() }, // else a mistyped one would pass
	}
	cmd.AddCommand(commands...)
	return cmd
}

// require says which flags must be given.
func require(cmd *cobra.Command, flags ...string) {
	for _, name := range flags {
		_ = cmd.MarkFlagRequired(name) // fails only for a flag that does not exist
	}
}

// A ranError came out of a command that was called correctly; every other error
// is one of usage, and cobra's.
type ranError struct{ error }

func (e *ranError) Unwrap() error { return e.error }

// runs makes f the body of a command.
func runs(f func(cmd *cobra.Command, args []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		if err := f(cmd, args); err != nil {
			return &ranError{err}
		}
		return nil
	}
}

// A checkedWriter remembers that something could not be written: a command that has lost
// its output has failed, whoever wrote it.
type checkedWriter struct {
	w   io.Writer
	err error
}

func (c *checkedWriter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	if err != nil && c.err == nil {
		c.err = err
	}
	return n, err
}
