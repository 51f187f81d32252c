package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync/atomic"

	"github.com/sqlite-replicator/replicator/cdc"
	"github.com/sqlite-replicator/replicator/internal/config"
	"github.com/sqlite-replicator/replicator/primary"
	"github.com/sqlite-replicator/replicator/snapshot"
	"github.com/sqlite-replicator/replicator/stream"
)

// A published is a stream.Stream as a primary wants it.
type published struct {
	*stream.Stream
	adjusted atomic.Bool // an existing stream is as the configuration has it
}

// State implements primary.Stream.
func (s *published) State(ctx context.Context) (primary.StreamState, error) {
	info, err := s.Info(ctx)
	if err != nil {
		return primary.StreamState{}, err
	}
	return primary.StreamState{
		Exists: info.Exists, First: info.First, Last: info.Last,
		Messages: info.Messages, Bytes: info.Bytes, MaxBytes: info.MaxBytes,
		FirstTime: info.FirstTime,
	}, nil
}

// Publish implements primary.Stream. The primary has seen that the stream is its own: that
// of another primary is not ours to change.
func (s *published) Publish(ctx context.Context, after cdc.LSN, next func(context.Context) ([]byte, cdc.LSN, error), acked func(cdc.LSN)) error {
	if !s.adjusted.Load() {
		if err := s.Reconfigure(ctx); err != nil {
			return err
		}
		s.adjusted.Store(true)
	}
	return s.Stream.Publish(ctx, after, next, acked)
}

// A consumed is a stream.Stream as a replica wants it.
type consumed struct{ *stream.Stream }

// Consume implements replica.Stream. Only a stream that was trimmed does not
// lead on. One that ends too early is being published again, and one that was
// created again may hold the same history: both show in the next attempt.
func (s consumed) Consume(ctx context.Context, from cdc.LSN, handle func(rec []byte, lsn cdc.LSN, pending uint64) error) error {
	err := s.Stream.Consume(ctx, from, handle)
	var trimmed *stream.TrimmedError
	if errors.As(err, &trimmed) {
		return fmt.Errorf("%w: %w", cdc.ErrGap, err)
	}
	return err
}

func dirStore(dir, db string) snapshot.Store { return snapshot.NewDir(filepath.Join(dir, db)) }

// credentials for a connection.
func credentials(c config.Credentials) stream.Credentials {
	return stream.Credentials{
		CredsFile: c.CredsFile, NKeyFile: c.NKeyFile,
		User: c.User, Password: c.Password.Reveal(), Token: c.Token.Reveal(),
	}
}

// transport secures a connection or a server.
func transport(t config.TLS) stream.TLS {
	return stream.TLS{CA: t.CAFile, Cert: t.CertFile, Key: t.KeyFile, Insecure: t.InsecureSkipVerify}
}
