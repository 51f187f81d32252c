package stream

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sqlite-replicator/replicator/cdc"
)

// TestDiskFull: JetStream stops when the disk is full, whoever has filled it, and
// the server starts it again when there is room.
func TestDiskFull(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mount("none", dir, "tmpfs", 0, "size=32m"); err != nil {
		t.Skipf("a small file system cannot be mounted here, which takes root: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	ctx := testContext(t)
	s, _ := startServer(t, ServerOptions{Dir: dir})
	st := create(t, connect(t, Options{Server: s}), 1, StreamConfig{AckTimeout: 500 * time.Millisecond})
	big := make([]byte, 100<<10)
	ballast, err := os.Create(filepath.Join(dir, "ballast"))
	if err != nil {
		t.Fatal(err)
	}
	fill := sync.OnceFunc(func() {
		if _, err := io.Copy(ballast, zeros{}); !errors.Is(err, unix.ENOSPC) {
			t.Error(err)
		}
	})
	// The publisher is at work when it happens.
	lsn := cdc.LSN(0)
	err = st.Publish(ctx, 0, func(context.Context) ([]byte, cdc.LSN, error) {
		if lsn++; lsn > 5 {
			fill()
		}
		return big, lsn, nil
	}, func(cdc.LSN) {})
	t.Log(err)
	if !errors.Is(err, ErrUnavailable) && !errors.Is(err, ErrFull) {
		t.Fatal(err)
	}
	own := func(cdc.LSN) []byte { return big }
	if err := errors.Join(ballast.Close(), os.Remove(ballast.Name())); err != nil {
		t.Fatal(err)
	}
	healed, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	for {
		info, err := st.Info(healed)
		if err == nil && info.Exists {
			err = st.Publish(healed, info.Last, upTo(info.Last, info.Last+5, own), func(cdc.LSN) {})
		}
		if errors.Is(err, io.EOF) {
			return
		}
		if healed.Err() != nil {
			t.Fatal(err)
		}
	}
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) { clear(b); return len(b), nil }
