package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/sqlite-replicator/replicator/internal/sqlite"
)

// longReadScenario shows what a read transaction costs that is open on the replica's file
// while everything is written: lag, and the SQLite WAL, which it keeps from starting over.
func longReadScenario(ctx context.Context, b *bench) error {
	t := trial{job: writeJob{rows: 1, rate: 1000, synchronous: "NORMAL", window: b.scale.window}, primary: true, replicas: 1, reader: true}
	without, err := b.try(ctx, t)
	if err != nil {
		return err
	}
	t.hold = true
	o, err := b.try(ctx, t)
	if err != nil {
		return err
	}
	note := fmt.Sprintf("limit: without it; %s tx/s reached", short(o.write.perSecond()))
	b.out.against("lag, p50", o.lag.P50, without.lag.P50, "ms", note)
	b.out.against("lag, p99", o.lag.P99, without.lag.P99, "ms", "")
	b.out.against("lag, longest", o.lag.Max, without.lag.Max, "ms", "")
	b.out.against("SQLite WAL of the replica", float64(o.replicaWAL)/(1<<20), float64(without.replicaWAL)/(1<<20), "MiB", "")
	b.out.against("complete after the program's end", o.complete, without.complete, "s", "the transaction is still open, and sees no new row")
	b.mem("", o)
	return nil
}

// A heldRead is a read transaction that stays open.
type heldRead struct {
	c    *sqlite.Conn
	rows int64
}

func holdRead(path string) (h *heldRead, err error) {
	h = &heldRead{}
	if h.c, err = sqlite.Open(path, sqlite.Options{ReadOnly: true}); err != nil {
		return nil, err
	}
	if err = h.c.OpenRead(); err == nil {
		h.rows, err = h.c.QueryInt("SELECT count(*) FROM t")
	}
	if err != nil {
		return nil, errors.Join(err, h.c.Close())
	}
	return h, nil
}

// end checks that the transaction saw one state all the time.
func (h *heldRead) end() error {
	n, err := h.c.QueryInt("SELECT count(*) FROM t")
	if err == nil && n != h.rows {
		err = fmt.Errorf("a read transaction saw %d rows and then %d", h.rows, n)
	}
	return errors.Join(err, h.c.Rollback(), h.c.Close())
}
