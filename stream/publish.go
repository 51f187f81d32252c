package stream

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/sqlite-replicator/replicator/cdc"
	"github.com/sqlite-replicator/replicator/internal/tick"
)

const (
	headerRoom = 1 << 10 // bytes of headers that share a message's limit
	drainAtEnd = time.Second

	// hush is how long NATS may be silent after a question. With DefaultPoll a link
	// that lets nothing pass is a state within five seconds.
	hush = 2 * time.Second

	// lingering is the part of AckTimeout that records may wait on the link behind others.
	lingering = 5
)

// A publication is one run of Publish: a sender that fills the window and a
// collector that empties it in the same order.
type publication struct {
	s       *Stream
	subject string // ours alone; see claim
	js      jetstream.JetStream
	window  *window
	sent    chan *inFlight // closed by the sender; its places are there for each database, written or not
	open    chan struct{}  // closed when the first record is acknowledged
	began   time.Time
	settled atomic.Int64 // ns from began to the last acknowledgement
}

type inFlight struct {
	flight
	lsn cdc.LSN
	ack jetstream.PubAckFuture
}

// Publish sends the records that next gives, which are after+1, after+2, …,
// each on the condition that the stream ends right before it, and calls acked
// for each in order. next blocks until there is a record or its ctx ends; the
// bytes it returns are read before it is called again. acked and next are
// called from two goroutines, neither after Publish has returned.
//
// The stream must end at after, with a record that the caller has compared with
// its own log: Publish shuts every other publisher out of the stream. From then
// on it runs until ctx ends, next fails (that error is returned, after all that was
// sent is acknowledged) or NATS refuses: ErrSequence, ErrFull, ErrOverbooked,
// ErrNoStream, ErrTooLarge, or ErrUnavailable. It notices these within a Poll even while there
// is nothing to send. What was stored without an acknowledgement is then
// unknown, so compare Info and Get with the own log before publishing again.
func (s *Stream) Publish(ctx context.Context, after cdc.LSN, next func(context.Context) ([]byte, cdc.LSN, error), acked func(cdc.LSN)) error {
	own, err := s.claim(ctx, after)
	if err != nil {
		return err
	}
	js, err := jetstream.New(s.conn.nc, jetstream.WithPublishAsyncTimeout(s.cfg.AckTimeout))
	if err != nil {
		return fmt.Errorf("stream: publish %s: %w", s.db, err)
	}
	defer js.CleanupPublisher()
	p := &publication{
		s: s, subject: own, js: js, window: newWindow(s.cfg.AckTimeout / lingering),
		sent: make(chan *inFlight, windowRecords), open: make(chan struct{}), began: time.Now(),
	}
	sendCtx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	var watching sync.WaitGroup
	watching.Go(func() { p.watch(sendCtx, stop) })
	var sendErr error // read after sent is closed
	go func() {
		defer close(p.sent)
		sendErr = p.send(sendCtx, after, next)
	}()
	err = p.collect(ctx, stop, acked)
	if err == nil {
		err = context.Cause(sendCtx) // of watch; next only heard of it
	}
	if err == nil {
		err = sendErr
	}
	stop(err)
	watching.Wait()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return p.explain(ctx, err)
}

// watch looks after the stream while there is nothing to send: a server that
// was wiped, a stream that is gone and another publisher would else go unnoticed
// until the next record.
func (p *publication) watch(ctx context.Context, stop context.CancelCauseFunc) {
	t := time.NewTimer(p.untilCheck())
	defer t.Stop()
	for {
		changed := p.s.conn.Changed()
		if !p.s.conn.Connected() {
			stop(fmt.Errorf("stream: publish %s: %w", p.s.db, ErrUnavailable))
			return
		}
		select {
		case <-changed:
		case <-t.C:
			if p.quiet() >= p.s.cfg.Poll {
				heard, done := p.s.conn.whileHeard(ctx, hush)
				err := p.check(heard)
				done()
				if err != nil {
					stop(err)
					return
				}
			}
			t.Reset(p.untilCheck())
		case <-ctx.Done():
			return
		}
	}
}

// quiet is how long nothing was acknowledged.
func (p *publication) quiet() time.Duration {
	return time.Since(p.began) - time.Duration(p.settled.Load())
}

// untilCheck is the time until the stream is to be checked: a Poll after the last
// acknowledgement, but for the fraction that makes common ticks of it, and from then
// on when all idle streams are.
func (p *publication) untilCheck() time.Duration {
	const fraction = 4
	poll, quiet, now := p.s.cfg.Poll, p.quiet(), time.Now()
	if quiet >= poll {
		return tick.Until(now, poll)
	}
	before := poll - quiet - 1
	return before + tick.Until(now.Add(before), poll/fraction)
}

// check asks whether the stream is still there and still ours.
func (p *publication) check(ctx context.Context) error {
	found, err := p.s.survey(ctx)
	if err != nil {
		return err
	}
	if !slices.Contains(found.subjects, p.subject) {
		return fmt.Errorf("stream: publish %s: %w: it was taken over by another publisher, or reconfigured", p.s.db, ErrSequence)
	}
	return nil
}

