package stream

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/sqlite-replicator/replicator/cdc"
	"github.com/sqlite-replicator/replicator/internal/tick"
)

const (
	pullBytes     = 2 << 20          // of one request for records; heartbeats wait behind them on a slow link
	pullRecords   = 4096             // asked for and not yet taken; the client has a place for each
	goneAfter     = 30 * time.Second // the server drops a consumer nobody pulls from
	maxStallPolls = 32               // backoff of restarts, for links on which one record takes long
)

// Consume calls handle for every record from the LSN from on, in order; pending
// is the number of records known to be in the stream behind this one, so that
// the caller can group them. handle is called from the caller's goroutine and
// may keep rec.
//
// Records below from are not needed, but the stream must reach up to from-1.
// Consume ends with the error of handle, when ctx ends, or when the stream does
// not lead on from here: *TrimmedError, ErrBeyond, ErrRecreated, ErrNoStream. An
// idle consumer notices those within a Poll, and a silent loss, which it heals,
// within two. It waits a Poll for NATS to come back and then ends with
// ErrUnavailable; call it again from the next record.
func (s *Stream) Consume(ctx context.Context, from cdc.LSN, handle func(rec []byte, lsn cdc.LSN, pending uint64) error) error {
	c := &consumption{s: s, want: max(from, 1), handle: handle, stallPolls: 2}
	var away time.Time // since when NATS does not answer
	for {
		before := c.want
		err := c.session(ctx)
		lost, down := errors.Is(err, errRestart), errors.Is(err, ErrUnavailable)
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case !lost && !down:
			return err
		case lost || away.IsZero():
			away = time.Now()
		case time.Since(away) > s.cfg.Poll:
			return err
		}
		s.conn.log.Debug("stream: consumer restarts", "db", s.db, "lsn", c.want, "err", err)
		if c.want != before {
			c.stallPolls = 2
			continue
		}
		if err := c.pause(ctx); err != nil {
			return err
		}
	}
}

// errRestart ends a session that another one, from the record that is due, may
// heal.
var errRestart = errors.New("stream: consumer lost")

// A consumption is one run of Consume. JetStream's consumers are ephemeral and
// hold nothing: the record that is due is all the state there is, and every
// doubt is settled by a new consumer from there.
type consumption struct {
	s       *Stream
	want    cdc.LSN   // the record that is due
	last    cdc.LSN   // the highest known to be in the stream
	created time.Time // of the stream
	handle  func([]byte, cdc.LSN, uint64) error

	stallPolls int // polls without a record before a session is given up
}

