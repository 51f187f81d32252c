package tick

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

func TestUntil(t *testing.T) {
	second := time.Unix(1_700_000_000, 0)
	for _, c := range []struct {
		now         time.Time
		every, want time.Duration
	}{
		{second, time.Second, time.Second}, // never at once: a loop would spin
		{second.Add(1), time.Second, time.Second - 1},
		{second.Add(999 * time.Millisecond), time.Second, time.Millisecond},
		{second.Add(700 * time.Millisecond), 500 * time.Millisecond, 300 * time.Millisecond},
	} {
		if got := Until(c.now, c.every); got != c.want {
			t.Errorf("Until(%s, %s) = %s, want %s", c.now, c.every, got, c.want)
		}
	}
}

// TestTogether: tickers that were started at different times tick at the same.
func TestTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := NewTicker(time.Second)
		defer a.Stop()
		time.Sleep(300 * time.Millisecond)
		b := NewTicker(500 * time.Millisecond)
		defer b.Stop()
		for range 3 {
			var half, whole time.Time
			<-b.C
			b.Next()
			half = time.Now()
			whole = <-a.C
			a.Next()
			<-b.C
			b.Next()
			if got := whole.Sub(half); got != 500*time.Millisecond || !time.Now().Equal(whole) {
				t.Errorf("ticks at %s, %s and %s", half, whole, time.Now())
			}
		}
	})
}

func TestWaitEnds(t *testing.T) {
	why := errors.New("over")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(why)
	if err := Wait(ctx, time.Hour); !errors.Is(err, why) {
		t.Errorf("Wait: %v", err)
	}
}
