package clock

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

func TestSystem(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := System{}.Now()
		if err := (System{}).Sleep(t.Context(), time.Hour); err != nil || time.Since(began) != time.Hour {
			t.Errorf("slept %s, %v", time.Since(began), err)
		}
		why := errors.New("enough")
		ctx, cancel := context.WithTimeoutCause(t.Context(), time.Minute, why)
		defer cancel()
		if err := (System{}).Sleep(ctx, time.Hour); err != why || time.Since(began) != time.Hour+time.Minute {
			t.Errorf("slept %s in all, %v", time.Since(began), err)
		}
	})
}
