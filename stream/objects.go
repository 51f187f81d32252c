package stream

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"sort"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

const (
	objectTimeout = 2 * time.Minute // of one object; the connection notices a dead path much earlier
	objectChunk   = 512 << 10       // bytes of one message of an object
	maxObject     = 256 << 20       // bytes; an object is held in memory whole
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

// with runs f on the bucket. A bucket that is missing is ErrNotFound.
func (o *Objects) with(ctx context.Context, what string, f func(context.Context, jetstream.ObjectStore) error) error {
	req, cancel := o.conn.bounded(ctx, objectTimeout)
	defer cancel()
	store, err := o.conn.js.ObjectStore(req, o.bucket)
	if err == nil {
		err = f(req, store)
	}
	return wrap(ctx, err, "%s in %s", what, o.bucket)
}

// Put stores data under name in place of what was there.
func (o *Objects) Put(ctx context.Context, name string, data []byte) error {
	put := func(ctx context.Context, store jetstream.ObjectStore) error {
		chunk := uint32(min(objectChunk, max(o.conn.nc.MaxPayload()-headerRoom, headerRoom)))
		meta := jetstream.ObjectMeta{Name: name, Opts: &jetstream.ObjectMetaOptions{ChunkSize: chunk}}
		_, err := store.Put(ctx, meta, bytes.NewReader(data))
		return err
	}
	err := o.with(ctx, "put "+name, put)
	if !errors.Is(err, jetstream.ErrBucketNotFound) {
		return err
	}
	if err := o.create(ctx); err != nil {
		return err
	}
	return o.with(ctx, "put "+name, put)
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

// Get returns a whole object, checked against its SHA-256, or ErrNotFound.
func (o *Objects) Get(ctx context.Context, name string) (data []byte, err error) {
	err = o.with(ctx, "get "+name, func(ctx context.Context, store jetstream.ObjectStore) error {
		// The client's Read sees the end of its context only at the context's own
		// deadline, and where there is none every few seconds.
		patient, cancel := context.WithCancel(context.WithoutCancel(ctx))
		defer cancel()
		defer context.AfterFunc(ctx, cancel)()
		r, err := store.Get(patient, name)
		if err == nil {
			data, err = readObject(r)
			_ = r.Close() // reading only
		}
		if err != nil && ctx.Err() != nil {
			return ctx.Err()
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return data, nil
}

// maxIdleReads bounds the reads in a row that bring nothing, 5 s each: a chunk
// that was deleted meanwhile never comes.
const maxIdleReads = 4

func readObject(r jetstream.ObjectResult) ([]byte, error) {
	info, err := r.Info()
	if err != nil {
		return nil, err
	}
	if info.Size > maxObject {
		return nil, fmt.Errorf("it has %d bytes, at most %d are read", info.Size, maxObject)
	}
	data := make([]byte, info.Size)
	for n, idle := 0, 0; n < len(data); {
		k, err := r.Read(data[n:])
		if n += k; err != nil && n < len(data) {
			return nil, err
		}
		if idle++; k > 0 {
			idle = 0
		}
		if idle == maxIdleReads {
			return nil, fmt.Errorf("%w: it ends after %d of %d bytes", ErrNotFound, n, len(data))
		}
	}
	// The digest is compared where the reader meets the end.
	if n, err := r.Read(make([]byte, 1)); n != 0 || !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("it does not end after %d bytes: %w", len(data), err)
	}
	return data, nil
}

// List returns the names that start with prefix, in order. One that is being
// deleted may be among them.
//
// It asks for the subjects of the bucket, because the client's own List waits for
// a last message that a Delete at the same time may take away: until ctx ends.
func (o *Objects) List(ctx context.Context, prefix string) (names []string, err error) {
	req, cancel := o.conn.bounded(ctx, objectTimeout)
	defer cancel()
	h, err := o.conn.js.Stream(req, "OBJ_"+o.bucket)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return nil, nil
	}
	var info *jetstream.StreamInfo
	if err == nil {
		info, err = h.Info(req, jetstream.WithSubjectFilter(o.meta(">")))
	}
	if err != nil {
		return nil, wrap(ctx, err, "list %s in %s", prefix, o.bucket)
	}
	for subject := range info.State.Subjects {
		name, err := base64.URLEncoding.DecodeString(strings.TrimPrefix(subject, o.meta("")))
		if err != nil {
			return nil, fmt.Errorf("stream: list %s in %s: subject %q: %w", prefix, o.bucket, subject, err)
		}
		if strings.HasPrefix(string(name), prefix) {
			names = append(names, string(name))
		}
	}
	sort.Strings(names)
	return names, nil
}

// meta is the subject of an object's description; last is its name encoded.
func (o *Objects) meta(last string) string { return "$O." + o.bucket + ".M." + last }

// Delete removes an object; an absent one is ErrNotFound.
func (o *Objects) Delete(ctx context.Context, name string) error {
	return o.with(ctx, "delete "+name, func(ctx context.Context, store jetstream.ObjectStore) error {
		if err := store.Delete(ctx, name); err != nil {
			return err
		}
		// Names never come back, so the delete marker would stay for ever and be
		// read by every List.
		h, err := o.conn.js.Stream(ctx, "OBJ_"+o.bucket)
		if err != nil {
			return err
		}
		marker := o.meta(base64.URLEncoding.EncodeToString([]byte(name)))
		return h.Purge(ctx, jetstream.WithPurgeSubject(marker))
	})
}
