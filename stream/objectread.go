package stream

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// Get returns a whole object, checked against its SHA-256, or ErrNotFound or
// ErrDamaged.
//
// It asks for one message after the other. The client's own Get has them pushed:
// on a slow link everything else then waits behind what is under way, and an
// object that takes longer than an answer may is given up.
func (o *Objects) Get(ctx context.Context, name string) ([]byte, error) {
	data, err := o.get(ctx, name)
	if err != nil {
		return nil, wrap(ctx, err, "get %s in %s", name, o.bucket)
	}
	return data, nil
}

func (o *Objects) get(ctx context.Context, name string) ([]byte, error) {
	req, cancel := o.conn.request(ctx)
	defer cancel()
	h, err := o.conn.js.Stream(req, o.stream())
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return nil, jetstream.ErrBucketNotFound
	}
	if err != nil {
		return nil, err
	}
	info, err := objectInfo(req, h, o.meta(encoded(name)))
	if err != nil {
		return nil, err
	}
	sum, err := jetstream.DecodeObjectDigest(info.Digest)
	if err != nil {
		return nil, fmt.Errorf("%w: its digest: %w", ErrDamaged, err)
	}
	data, err := o.chunks(ctx, h, info)
	if err != nil {
		return nil, err
	}
	if got := sha256.Sum256(data); !bytes.Equal(got[:], sum) {
		return nil, jetstream.ErrDigestMismatch
	}
	return data, nil
}

// damaged reports whether err says that an object's description makes no sense.
func damaged(err error) bool {
	return errors.Is(err, ErrDamaged) || errors.Is(err, jetstream.ErrBadObjectMeta)
}

func objectInfo(ctx context.Context, h jetstream.Stream, meta string) (info jetstream.ObjectInfo, err error) {
	m, err := h.GetLastMsgForSubject(ctx, meta)
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return info, jetstream.ErrObjectNotFound
	}
	if err != nil {
		return info, err
	}
	if err := json.Unmarshal(m.Data, &info); err != nil {
		return info, fmt.Errorf("%w: its description: %w", ErrDamaged, err)
	}
	switch {
	case info.Deleted:
		return info, jetstream.ErrObjectNotFound
	case info.Size > maxObject:
		return info, fmt.Errorf("%w: it has %d bytes, at most %d are read", ErrDamaged, info.Size, maxObject)
	case info.NUID == "" || strings.ContainsAny(info.NUID, " .*>"):
		return info, jetstream.ErrBadObjectMeta
	}
	return info, nil
}

// chunks reads the messages of an object, in the order of the stream.
func (o *Objects) chunks(ctx context.Context, h jetstream.Stream, info jetstream.ObjectInfo) ([]byte, error) {
	subject := o.message(info.NUID)
	data := make([]byte, 0, info.Size)
	next := uint64(1)
	for uint64(len(data)) < info.Size {
		m, err := o.chunk(ctx, h, subject, next)
		switch {
		case errors.Is(err, jetstream.ErrMsgNotFound):
			return nil, o.missing(ctx, h, subject, info.Chunks)
		case err != nil:
			return nil, err
		case len(m.Data) == 0 || uint64(len(m.Data)) > info.Size-uint64(len(data)):
			return nil, fmt.Errorf("%w: message %d of %d bytes does not fit after %d of %d", ErrDamaged, m.Sequence, len(m.Data), len(data), info.Size)
		}
		data = append(data, m.Data...)
		next = m.Sequence + 1
	}
	return data, nil
}

// chunk asks for one message in its turn: all that are asked for at a time come before what
// else is on the link, such as acknowledgements.
func (o *Objects) chunk(ctx context.Context, h jetstream.Stream, subject string, from uint64) (*jetstream.RawStreamMsg, error) {
	place, err := o.conn.reads.enter(ctx, objectChunk)
	if err != nil {
		return nil, err
	}
	defer o.conn.reads.leave(place)
	req, cancel := o.conn.bounded(ctx, o.patience)
	defer cancel()
	m, err := h.GetMsg(req, from, jetstream.WithGetMsgSubject(subject))
	if err == nil {
		o.conn.reads.arrived(place, time.Since(place.left))
	}
	return m, err
}

// missing tells a chunk that is gone from one that the server of a cluster that
// was asked does not have yet: the leader, which counts, has all. A server that is
// alone counts what it cannot read.
func (o *Objects) missing(ctx context.Context, h jetstream.Stream, subject string, chunks uint32) error {
	req, cancel := o.conn.request(ctx)
	defer cancel()
	info, err := h.Info(req, jetstream.WithSubjectFilter(subject))
	if err != nil {
		return err
	}
	if n := info.State.Subjects[subject]; n < uint64(chunks) {
		return fmt.Errorf("%w: %d of its %d messages are left", ErrNotFound, n, chunks)
	}
	if info.Config.Replicas <= 1 {
		return fmt.Errorf("%w: NATS cannot read one of its %d messages", ErrDamaged, chunks)
	}
	return fmt.Errorf("%w: a server of the cluster lags behind", ErrUnavailable)
}
