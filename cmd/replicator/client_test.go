package main

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"testing"
	"time"
)

// TestPatiently: whatever is not told again and again ends the asking, and the end of
// the time does not hide what was told before.
func TestPatiently(t *testing.T) {
	refused := fmt.Errorf("nothing listens: %w", syscall.ECONNREFUSED)
	late := fmt.Errorf("cannot reach it: %w", context.DeadlineExceeded)
	other := errors.New("another")
	for _, c := range []struct {
		name    string
		answers []error
		want    error
	}{
		{"at once", []error{nil}, nil},
		{"after a while", []error{refused, nil}, nil},
		{"another error", []error{refused, other}, other},
		{"no time at all", []error{late}, late},
		{"the end while it asks", []error{refused, late}, refused},
	} {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		asked := 0
		err := patiently(ctx, func() error {
			asked++
			return c.answers[asked-1]
		})
		cancel()
		if err != c.want || asked != len(c.answers) {
			t.Errorf("%s: %v after %d questions", c.name, err, asked)
		}
	}
}
