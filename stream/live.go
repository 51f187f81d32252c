package stream

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/nats-io/nats.go"
)

// SendHeartbeat sends h to the replicas of db that listen now.
func (c *Conn) SendHeartbeat(db string, h Heartbeat) error {
	return c.send(subject(db, "heartbeat"), h)
}

// SendReport sends r to the primary of r.DB, if it listens now.
func (c *Conn) SendReport(r Report) error {
	if len(r.Error) > maxError {
		r.Error = strings.ToValidUTF8(r.Error[:maxError], "") + " …"
	}
	return c.send(subject(r.DB, "report"), r)
}

// OnHeartbeat calls f for each heartbeat for db, one after another, until ctx
// ends. It does not wait; a call may still run when ctx ends.
func (c *Conn) OnHeartbeat(ctx context.Context, db string, f func(Heartbeat)) error {
	return listen(ctx, c, subject(db, "heartbeat"), f)
}

// OnReports calls f for each report of a replica of db, one after another,
// until ctx ends. It does not wait; a call may still run when ctx ends.
func (c *Conn) OnReports(ctx context.Context, db string, f func(Report)) error {
	return listen(ctx, c, subject(db, "report"), f)
}

// What is sent is kept for many replicas, from whoever may publish: bounds in bytes.
const (
	maxLive  = 16 << 10 // of a heartbeat or report that is taken
	maxError = 2 << 10  // of the error in a report that is sent; escaped it is six times as long at most
)

func (c *Conn) send(subject string, v any) error {
	b, err := json.Marshal(v)
	if err == nil {
		err = c.nc.Publish(subject, b)
	}
	return wrap(context.Background(), err, "send to %s", subject)
}

func parseLive[T any](b []byte) (v T, err error) {
	if len(b) > maxLive {
		return v, fmt.Errorf("%d bytes, at most %d are taken", len(b), maxLive)
	}
	if err := json.Unmarshal(b, &v); err != nil {
		return v, fmt.Errorf("%d bytes: %w", len(b), err)
	}
	return v, nil
}

// listen drops what it cannot read: it comes from whoever may publish.
func listen[T any](ctx context.Context, c *Conn, subject string, f func(T)) error {
	sub, err := c.nc.Subscribe(subject, func(m *nats.Msg) {
		if ctx.Err() != nil {
			return
		}
		v, err := parseLive[T](m.Data)
		if err != nil {
			c.log.Debug("stream: message ignored", "subject", subject, "err", err)
			return
		}
		f(v)
	})
	if err != nil {
		return wrap(ctx, err, "listen to %s", subject)
	}
	context.AfterFunc(ctx, func() { _ = sub.Unsubscribe() }) // fails only when it has ended already
	return nil
}
