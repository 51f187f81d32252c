package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/sqlite-replicator/replicator/internal/config"
)

// Exit codes.
const (
	codeOK       = 0
	codeFailure  = 1
	codeUsage    = 2 // the command line or the configuration
	codeLate     = 3 // lag or time exceeded
	codeDiverged = 4 // a copy is not equal
)

// An exitError is an error with an exit code of its own.
type exitError struct {
	code int
	error
}

func (e *exitError) Unwrap() error { return e.error }

func usagef(format string, args ...any) error {
	return &exitError{codeUsage, fmt.Errorf(format, args...)}
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

func exitCode(err error) int {
	var exit *exitError
	var ran *ranError
	switch {
	case err == nil:
		return codeOK
	case errors.As(err, &exit):
		return exit.code
	case errors.Is(err, config.ErrInvalid), !errors.As(err, &ran):
		return codeUsage
	}
	return codeFailure
}
