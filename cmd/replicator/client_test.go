package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"syscall"
	"testing"
	"time"
)

// TestWaitForNoLag: a bound of nothing is a bound, and not the want of one.
func TestWaitForNoLag(t *testing.T) {
	var asked string
	node := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { asked = r.URL.RawQuery }))
	defer node.Close()
	for bound, want := range map[string]string{"--max-lag=0s": "max_lag=0s", "--max-lag=2s": "max_lag=2s", "--timeout=10s": ""} {
		e := &environment{stdout: io.Discard, stderr: t.Output(), clock: time.Now}
		if code := execute(t.Context(), e, []string{"wait", "--url", node.URL, bound}); code != codeOK || asked != want {
			t.Errorf("%s: exit code %d, the node was asked for %q; want %q", bound, code, asked, want)
		}
	}
}

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
