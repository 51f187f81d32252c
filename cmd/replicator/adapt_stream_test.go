package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"testing"

	"github.com/sqlite-replicator/replicator/cdc"
	"github.com/sqlite-replicator/replicator/stream"
)

// embedded connects to a NATS server in this process. Both last as long as ctx.
func embedded(t *testing.T) (context.Context, *stream.Conn) {
	t.Helper()
	logger := slog.New(slog.DiscardHandler)
	server, err := stream.NewServer(stream.ServerOptions{Name: "test", Dir: t.TempDir(), Logger: logger})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- server.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-ended })
	if err := server.WaitReady(ctx); err != nil {
		t.Fatal(err)
	}
	conn, err := stream.Connect(ctx, stream.Options{Server: server, Name: "test", Logger: logger})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.Close)
	return ctx, conn
}

// TestForeignStreamKeepsItsBounds: a primary that only looks at a stream, which may turn
// out to be another's, changes nothing of it. One that publishes gives it its own bounds,
// if it has any.
func TestForeignStreamKeepsItsBounds(t *testing.T) {
	for _, configured := range []int64{8 << 20, 0} {
		t.Run(fmt.Sprint(configured), func(t *testing.T) { publishBounded(t, configured) })
	}
}

func publishBounded(t *testing.T, configured int64) {
	ctx, conn := embedded(t)
	const before = 64 << 20
	after := cmp.Or(configured, before)
	if err := conn.Stream("app", stream.StreamConfig{MaxBytes: before}).Create(ctx, 1); err != nil {
		t.Fatal(err)
	}
	s := &published{Stream: conn.Stream("app", stream.StreamConfig{MaxBytes: configured})}
	if state, err := s.State(ctx); err != nil || state.MaxBytes != before {
		t.Errorf("after a look max_bytes is %d, want %d; %v", state.MaxBytes, before, err)
	}
	enough := errors.New("enough")
	err := s.Publish(ctx, 0, func(context.Context) ([]byte, cdc.LSN, error) { return nil, 0, enough }, func(cdc.LSN) {})
	if !errors.Is(err, enough) {
		t.Errorf("publish: %v", err)
	}
	if state, err := s.State(ctx); err != nil || state.MaxBytes != after {
		t.Errorf("after a publication max_bytes is %d, want %d; %v", state.MaxBytes, after, err)
	}
}
