package main

import (
	"errors"
	"fmt"

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
