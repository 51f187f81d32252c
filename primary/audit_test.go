package primary

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sqlite-replicator/replicator/cdc"
	"github.com/sqlite-replicator/replicator/internal/sqlite"
)

// released waits until nothing of the source is frozen.
func (b *bench) released() {
	b.t.Helper()
	noError(b.t, b.p.ask(b.ctx, func(c *capture) error {
		c.frozen.Wait()
		return nil
	}))
}

// audited begins an audit and waits for its sums.
func (b *bench) audited() (cdc.ID, AuditState) {
	b.t.Helper()
	id, _, err := b.p.BeginAudit(b.ctx)
	noError(b.t, err)
	s, err := b.p.Audit(b.ctx, id)
	noError(b.t, err)
	if s.Audit == nil {
		b.t.Fatalf("no sums: %+v", s)
	}
	return id, s
}

// TestAudit: an audit is of one state, whose rows can be asked for until it ends.
func TestAudit(t *testing.T) {
	b := newBench(t, oneTable+"; CREATE TABLE w(k PRIMARY KEY) WITHOUT ROWID; INSERT INTO t VALUES(1,'a'),(2,'b')")
	b.start()
	b.sync()
	want, schema, err := b.app.Content(b.ctx, nil)
	noError(t, err)
	id, s := b.audited()
	b.exec("INSERT INTO t VALUES(3,'c')")
	b.sync()
	if s.Audit.Schema != schema || fmt.Sprint(s.Audit.Tables) != fmt.Sprint(want) {
		t.Errorf("sums %v, want %v", s.Audit.Tables, want)
	}
	if s.Read.Rows != 2 || s.Read.Bytes == 0 || s.Bytes != 3*4096 {
		t.Errorf("read %+v of %d bytes", s.Read, s.Bytes)
	}
	if n := b.p.Status().Audits; n != 1 {
		t.Errorf("%d audits", n)
	}
	all := RowRange{Table: "t", First: math.MinInt64, Last: math.MaxInt64, Size: 10, Most: 10}
	runs, err := b.p.AuditRows(b.ctx, id, all)
	noError(t, err)
	if len(runs) != 1 || runs[0].Rows != 2 || runs[0].Sum != want[0].Sum {
		t.Errorf("rows %+v of %+v", runs, want[0])
	}
	all.Table = "w"
	if _, err := b.p.AuditRows(b.ctx, id, all); !errors.Is(err, sqlite.ErrNoRowid) {
		t.Errorf("WITHOUT ROWID: %v", err)
	}
	b.p.EndAudit(id)
	b.released()
	if n := b.p.Status().Audits; n != 0 {
		t.Errorf("%d audits", n)
	}
	if _, err := b.p.Audit(b.ctx, id); !errors.Is(err, ErrNoAudit) {
		t.Errorf("after the end: %v", err)
	}
	if _, err := b.p.AuditRows(b.ctx, id, all); !errors.Is(err, ErrNoAudit) {
		t.Errorf("after the end: %v", err)
	}
	b.p.EndAudit(id)
}

// TestAuditEndsWhileItReads: what is no longer wanted is not read to its end.
func TestAuditEndsWhileItReads(t *testing.T) {
	a := &audit{done: make(chan struct{})}
	b := newBench(t, oneTable+"; INSERT INTO t VALUES(1,'a')")
	b.start()
	b.sync()
	frozen, err := b.p.freeze(b.ctx)
	noError(t, err)
	a.frozen = frozen
	a.ctx, a.cancel = context.WithCancelCause(frozen.alive)
	noError(t, b.p.audits.add(cdc.ID{1}, a))
	b.p.EndAudit(cdc.ID{1})
	a.run(func(context.Context, cdc.Position, []knownSum, []sqlite.TableSum) int {
		t.Error("sums that were not computed are compared")
		return 0
	})
	if !errors.Is(a.err, ErrNoAudit) {
		t.Errorf("ended with %v", a.err)
	}
	b.released()
}

// TestForgottenAuditExpires: the replica that began it is gone.
func TestForgottenAuditExpires(t *testing.T) {
	b := newBench(t, oneTable)
	var later atomic.Int64 // that the clock is ahead
	b.edit = func(o *Options) {
		o.Clock = func() time.Time { return time.Now().Add(time.Duration(later.Load())) }
	}
	b.start()
	b.sync()
	id, _ := b.audited()
	later.Store(int64(auditLease - time.Second))
	_, err := b.p.Audit(b.ctx, id) // it lasts while somebody asks
	noError(t, err)
	later.Store(int64(2*auditLease - 2*time.Second))
	_, err = b.p.Audit(b.ctx, id)
	noError(t, err)
	later.Add(int64(auditLease + time.Second))
	b.exec("INSERT INTO t VALUES(1,1)")
	b.sync()
	noError(t, b.p.changed.wait(b.ctx, func() bool { return b.p.Status().Audits == 0 }))
	b.released()
	if _, err := b.p.Audit(b.ctx, id); !errors.Is(err, ErrNoAudit) {
		t.Errorf("got %v", err)
	}
}

// TestAuditGivesWay: the application needs the room, and the replica hears why its
// comparison has ended.
func TestAuditGivesWay(t *testing.T) {
	b := newBench(t, oneTable)
	b.edit = func(o *Options) { o.Capture.MaxSQLiteWAL = 4 << 20 }
	b.start()
	b.sync()
	id, _ := b.audited()
	for b.p.Status().Audits > 0 {
		noError(t, b.ctx.Err())
		b.exec("INSERT INTO t(v) VALUES(zeroblob(100000))")
		b.sync()
	}
	b.released()
	all := RowRange{Table: "t", First: math.MinInt64, Last: math.MaxInt64, Size: 10, Most: 10}
	if _, err := b.p.AuditRows(b.ctx, id, all); !errors.Is(err, errAuditSpace) || !strings.Contains(err.Error(), "max_sqlite_wal") {
		t.Errorf("got %v", err)
	}
}

// TestAuditEndsWithItsTerm: the source is closed only when nobody reads it any more.
func TestAuditEndsWithItsTerm(t *testing.T) {
	b := newBench(t, oneTable)
	b.start()
	b.sync()
	id, _ := b.audited()
	_ = b.p.ask(b.ctx, func(*capture) error { return errors.New("the term ends") })
	b.exec("INSERT INTO t VALUES(1,1)")
	b.sync() // of the next term
	if _, err := b.p.AuditRows(b.ctx, id, RowRange{Table: "t", Size: 1, Most: 1}); err == nil {
		t.Error("rows of a source that is closed")
	}
}

func TestNotTooManyAudits(t *testing.T) {
	b := newBench(t, oneTable)
	b.start()
	b.sync()
	for range maxAudits {
		b.audited()
	}
	if _, _, err := b.p.BeginAudit(b.ctx); err == nil || !strings.Contains(err.Error(), "try again") {
		t.Errorf("got %v", err)
	}
	if n := b.p.Status().Audits; n != maxAudits {
		t.Errorf("%d audits", n)
	}
}
