package stream

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
)

const (
	statusHeader  = "Replicator-Status"  // "error": the body is its text
	timeoutHeader = "Replicator-Timeout" // how long the caller waits, as a duration
	maxServing    = 64                   // requests to one method at a time
	clockProbes   = 5
	clockGood     = time.Millisecond // round trip after which no quicker one is looked for
)

// MethodClock is the method that [ClockHandler] serves.
const MethodClock = "clock"

// A Handler answers a request. ctx ends when the caller stops waiting or the
// server ends. The text of an error reaches the caller.
type Handler func(ctx context.Context, req []byte) ([]byte, error)

// Serve answers the requests to one method of db, each in a goroutine of its
// own, until ctx ends. It does not wait; done is closed when ctx has ended and
// all handlers have returned.
func (c *Conn) Serve(ctx context.Context, db, method string, h Handler) (done <-chan struct{}, err error) {
	s := &service{ctx: ctx, conn: c, handle: h, slots: make(chan struct{}, maxServing)}
	sub, err := c.nc.Subscribe(subject(db, "rpc."+method), s.serve)
	if err != nil {
		return nil, wrap(ctx, err, "serve %s of %s", method, db)
	}
	ended := make(chan struct{})
	context.AfterFunc(ctx, func() {
		_ = sub.Unsubscribe() // fails only when the connection is closed
		s.end()
		close(ended)
	})
	return ended, nil
}

// A service serves one method.
type service struct {
	ctx    context.Context // of Serve: callbacks of the client have none
	conn   *Conn
	handle Handler
	slots  chan struct{}

	mu      sync.Mutex // orders the last Add before Wait
	ended   bool
	serving sync.WaitGroup
}

func (s *service) serve(m *nats.Msg) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		return
	}
	select {
	case s.slots <- struct{}{}:
	default:
		s.reply(m, nil, fmt.Errorf("busy with %d requests, try again", maxServing))
		return
	}
	s.serving.Go(func() {
		defer func() { <-s.slots }()
		ctx, cancel := s.ctx, context.CancelFunc(func() {})
		if d, err := time.ParseDuration(m.Header.Get(timeoutHeader)); err == nil {
			ctx, cancel = context.WithTimeout(ctx, d)
		}
		defer cancel()
		res, err := s.handle(ctx, m.Data)
		s.reply(m, res, err)
	})
}

func (s *service) end() {
	s.mu.Lock()
	s.ended = true
	s.mu.Unlock()
	s.serving.Wait()
}

func (s *service) reply(m *nats.Msg, res []byte, err error) {
	answer := &nats.Msg{Subject: m.Reply, Data: res}
	if err != nil {
		answer.Header = nats.Header{statusHeader: {"error"}}
		answer.Data = []byte(err.Error())
	}
	err = m.RespondMsg(answer)
	if errors.Is(err, nats.ErrMaxPayload) { // else whoever asked would wait for nothing
		answer.Header = nats.Header{statusHeader: {"error"}}
		answer.Data = fmt.Appendf(nil, "the answer has %d bytes, more than the server's max_payload of %d", len(answer.Data), s.conn.nc.MaxPayload())
		err = m.RespondMsg(answer)
	}
	if err != nil {
		s.conn.log.Debug("stream: answer not sent", "subject", m.Subject, "err", err)
	}
}

// Request asks whoever serves the method of db, and waits until ctx ends, or 5 s
// if it never does. Nobody there is ErrNoResponder, an error of the handler is
// ErrRemote, and a connection that breaks is ErrUnavailable.
func (c *Conn) Request(ctx context.Context, db, method string, req []byte) ([]byte, error) {
	wait := opTimeout
	if deadline, ok := ctx.Deadline(); ok {
		wait = time.Until(deadline)
	}
	bounded, cancel := c.bounded(ctx, wait)
	defer cancel()
	msg := &nats.Msg{
		Subject: subject(db, "rpc."+method), Data: req,
		Header: nats.Header{timeoutHeader: {wait.String()}},
	}
	res, err := c.nc.RequestMsgWithContext(bounded, msg)
	switch {
	case errors.Is(err, nats.ErrNoResponders):
		return nil, fmt.Errorf("stream: request %s of %s: %w", method, db, ErrNoResponder)
	case err != nil:
		return nil, wrap(ctx, err, "request %s of %s", method, db)
	case res.Header.Get(statusHeader) == "error":
		return nil, fmt.Errorf("stream: request %s of %s: %w: %s", method, db, ErrRemote, res.Data)
	}
	return res.Data, nil
}

// ClockHandler answers with the time in nanoseconds since 1970, in decimal.
func ClockHandler(now func() time.Time) Handler {
	return func(context.Context, []byte) ([]byte, error) {
		return strconv.AppendInt(nil, now().UnixNano(), 10), nil
	}
}

// ClockOffset measures how far the clock of the primary of db is ahead of now,
// and the round trip it was measured with: the offset is wrong by at most half
// of that. It asks a few times, unless an answer is quick, and keeps the quickest.
func (c *Conn) ClockOffset(ctx context.Context, db string, now func() time.Time) (offset, rtt time.Duration, err error) {
	for i := range clockProbes {
		sent := now()
		res, err := c.Request(ctx, db, MethodClock, nil)
		took := now().Sub(sent)
		if err != nil {
			return 0, 0, err
		}
		ns, err := strconv.ParseInt(string(res), 10, 64)
		if err != nil {
			return 0, 0, fmt.Errorf("stream: request clock of %s: the answer has %d bytes and is no time", db, len(res))
		}
		if i == 0 || took < rtt {
			offset, rtt = time.Unix(0, ns).Sub(sent.Add(took/2)), took
		}
		if rtt <= clockGood {
			break
		}
	}
	return offset, rtt, nil
}
