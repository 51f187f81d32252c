package replica

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/sqlite-replicator/replicator/cdc"
	"github.com/sqlite-replicator/replicator/internal/sqlite"
)

// follow applies the stream from the file's position on until something is in
// the way.
func (r *Replica) follow(ctx context.Context) (err error) {
	a := r.a
	defer func() {
		if rerr := a.rollback(); err == nil {
			err = rerr
		}
	}()
	a.restart(a.mark)
	if err := a.guard.rest(ctx, false); err != nil {
		return err
	}
	if err := a.guard.unmoved(); err != nil { // nobody can read what it holds
		return err
	}
	r.board.goesOn()
	r.publish(0, 0)
	ctx, unwatch := r.watch(ctx)
	defer unwatch()
	f := startFeed(ctx, r, a.mark.LSN+1)
	defer f.stop()
	audit, stop := startAuditor(ctx, r)
	defer stop()
	defer interruptLate(ctx, a.guard.conn)()
	for {
		r.deliver(ctx)
		holds := r.holds
		var abandoned <-chan struct{}
		if r.hold != nil {
			holds, abandoned = nil, r.hold.ctx.Done()
		}
		select {
		case it := <-f.items:
			if err := r.take(ctx, f, it); err != nil {
				return err
			}
		case h := <-holds:
			r.hold = r.admit(ctx, h)
		case <-abandoned:
			r.hold = nil
		case err := <-audit.found:
			return err
		case d := <-r.found:
			return d
		case err := <-f.failed:
			it, ok := f.rest(err)
			if !ok || ctx.Err() != nil {
				return err
			}
			if err := r.take(ctx, f, it); err != nil {
				return err
			}
		}
	}
}

// stopGrace is how long a statement may go on after ctx has ended: long enough
// for any batch, not for the creation of a large index.
const stopGrace = 2 * time.Second

// interruptLate interrupts a statement that still runs some time after ctx has
// ended. What it interrupts is rolled back and comes again at the next start.
func interruptLate(ctx context.Context, c *sqlite.Conn) (stop func()) {
	over, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		select {
		case <-over:
			return
		case <-ctx.Done():
		}
		t := time.NewTimer(stopGrace)
		defer t.Stop()
		select {
		case <-over:
		case <-t.C:
			c.Interrupt()
		}
	}()
	return func() {
		close(over)
		<-done
	}
}

// take applies one record and what else is at hand, and commits: under backlog
// many records in one SQLite transaction, else each as it comes. A transaction
// that spans records is waited for.
func (r *Replica) take(ctx context.Context, f *feed, it item) error {
	for {
		f.taken(it)
		if err := r.apply(ctx, it); err != nil {
			return err
		}
		if r.a.whole() && r.full() {
			break
		}
		next, err := r.await(f)
		if err != nil {
			return err
		}
		if next == nil {
			break
		}
		it = *next
	}
	return r.commit(ctx, max(it.pending, uint64(len(f.items))))
}

// await gives the next record that belongs into the same SQLite transaction, nil
// when it should be committed as it is.
func (r *Replica) await(f *feed) (*item, error) {
	if r.a.whole() {
		select {
		case it := <-f.items:
			return &it, nil
		default:
			return nil, nil
		}
	}
	select {
	case it := <-f.items:
		return &it, nil
	case err := <-f.failed:
		if it, ok := f.rest(err); ok {
			return &it, nil
		}
		return nil, err
	}
}

// apply applies one record. A record that does not follow leaves what came
// before it whole: that is committed first.
func (r *Replica) apply(ctx context.Context, it item) error {
	if h, err := cdc.ParseHead(it.raw); err == nil && h.Kind == cdc.Part && r.a.whole() {
		if err := r.commit(ctx, it.pending+1); err != nil {
			return err
		}
	}
	err := r.a.add(ctx, it.raw)
	if err != nil && r.a.whole() && refused(err) {
		return errors.Join(err, r.commit(ctx, 0))
	}
	return err
}

// refused reports whether an error is about the record and not about the file.
func refused(err error) bool {
	for _, is := range []error{cdc.ErrGap, cdc.ErrFork, cdc.ErrBreak, cdc.ErrVersion, cdc.ErrCorrupt} {
		if errors.Is(err, is) {
			return true
		}
	}
	return false
}

// full reports whether the open SQLite transaction should end here.
func (r *Replica) full() bool {
	return r.a.records >= r.o.Apply.GroupMaxRecords || r.a.spool.bytes >= r.o.Apply.GroupMaxBytes ||
		r.hold != nil && r.a.next.LSN >= r.hold.lsn
}

// commit commits what is in hand and tells everyone. pending records follow.
func (r *Replica) commit(ctx context.Context, pending uint64) error {
	if r.a.next.LSN == r.a.mark.LSN {
		return nil
	}
	before, records, changes := r.a.mark, r.a.records, r.a.changes
	if err := r.a.commit(ctx); err != nil {
		return err
	}
	if err := r.a.guard.unmoved(); err != nil { // nobody can read what was committed
		return err
	}
	r.pause.reset()
	r.past.seeded = Mark{}
	err := r.a.guard.rest(ctx, pending > 0)
	r.board.count(func(c *Counters) {
		c.Commits++
		c.Records += uint64(records)
		c.Changes += changes
		c.Transactions += r.a.mark.Transactions - before.Transactions
		c.Swaps = r.a.redone
	})
	r.publish(before.LSN, pending)
	return err
}

// publish shows the position and, from the number of records that wait, whether
// the replica keeps up.
func (r *Replica) publish(from cdc.LSN, pending uint64) {
	r.board.applied(r.a.mark, func(s *Status) {
		s.LeftOff, s.SQLiteWAL = slices.Clone(r.a.w.schema.leftOff), r.a.guard.bytes
		switch {
		case from == 0:
		case pending == 0:
			r.board.move(Streaming)
		case pending > catchUpRecords || s.State != Streaming:
			r.board.move(CatchingUp)
			r.caught += uint64(r.a.mark.LSN - from)
			r.board.advance(Progress{Done: r.caught, Total: r.caught + pending, Unit: "records"})
			return
		}
		r.caught = 0
	})
}
