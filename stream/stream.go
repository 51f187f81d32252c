package stream

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nuid"

	"github.com/sqlite-replicator/replicator/cdc"
)

// DefaultPoll is how often an idle consumer asks for the state of the stream.
const DefaultPoll = 2 * time.Second

// DefaultAckTimeout is how long a publisher waits for one acknowledgement.
const DefaultAckTimeout = 5 * time.Second

// StreamConfig bounds the stream of one database. A zero value is usable.
type StreamConfig struct {
	MaxBytes   int64         // that the stream holds; 0: no bound of its own
	Replicas   int           // copies that JetStream keeps; 0: 1
	Compress   bool          // S2 on the server's disk; records are compressed already
	Poll       time.Duration // see DefaultPoll
	AckTimeout time.Duration // see DefaultAckTimeout
}

// A Stream is the JetStream stream of one database. The sequence of a message
// is the LSN of the record in it. Methods may be called concurrently; of two
// publishers at a time the later one wins, and the other one fails.
type Stream struct {
	conn *Conn
	db   string
	cfg  StreamConfig

	claimed atomic.Pointer[string] // the subject of the last claim; nil: there was none
}

// Info is the state of a stream.
type Info struct {
	Exists    bool
	First     cdc.LSN   // of the oldest record; Last+1 when it is empty
	Last      cdc.LSN   // of the newest record ever, purged or not
	Created   time.Time // tells a stream from one created again
	FirstTime time.Time // when the oldest record was stored; zero when empty
	LastTime  time.Time // when the newest record was stored
	Messages  uint64
	Bytes     uint64
	MaxBytes  int64 // 0: no bound
}

// Stream is the stream of the database db. It asks nothing of the server.
func (c *Conn) Stream(db string, cfg StreamConfig) *Stream {
	if cfg.Replicas == 0 {
		cfg.Replicas = 1
	}
	if cfg.Poll == 0 {
		cfg.Poll = DefaultPoll
	}
	if cfg.AckTimeout == 0 {
		cfg.AckTimeout = DefaultAckTimeout
	}
	s := &Stream{conn: c, db: db, cfg: cfg}
	c.census.expect(s.Name())
	return s
}

// Name is the stream's name in JetStream.
func (s *Stream) Name() string { return streamName(s.db) }

func streamName(db string) string { return "REPLICATOR_" + db }

// subject is what the stream listens on until the first publisher comes; see
// claim.
func (s *Stream) subject() string { return subject(s.db, "log") }

// allSubjects matches every subject of this package.
const allSubjects = "replicator.>"

func subject(db, what string) string { return "replicator." + db + "." + what }

// Info asks for the state of the stream. A stream that does not exist is no
// error.
func (s *Stream) Info(ctx context.Context) (Info, error) {
	found, err := s.survey(ctx)
	if errors.Is(err, ErrNoStream) {
		return Info{}, nil
	}
	return found.Info, err
}

// survey is Info with the subjects, and ErrNoStream where there is no stream.
func (s *Stream) survey(ctx context.Context) (survey, error) {
	found, err := s.conn.census.of(ctx, s.Name())
	return found, wrap(ctx, err, "%s", s.Name())
}

// handle asks for the stream, which brings its state along.
func (s *Stream) handle(ctx context.Context) (jetstream.Stream, error) {
	req, cancel := s.conn.request(ctx)
	defer cancel()
	h, err := s.conn.js.Stream(req, s.Name())
	return h, wrap(ctx, err, "%s", s.Name())
}

func (s *Stream) config(first cdc.LSN) jetstream.StreamConfig {
	c := jetstream.StreamConfig{
		Name: s.Name(), Subjects: []string{s.subject()},
		Description: "change log of the database " + s.db + "; sequence = LSN",
		Storage:     jetstream.FileStorage, Retention: jetstream.LimitsPolicy, Discard: jetstream.DiscardNew,
		MaxBytes: s.cfg.MaxBytes, Replicas: s.cfg.Replicas, DenyDelete: true,
	}
	if s.cfg.MaxBytes <= 0 {
		c.MaxBytes = -1
	}
	if s.cfg.Compress {
		c.Compression = jetstream.S2Compression
	}
	if first > 1 {
		c.FirstSeq = uint64(first)
	}
	return c
}

// Create creates the stream so that its first record is first, which must be
// published with Publish(ctx, first-1, …). It fails with ErrExists if there is
// one that differs, and with ErrOverbooked if MaxBytes cannot be reserved.
func (s *Stream) Create(ctx context.Context, first cdc.LSN) error {
	req, cancel := s.conn.request(ctx)
	defer cancel()
	_, err := s.conn.js.CreateStream(req, s.config(first))
	return wrap(ctx, err, "create %s from record %d, max_bytes %d", s.Name(), first, s.cfg.MaxBytes)
}