// pause waits for NATS to come back, or a Poll.
func (c *consumption) pause(ctx context.Context) error {
	changed := c.s.conn.Changed()
	t := time.NewTimer(c.s.cfg.Poll)
	defer t.Stop()
	select {
	case <-changed:
	case <-t.C:
	case <-c.s.conn.closed:
		return c.s.conn.Err()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	return nil
}

// check compares the stream with what is due.
func (c *consumption) check(ctx context.Context) (Info, error) {
	info, err := c.s.Info(ctx)
	switch {
	case err != nil:
		return info, err
	case !info.Exists:
		return info, fmt.Errorf("stream: consume %s: %w", c.s.db, ErrNoStream)
	case !c.created.IsZero() && !info.Created.Equal(c.created):
		return info, fmt.Errorf("stream: consume %s from record %d: %w", c.s.db, c.want, ErrRecreated)
	case info.Last+1 < c.want:
		return info, fmt.Errorf("stream: consume %s from record %d: the stream ends at %d: %w", c.s.db, c.want, info.Last, ErrBeyond)
	case info.First > c.want:
		return info, &TrimmedError{Want: c.want, First: info.First}
	}
	c.created = info.Created
	c.last = max(c.last, info.Last)
	return info, nil
}

// session delivers through one JetStream consumer until something is wrong.
func (c *consumption) session(ctx context.Context) error {
	link := c.s.conn.nc.Stats().Reconnects
	if _, err := c.check(ctx); err != nil {
		return err
	}
	cons, err := c.open(ctx)
	if err != nil {
		return err
	}
	defer func() {
		bye, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		_ = c.s.conn.js.DeleteConsumer(bye, c.s.Name(), cons.CachedInfo().Name) // it expires anyway
	}()
	// A bound in bytes alone makes the client set up a channel of a million places.
	it, err := cons.Messages(jetstream.PullMaxMessagesWithBytesLimit(pullRecords, pullBytes), jetstream.WithMessagesErrOnMissingHeartbeat(false))
	if err != nil {
		return wrap(ctx, err, "consume %s from record %d", c.s.db, c.want)
	}
	p := startPump(it)
	defer p.stop()
	return c.deliver(ctx, p, link)
}

// open makes a JetStream consumer that begins at the record that is due.
func (c *consumption) open(ctx context.Context) (jetstream.Consumer, error) {
	req, cancel := c.s.conn.request(ctx)
	defer cancel()
	cons, err := c.s.conn.js.CreateConsumer(req, c.s.Name(), jetstream.ConsumerConfig{
		DeliverPolicy: jetstream.DeliverByStartSequencePolicy, OptStartSeq: uint64(c.want),
		AckPolicy: jetstream.AckNonePolicy, MemoryStorage: true, Replicas: 1, InactiveThreshold: goneAfter,
	})
	return cons, wrap(ctx, err, "consume %s from record %d", c.s.db, c.want)
}

// deliver hands records over as they come, and looks after the stream while
// none do.
func (c *consumption) deliver(ctx context.Context, p *pump, link uint64) error {
	poll := tick.NewTicker(c.s.cfg.Poll)
	defer poll.Stop()
	w := watch{at: c.want}
	for {
		changed := c.s.conn.Changed()
		if c.s.conn.nc.Stats().Reconnects != link {
			return fmt.Errorf("%w: reconnected", errRestart)
		}
		select {
		case msg := <-p.msgs:
			if err := c.takeAll(ctx, msg, p.msgs); err != nil {
				return err
			}
		case <-poll.C:
			poll.Next()
			if err := c.watch(ctx, &w); err != nil {
				return err
			}
		case <-changed:
		case err := <-p.failed:
			return fmt.Errorf("%w: %w", errRestart, err)
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// takeAll takes msg and what is at hand behind it.
func (c *consumption) takeAll(ctx context.Context, msg jetstream.Msg, more <-chan jetstream.Msg) error {
	for {
		if err := c.take(ctx, msg); err != nil {
			return err
		}
		select {
		case msg = <-more:
		default:
			return nil
		}
	}
}

// take checks the number of one message and hands its record over.
func (c *consumption) take(ctx context.Context, msg jetstream.Msg) error {
	meta, err := msg.Metadata()
	if err != nil {
		return fmt.Errorf("%w: %w", errRestart, err)
	}
	if ctx.Err() != nil { // the caller may never get to wait
		return context.Cause(ctx)
	}
	lsn := cdc.LSN(meta.Sequence.Stream)
	if lsn != c.want {
		return c.explainGap(ctx, lsn)
	}
	c.last = max(c.last, lsn+cdc.LSN(meta.NumPending))
	c.want++
	return c.handle(msg.Data(), lsn, uint64(c.last-lsn))
}

// explainGap tells a message lost on the way, which a new consumer delivers
// again, from a record that the stream no longer has.
func (c *consumption) explainGap(ctx context.Context, got cdc.LSN) error {
	if _, err := c.check(ctx); err != nil {
		return err
	}
	if _, err := c.s.Get(ctx, c.want); errors.Is(err, ErrNotFound) {
		return &TrimmedError{Want: c.want, First: got}
	} else if err != nil {
		return err
	}
	return fmt.Errorf("%w: record %d came where %d is due", errRestart, got, c.want)
}

// A watch counts the polls during which a record that the stream has did not
// come.
type watch struct {
	at     cdc.LSN
	missed int
}

// watch runs at every poll. JetStream says nothing when a consumer is gone, when
// the stream is, or when nothing is left to deliver. Any of them looks like a
// quiet database, so ask.
func (c *consumption) watch(ctx context.Context, w *watch) error {
	if c.want != w.at {
		*w = watch{at: c.want}
		return nil
	}
	info, err := c.check(ctx)
	if err != nil {
		return err
	}
	if info.Last < c.want {
		w.missed = 0
		return nil
	}
	if w.missed++; w.missed < c.stallPolls {
		return nil
	}
	c.stallPolls = min(2*c.stallPolls, maxStallPolls)
	return fmt.Errorf("%w: record %d does not come", errRestart, c.want)
}

// A pump moves messages from the client's iterator, which can only be waited
// for alone, into a channel.
type pump struct {
	it     jetstream.MessagesContext
	msgs   chan jetstream.Msg
	failed chan error
	quit   chan struct{}
	done   chan struct{}
}

func startPump(it jetstream.MessagesContext) *pump {
	p := &pump{
		it: it, msgs: make(chan jetstream.Msg, 16), failed: make(chan error, 1),
		quit: make(chan struct{}), done: make(chan struct{}),
	}
	go p.run()
	return p
}

func (p *pump) run() {
	defer close(p.done)
	for {
		msg, err := p.it.Next()
		if err != nil {
			p.failed <- err
			return
		}
		select {
		case p.msgs <- msg:
		case <-p.quit:
			return
		}
	}
}

func (p *pump) stop() {
	close(p.quit)
	p.it.Stop()
	<-p.done
}
