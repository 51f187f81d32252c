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
	var ran *ranError
	worst := worstCode(err)
	switch {
	case err == nil:
		return codeOK
	case worst != codeOK:
		return worst
	case errors.Is(err, config.ErrInvalid), !errors.As(err, &ran):
		return codeUsage
	}
	return codeFailure
}

// worstCode is the greatest code in err, of several databases say; codeOK if it has none.
func worstCode(err error) int {
	if exit, ok := err.(*exitError); ok {
		return exit.code
	}
	worst := codeOK
	switch e := err.(type) {
	case interface{ Unwrap() error }:
		worst = worstCode(e.Unwrap())
	case interface{ Unwrap() []error }:
		for _, each := range e.Unwrap() {
			worst = max(worst, worstCode(each))
		}
	}
	return worst
}