// Reconfigure gives an existing stream the MaxBytes of s, if that has one, the Compress, and
// no fewer than the Replicas, where the cluster is large enough. It leaves the sequence
// alone. If there is something to change, a running Publish ends with ErrSequence.
func (s *Stream) Reconfigure(ctx context.Context) error {
	h, err := s.handle(ctx)
	if err != nil {
		return err
	}
	// Start from what the server has: a FirstSeq that differs from the stored
	// one purges everything below it at the next restart.
	have := h.CachedInfo().Config
	want := have
	if s.cfg.MaxBytes > 0 {
		want.MaxBytes = s.cfg.MaxBytes
	}
	want.Compression = s.config(0).Compression
	if have.Replicas < s.cfg.Replicas {
		more := want
		more.Replicas = s.cfg.Replicas
		var refused jetstream.JetStreamError
		if _, err = s.update(ctx, more); !errors.As(err, &refused) {
			return err
		}
		s.conn.log.Warn("the stream keeps fewer copies than it should", "stream", s.Name(), "replicas", have.Replicas, "want", s.cfg.Replicas, "err", err)
	}
	if have.MaxBytes != want.MaxBytes || have.Compression != want.Compression {
		_, err = s.update(ctx, want)
		return err
	}
	return nil
}

// update changes the configuration and moves the stream to a new subject, which
// it returns. It always does: writing back the subject it has read could give
// the stream back to a publisher that has lost it meanwhile.
func (s *Stream) update(ctx context.Context, cfg jetstream.StreamConfig) (subject string, err error) {
	subject = s.subject() + "." + nuid.Next()
	cfg.Subjects = []string{subject}
	req, cancel := s.conn.request(ctx)
	defer cancel()
	_, err = s.conn.js.UpdateStream(req, cfg)
	return subject, wrap(ctx, err, "configure %s", s.Name())
}

// Get reads one record. A record that was purged or is not there yet is
// ErrNotFound.
func (s *Stream) Get(ctx context.Context, lsn cdc.LSN) ([]byte, error) {
	h, err := s.handle(ctx)
	if err != nil {
		return nil, err
	}
	req, cancel := s.conn.request(ctx)
	defer cancel()
	msg, err := h.GetMsg(req, uint64(lsn))
	if err != nil {
		return nil, wrap(ctx, err, "get record %d of %s", lsn, s.Name())
	}
	return msg.Data, nil
}

// PurgeBelow removes the records below lsn, but never the newest one: its
// bytes are what a primary proves its claim with. It fails with ErrSequence unless
// the last Publish or PurgeThrough in this stream was one of s.
func (s *Stream) PurgeBelow(ctx context.Context, lsn cdc.LSN) error {
	return s.purge(ctx, func(last cdc.LSN) (cdc.LSN, error) { return min(lsn, last), nil })
}

// PurgeThrough removes the records up to and including lsn, even if none
// remains. A stream that ends before lsn goes on at lsn+1, which leaves its
// consumers with a TrimmedError.
//
// The stream must end at after, with a record that the caller has compared with
// its own log, or it fails with ErrSequence. JetStream knows no purge on a
// condition, so every other publisher is shut out first, as by Publish, and what
// it had sent is waited for. One that claims the stream within the last question
// and answer goes unnoticed, and its first records are lost.
func (s *Stream) PurgeThrough(ctx context.Context, after, lsn cdc.LSN) error {
	own, err := s.claim(ctx, after)
	if err != nil {
		return err
	}
	if err := s.settle(ctx, own); err != nil {
		return err
	}
	return s.purge(ctx, func(last cdc.LSN) (cdc.LSN, error) {
		if last != after {
			return 0, fmt.Errorf("stream: purge %s through record %d: %w, at %d and not at %d", s.db, lsn, ErrSequence, last, after)
		}
		return lsn + 1, nil
	})
}

// purge removes what is below keep(last), if the stream is still claimed by s.
func (s *Stream) purge(ctx context.Context, keep func(last cdc.LSN) (cdc.LSN, error)) error {
	h, err := s.handle(ctx)
	if err != nil {
		return err
	}
	have := h.CachedInfo()
	if own := s.claimed.Load(); own == nil || !slices.Contains(have.Config.Subjects, *own) {
		return fmt.Errorf("stream: purge %s: %w: it is not claimed, or by another publisher", s.db, ErrSequence)
	}
	lsn, err := keep(cdc.LSN(have.State.LastSeq))
	if err != nil {
		return err
	}
	below := uint64(lsn)
	if below <= have.State.FirstSeq {
		return nil
	}
	req, cancel := s.conn.request(ctx)
	defer cancel()
	return wrap(ctx, h.Purge(req, jetstream.WithPurgeSequence(below)), "purge %s below record %d", s.Name(), below)
}

// Delete deletes the stream. One that does not exist is no error.
func (s *Stream) Delete(ctx context.Context) error {
	req, cancel := s.conn.request(ctx)
	defer cancel()
	err := wrap(ctx, s.conn.js.DeleteStream(req, s.Name()), "delete %s", s.Name())
	if errors.Is(err, ErrNoStream) {
		return nil
	}
	return err
}

// checkRecord refuses a record that no server takes, before it is sent.
func (s *Stream) checkRecord(rec []byte, lsn, want cdc.LSN) error {
	if lsn != want {
		return fmt.Errorf("stream: publish %s: record %d where %d is due", s.db, lsn, want)
	}
	if limit := s.conn.nc.MaxPayload(); limit > 0 && int64(len(rec)+headerRoom) > limit {
		return fmt.Errorf("stream: publish %s: record %d has %d bytes, max_payload is %d: %w", s.db, lsn, len(rec), limit, ErrTooLarge)
	}
	return nil
}
