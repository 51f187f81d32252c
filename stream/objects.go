package stream

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"sort"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

const (
	objectTimeout = 2 * time.Minute  // of the bytes of one object, on a slow link
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
}

// Objects is the snapshot store of the database db; replicas is the number of
// copies JetStream keeps. The bucket is created by the first Put.
func (c *Conn) Objects(db string, replicas int) *Objects {
	return &Objects{conn: c, bucket: "REPLICATOR_" + db + "_SNAPSHOTS", replicas: max(replicas, 1)}
}

// with runs f on the bucket, for d at most. A bucket that is missing is
// ErrNotFound. A cluster that has no leader at the moment answers nothing at all,
// so what is a mere question gets the time of one.
func (o *Objects) with(ctx context.Context, d time.Duration, what string, f func(context.Context, jetstream.ObjectStore) error) error {
	req, cancel := o.conn.request(ctx)
	store, err := o.conn.js.ObjectStore(req, o.bucket)
	cancel()
	if err == nil {
		req, cancel := o.conn.bounded(ctx, d)
		defer cancel()
		err = f(req, store)
	}
	return wrap(ctx, err, "%s in %s", what, o.bucket)
}

// Put stores data under name in place of what was there.
func (o *Objects) Put(ctx context.Context, name string, data []byte) error {
	put := func(ctx context.Context, store jetstream.ObjectStore) error {
		chunk := uint32(min(objectChunk, max(o.conn.nc.MaxPayload()-headerRoom, headerRoom), int64(max(len(data), 1)))) // the client takes a buffer of it
		meta := jetstream.ObjectMeta{Name: name, Opts: &jetstream.ObjectMetaOptions{ChunkSize: chunk}}
		_, err := store.Put(ctx, meta, bytes.NewReader(data))
		return err
	}
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

// List returns the names that start with prefix, in order. One that is being
// deleted may be among them.
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
		info, err = h.Info(req, jetstream.WithSubjectFilter(o.meta(">")))
	}
	if err != nil {
		return nil, wrap(ctx, err, "list %s", within(prefix, o.bucket))
	}
	for subject := range info.State.Subjects {
		name, err := base64.URLEncoding.DecodeString(strings.TrimPrefix(subject, o.meta("")))
		if err != nil {
			return nil, fmt.Errorf("stream: list %s: subject %q: %w", within(prefix, o.bucket), subject, err)
		}
		if strings.HasPrefix(string(name), prefix) {
			names = append(names, string(name))
		}
	}
	sort.Strings(names)
	return names, nil
}

func (o *Objects) stream() string { return "OBJ_" + o.bucket }

// meta is the subject of an object's description; last is its name encoded.
func (o *Objects) meta(last string) string { return "$O." + o.bucket + ".M." + last }

// Delete removes an object; an absent one is ErrNotFound.
func (o *Objects) Delete(ctx context.Context, name string) error {
	return o.with(ctx, deleteTimeout, "delete "+name, func(ctx context.Context, store jetstream.ObjectStore) error {
		if err := store.Delete(ctx, name); err != nil {
			return err
		}
		// Names never come back, so the delete marker would stay for ever and be
		// read by every List.
		h, err := o.conn.js.Stream(ctx, o.stream())
		if err != nil {
			return err
		}
		marker := o.meta(base64.URLEncoding.EncodeToString([]byte(name)))
		return h.Purge(ctx, jetstream.WithPurgeSubject(marker))
	})
}

// within names a part of a bucket; the empty prefix is all of it.
func within(prefix, bucket string) string {
	if prefix == "" {
		return bucket
	}
	return prefix + " in " + bucket
}
