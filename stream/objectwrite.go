package stream

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"slices"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nuid"
	"golang.org/x/sync/errgroup"
)

// lingerParts is how long the messages of objects, put or read, may wait on the link behind others.
const lingerParts = time.Second

// put sends the messages of an object and then its description, with which it is there.
//
// The client's own Put takes back what it has sent only if ctx has not ended, and gives the
// messages names that tell nothing: what is interrupted would stay in the bucket for ever.
func (o *Objects) put(ctx context.Context, h jetstream.Stream, name string, data []byte) error {
	req, cancel := o.conn.request(ctx)
	defer cancel()
	before, err := objectInfo(req, h, o.meta(encoded(name)))
	if err != nil && !errors.Is(err, jetstream.ErrObjectNotFound) && !damaged(err) {
		return err
	}
	size := int(min(objectChunk, max(o.conn.nc.MaxPayload()-headerRoom, headerRoom)))
	sum := sha256.New()
	_, _ = sum.Write(data) // never fails
	info := jetstream.ObjectInfo{
		ObjectMeta: jetstream.ObjectMeta{Name: name, Opts: &jetstream.ObjectMetaOptions{ChunkSize: uint32(size)}},
		Bucket:     o.bucket, NUID: encoded(name) + "-" + nuid.Next(), Digest: jetstream.GetObjectDigestValue(sum),
		Size: uint64(len(data)), Chunks: uint32((len(data) + size - 1) / size),
	}
	if err := o.send(ctx, h, o.message(info.NUID), data, size); err != nil {
		return err
	}
	m := nats.NewMsg(o.meta(encoded(name)))
	m.Header.Set(jetstream.MsgRollup, jetstream.MsgRollupSubject)
	if m.Data, err = json.Marshal(info); err != nil {
		return err
	}
	short, cancel := o.conn.bounded(ctx, o.patience)
	defer cancel()
	if _, err := o.conn.js.PublishMsg(short, m); err != nil { // it may be there all the same
		return err
	}
	if before.NUID != "" {
		_ = h.Purge(short, jetstream.WithPurgeSubject(o.message(before.NUID))) // else with the object
	}
	return nil
}

// send sends data in messages of size bytes. After an error it has taken them back, if NATS
// has answered.
func (o *Objects) send(ctx context.Context, h jetstream.Stream, subject string, data []byte, size int) (err error) {
	js, err := jetstream.New(o.conn.nc)
	if err != nil {
		return err
	}
	defer js.CleanupPublisher() // else it keeps data for as long as an acknowledgement is missing
	patience, giveUp := outlasting(ctx)
	defer giveUp()
	g, sending := errgroup.WithContext(ctx)
	for part := range slices.Chunk(data, size) {
		var place flight
		if place, err = o.conn.parts.enter(sending, int64(len(part))); err != nil {
			break
		}
		var ack jetstream.PubAckFuture // one that is tried again would come behind the next
		if ack, err = js.PublishMsgAsync(&nats.Msg{Subject: subject, Data: part}, jetstream.WithRetryAttempts(0)); err != nil {
			o.conn.parts.leave(place)
			break
		}
		g.Go(func() error {
			defer o.conn.parts.leave(place)
			err := o.acknowledged(patience, ack)
			if err == nil {
				o.conn.parts.arrived(place, time.Since(place.left))
			}
			return err
		})
	}
	// Also after an error: what is taken back must have arrived.
	if failed := g.Wait(); failed != nil {
		err = failed
	}
	if err != nil {
		_ = h.Purge(patience, jetstream.WithPurgeSubject(subject)) // else List tells of it
	}
	return err
}

// acknowledged waits for one message: of an object on a slow link all of them may take long.
func (o *Objects) acknowledged(ctx context.Context, ack jetstream.PubAckFuture) error {
	ctx, cancel := context.WithTimeout(ctx, o.patience)
	defer cancel()
	select {
	case <-ack.Ok():
		return nil
	case err := <-ack.Err():
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}
