package stream

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/nats-io/nats.go"
)

// SendHeartbeat sends h to the replicas of db that listen now.
func (c *Conn) SendHeartbeat(db string, h Heartbeat) error {
	return c.send(subject(db, "heartbeat"), h)
}

// SendReport sends r to the primary of r.DB, if it listens now.
func (c *Conn) SendReport(r Report) error {
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

func (c *Conn) send(subject string, v any) error {
	b, err := json.Marshal(v)
	if err == nil {
		err = c.nc.Publish(subject, b)
	}
	return wrap(context.Background(), err, "send to %s", subject)
}

// listen drops what it cannot read: it comes from whoever may publish.
func listen[T any](ctx context.Context, c *Conn, subject string, f func(T)) error {
	sub, err := c.nc.Subscribe(subject, func(m *nats.Msg) {
		if ctx.Err() != nil {
			return
		}
		var v T
		if err := json.Unmarshal(m.Data, &v); err != nil {
			c.log.Debug("stream: message ignored", "subject", subject, "err", fmt.Errorf("%d bytes: %w", len(m.Data), err))
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
