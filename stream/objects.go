package stream

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

const (
	objectTimeout = time.Hour        // of one object; each of its messages has chunkTimeout
	deleteTimeout = 15 * time.Second // a few requests
	chunkTimeout  = 30 * time.Second // of one message of an object, on a slow link that others use too
	objectChunk   = 512 << 10        // bytes of one message of an object
	maxObject     = 256 << 20        // bytes; an object is held in memory whole
)

// Objects is the snapshot store of one database: a bucket of JetStream's object
// store. An object is there whole or not at all. Methods may be called
// concurrently. They fail with ErrUnavailable when the connection breaks.
type Objects struct {
	conn     *Conn
	bucket   string
	replicas int
	patience time.Duration // with one message
}

// Objects is the snapshot store of the database db; replicas is the number of
// copies JetStream keeps. The bucket is created by the first Put.
func (c *Conn) Objects(db string, replicas int) *Objects {
	return &Objects{conn: c, bucket: "REPLICATOR_" + db + "_SNAPSHOTS", replicas: max(replicas, 1), patience: chunkTimeout}
}

// with runs f on the stream of the bucket, for d at most. A bucket that is missing is
// ErrNotFound. A cluster that has no leader at the moment answers nothing at all,
// so what is a mere question gets the time of one.
func (o *Objects) with(ctx context.Context, d time.Duration, what string, f func(context.Context, jetstream.Stream) error) error {
	req, cancel := o.conn.request(ctx)
	h, err := o.conn.js.Stream(req, o.stream())
	cancel()
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		err = jetstream.ErrBucketNotFound
	}
	if err == nil {
		req, cancel := o.conn.bounded(ctx, d)
		defer cancel()
		err = f(req, h)
	}
	return wrap(ctx, err, "%s in %s", what, o.bucket)
}

// Put stores data under name in place of what was there. After a crash in the middle of it,
// and without a connection to take back what was sent, List tells of what is left.
func (o *Objects) Put(ctx context.Context, name string, data []byte) error {
	put := func(ctx context.Context, h jetstream.Stream) error { return o.put(ctx, h, name, data) }
	err := o.with(ctx, objectTimeout, "put "+name, put)
	if !errors.Is(err, jetstream.ErrBucketNotFound) {
		return err
	}
	if err := o.create(ctx); err != nil {
		return err
	}
	return o.with(ctx, objectTimeout, "put "+name, put)
}

func (o *Objects) create(ctx context.Context) error {
	req, cancel := o.conn.request(ctx)
	defer cancel()
	_, err := o.conn.js.CreateObjectStore(req, jetstream.ObjectStoreConfig{
		Bucket: o.bucket, Storage: jetstream.FileStorage, Replicas: o.replicas,
	})
	if errors.Is(err, jetstream.ErrBucketExists) {
		return nil // by another Put
	}
	return wrap(ctx, err, "create %s", o.bucket)
}

// List returns the names that start with prefix, in order, and name + ".tmp" for what a Put
// that came to no end has left of one that is not there.
//
// It asks for the subjects of the bucket, because the client's own List waits for
// a last message that a Delete at the same time may take away: until ctx ends.
func (o *Objects) List(ctx context.Context, prefix string) (names []string, err error) {
	req, cancel := o.conn.request(ctx)
	defer cancel()
	h, err := o.conn.js.Stream(req, o.stream())
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return nil, nil
	}
	var info *jetstream.StreamInfo
	if err == nil {
		info, err = h.Info(req, jetstream.WithSubjectFilter("$O."+o.bucket+".>"))
	}
	if err != nil {
		return nil, wrap(ctx, err, "list %s", within(prefix, o.bucket))
	}
	for subject := range info.State.Subjects {
		name, err := o.listed(subject, info.State.Subjects)
		if err != nil {
			return nil, fmt.Errorf("stream: list %s: subject %q: %w", within(prefix, o.bucket), subject, err)
		}
		if name != "" && strings.HasPrefix(name, prefix) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return slices.Compact(names), nil
}

// listed is the name that List gives for one of the subjects that are there; empty: none.
func (o *Objects) listed(subject string, there map[string]uint64) (string, error) {
	if last, ok := strings.CutPrefix(subject, o.meta("")); ok {
		name, err := base64.URLEncoding.DecodeString(last)
		return string(name), err
	}
	id := strings.TrimPrefix(subject, o.message(""))
	last := id[:max(strings.LastIndexByte(id, '-'), 0)]
	name, err := base64.URLEncoding.DecodeString(last)
	if _, whole := there[o.meta(last)]; whole || last == "" || err != nil { // or none of ours
		return "", nil
	}
	return string(name) + leftOver, nil
}

func (o *Objects) stream() string { return "OBJ_" + o.bucket }

// meta is the subject of an object's description; last is its name encoded.
func (o *Objects) meta(last string) string { return "$O." + o.bucket + ".M." + last }

// message is the subject of an object's messages. The id is the name encoded, a hyphen and
// what tells one Put from another.
func (o *Objects) message(id string) string { return "$O." + o.bucket + ".C." + id }

func encoded(name string) string { return base64.URLEncoding.EncodeToString([]byte(name)) }

// leftOver ends the name of what is no object.
const leftOver = ".tmp"

// Delete removes an object; an absent one is ErrNotFound. The description goes first, and
// no mark of it stays: names never come back, and every List would read it.
func (o *Objects) Delete(ctx context.Context, name string) error {
	return o.with(ctx, deleteTimeout, "delete "+name, func(ctx context.Context, h jetstream.Stream) error {
		info, err := objectInfo(ctx, h, o.meta(encoded(name)))
		absent := errors.Is(err, jetstream.ErrObjectNotFound)
		if left, ok := strings.CutSuffix(name, leftOver); absent && ok {
			return o.clear(ctx, h, left)
		}
		if err != nil && !absent && !damaged(err) {
			return err
		}
		if err := h.Purge(ctx, jetstream.WithPurgeSubject(o.meta(encoded(name)))); err != nil {
			return err
		}
		switch {
		case absent:
			return err
		case err != nil: // List tells of its messages now
			return nil
		}
		return h.Purge(ctx, jetstream.WithPurgeSubject(o.message(info.NUID)))
	})
}

// clear removes what is left of an object.
func (o *Objects) clear(ctx context.Context, h jetstream.Stream, name string) error {
	info, err := h.Info(ctx, jetstream.WithSubjectFilter(o.message(">")))
	if err != nil {
		return err
	}
	err = jetstream.ErrObjectNotFound
	for subject := range info.State.Subjects {
		if strings.HasPrefix(subject, o.message(encoded(name)+"-")) {
			if err = h.Purge(ctx, jetstream.WithPurgeSubject(subject)); err != nil {
				return err
			}
		}
	}
	return err
}

// within names a part of a bucket; the empty prefix is all of it.
func within(prefix, bucket string) string {
	if prefix == "" {
		return bucket
	}
	return prefix + " in " + bucket
}
