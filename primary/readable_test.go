package primary

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"time"

	"github.com/sqlite-replicator/replicator/cdc"
	"github.com/sqlite-replicator/replicator/internal/sqlite"
)

// TestReservedNameCostsNoSnapshot: as long as the source has a name that is ours, each try to
// begin a term fails, and none restores a snapshot first.
func TestReservedNameCostsNoSnapshot(t *testing.T) {
	path := makeSource(t, "PRAGMA journal_mode=WAL; "+oneTable)
	app, err := sqlite.Open(path, sqlite.Options{Plain: true})
	noError(t, err)
	defer func() { noError(t, app.Close()) }()
	log := newMemoryLog(func(*cdc.Change) error { return nil })
	src, err := openSource(path)
	noError(t, err)
	defer func() { noError(t, src.close()) }()
	rebuilt := 0
	setup := captureSetup{
		dir: t.TempDir(), options: testCaptureOptions(), clock: time.Now, logger: slog.New(slog.DiscardHandler), doubts: &doubts{},
		rebuild: func(context.Context, cdc.Position) (string, error) {
			rebuilt++
			return "", errors.New("no snapshot leads there")
		},
	}
	c, err := newCapture(t.Context(), src, log, setup)
	noError(t, err)
	noError(t, app.Exec("CREATE TABLE _replicator_x(v)"))
	_, err = c.poll()
	noError(t, setup.doubts.raise(err, nil))
	noError(t, c.close())
	if _, err := newCapture(t.Context(), src, log, setup); !errors.Is(err, errReservedName) {
		t.Fatalf("nothing is tested: %v", err)
	}
	if rebuilt > 0 {
		t.Error("a snapshot was restored to be compared with what cannot be captured")
	}
	noError(t, app.Exec("DROP TABLE _replicator_x"))
	c, err = newCapture(t.Context(), src, log, setup)
	noError(t, err)
	noError(t, c.close())
	if rebuilt != 1 || c.broken == 0 {
		t.Errorf("%d snapshots were restored; the break is at %d", rebuilt, c.broken)
	}
}
