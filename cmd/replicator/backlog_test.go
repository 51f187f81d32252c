package main

import (
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sqlite-replicator/replicator/cdc"
	"github.com/sqlite-replicator/replicator/primary"
	"github.com/sqlite-replicator/replicator/snapshot"
	"github.com/sqlite-replicator/replicator/web"
)

// at is a mark s seconds after the start, with ten transactions of 100 bytes in
// each record.
func at(s int, lsn cdc.LSN) mark {
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	return mark{start.Add(time.Duration(s) * time.Second), lsn, snapshot.Totals{Transactions: 10 * uint64(lsn), Bytes: 1000 * uint64(lsn)}}
}

func lag(transactions, bytes uint64, seconds float64) web.Lag {
	return web.Lag{Transactions: &transactions, Bytes: &bytes, Seconds: &seconds}
}

func TestBacklog(t *testing.T) {
	var b backlog
	check := func(name string, now mark, published cdc.LSN, want web.Lag) {
		t.Helper()
		if diff := cmp.Diff(want, b.lag(now, published)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
	check("level at the start", at(0, 5), 5, lag(0, 0, 0))
	check("behind at the start: nobody knows", at(0, 5), 3, web.Lag{})

	b.note(at(0, 5), 5)
	b.note(at(60, 5), 5) // a quiet minute
	b.note(at(61, 8), 5) // NATS goes away
	b.note(at(62, 9), 5)
	check("since the last mark that is published", at(63, 10), 5, lag(50, 5000, 3))
	check("at most, between two marks", at(63, 10), 7, lag(50, 5000, 3))
	check("a part has got through", at(63, 10), 8, lag(20, 2000, 2))
	check("level again", at(63, 10), 10, lag(0, 0, 0))
	b.note(at(64, 12), 9)
	check("what is published is forgotten", at(65, 12), 9, lag(30, 3000, 3))
	check("and cannot come back", at(65, 12), 4, web.Lag{})
}

func TestBacklogIsBounded(t *testing.T) {
	var b backlog
	for i := range 100 * maxMarks {
		b.note(at(i, cdc.LSN(10+i)), 10)
	}
	if n := len(b.marks); n > maxMarks {
		t.Errorf("%d marks", n)
	}
	end := at(100*maxMarks, cdc.LSN(10+100*maxMarks))
	if got := b.lag(end, 10); got.Seconds == nil || *got.Seconds != float64(100*maxMarks) {
		t.Errorf("the first mark was lost: %+v", got)
	}
}

// TestLagOfAPrimaryThatCapturesNothing: nobody knows then what there is to publish, and
// its replicas hear so.
func TestLagOfAPrimaryThatCapturesNothing(t *testing.T) {
	began := clockOf(t)()
	now := began
	d := quietSource(t, func() time.Time { return now })
	if w := d.describe(); w.Lag != (web.Lag{}) {
		t.Errorf("before anything was captured, the lag is %+v", w.Lag)
	}
	now = now.Add(darkAfter + time.Second)
	if w := d.describe(); w.Lag.Seconds != nil || w.Lag.Since == nil || !w.Lag.Since.Equal(began) {
		t.Errorf("the lag is %+v", w.Lag)
	}
	if h := heartbeat(d.pipeline.Reach(), "p", now); h.State != primary.StateStarting || h.Level != 6*time.Second {
		t.Errorf("heartbeat %+v", h)
	}
	now = began
	why := errors.New("the disk is gone")
	d.ended.Store(&why)
	if w := d.describe(); w.State != primary.StateFailed || w.Lag.Seconds != nil || w.Lag.Since == nil {
		t.Errorf("it has ended: %s, the lag is %+v", w.State, w.Lag)
	}
}