// send fills the window. The second record waits for the first one to be
// acknowledged: from then on the end of the stream is ours.
func (p *publication) send(ctx context.Context, after cdc.LSN, next func(context.Context) ([]byte, cdc.LSN, error)) error {
	for want := after + 1; ; want++ {
		rec, lsn, err := next(ctx)
		if err != nil {
			return err
		}
		if err := p.s.checkRecord(rec, lsn, want); err != nil {
			return err
		}
		place, err := p.window.enter(ctx, int64(len(rec)))
		if err != nil {
			return err
		}
		msg := &nats.Msg{
			Subject: p.subject, Data: rec,
			Header: nats.Header{jetstream.ExpectedLastSeqHeader: {strconv.FormatUint(uint64(lsn-1), 10)}},
		}
		ack, err := p.js.PublishMsgAsync(msg, jetstream.WithRetryAttempts(0))
		if err != nil {
			return wrap(ctx, err, "publish %s: record %d", p.s.db, lsn)
		}
		select {
		case p.sent <- &inFlight{place, lsn, ack}:
		case <-ctx.Done():
			return ctx.Err()
		}
		select {
		case <-p.open:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// collect waits for the acknowledgements in order. After the first failure, or
// the end of ctx, it stops the sender and waits for what is in flight, so that
// nothing of this publication reaches the stream later.
func (p *publication) collect(ctx context.Context, stop context.CancelCauseFunc, acked func(cdc.LSN)) (failed error) {
	openGate := sync.OnceFunc(func() { close(p.open) })
	patience, giveUp := outlasting(ctx)
	defer giveUp()
	for m := range p.sent {
		err := p.await(patience, m)
		p.window.leave(m.flight)
		switch {
		case failed != nil:
		case err != nil:
			failed = wrap(ctx, err, "publish %s: record %d", p.s.db, m.lsn)
			stop(failed)
		default:
			p.settled.Store(int64(time.Since(p.began)))
			p.window.arrived(m.flight, time.Since(m.left))
			openGate()
			acked(m.lsn)
		}
	}
	return failed
}

// outlasting gives a context that ends drainAtEnd after ctx, or when end is called, which
// must be: for what was sent before ctx ended and may still be answered.
func outlasting(ctx context.Context) (patience context.Context, end func()) {
	patience, giveUp := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() {
		select {
		case <-time.After(drainAtEnd):
			giveUp()
		case <-patience.Done():
		}
	})
	return patience, func() { stop(); giveUp() }
}

// await waits for one acknowledgement. The client ends the wait after
// AckTimeout and when the connection breaks.
func (p *publication) await(ctx context.Context, m *inFlight) error {
	select {
	case err := <-m.ack.Err():
		return err
	case ack := <-m.ack.Ok():
		if ack.Stream != p.s.Name() || ack.Sequence != uint64(m.lsn) {
			return fmt.Errorf("%w: acknowledged as %d of %s", ErrSequence, ack.Sequence, ack.Stream)
		}
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// explain tells a stream that is gone, or that another publisher has claimed,
// from a server that is gone: all are silent.
func (p *publication) explain(ctx context.Context, err error) error {
	if !errors.Is(err, jetstream.ErrNoStreamResponse) {
		return err
	}
	if e := p.check(ctx); errors.Is(e, ErrNoStream) || errors.Is(e, ErrSequence) {
		return e
	}
	return err
}

// claim makes the stream listen on a new subject that only this publication
// knows, if it ends at after.
//
// The expected sequence alone does not fence a pipeline: of the records 10, 11,
// 12 sent to a stream that a foreign 10 has reached first, the 10 is refused
// and the 11 fits. So nobody else can send once we have claimed, and what they
// sent before is settled by waiting for the first acknowledgement: see send. A
// publisher that lost its subject finds nobody listening.
func (s *Stream) claim(ctx context.Context, after cdc.LSN) (subject string, err error) {
	h, err := s.handle(ctx)
	if err != nil {
		return "", err
	}
	have := h.CachedInfo()
	if last := cdc.LSN(have.State.LastSeq); last != after {
		return "", fmt.Errorf("stream: publish %s after record %d: %w, at %d", s.db, after, ErrSequence, last)
	}
	if subject, err = s.update(ctx, have.Config); err == nil {
		s.claimed.Store(&subject)
	}
	return subject, err
}

// settle waits until all that others had sent before subject was claimed is stored
// or refused: a message that cannot be taken is refused in its turn, behind theirs.
func (s *Stream) settle(ctx context.Context, subject string) error {
	req, cancel := s.conn.request(ctx)
	defer cancel()
	_, err := s.conn.js.PublishMsg(req, &nats.Msg{Subject: subject},
		jetstream.WithExpectLastSequence(math.MaxInt64), jetstream.WithRetryAttempts(0))
	if err = wrap(ctx, err, "settle %s", s.db); errors.Is(err, ErrSequence) || errors.Is(err, ErrFull) {
		return nil
	}
	if err == nil {
		err = fmt.Errorf("stream: settle %s: %w: it took a message for the end of time", s.db, ErrSequence)
	}
	return err
}
