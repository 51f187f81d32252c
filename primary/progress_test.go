package primary

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/sqlite-replicator/replicator/snapshot"
)

func TestProgressIsSaidEveryTenSeconds(t *testing.T) {
	var out bytes.Buffer
	began := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	now := began
	l := progressLog{what: "making a snapshot", clock: func() time.Time { return now }, logger: slog.New(slog.NewTextHandler(&out, nil))}
	for s := range 25 {
		now = began.Add(time.Duration(s) * time.Second)
		l.note(snapshot.Progress{Bytes: int64(s) * 1000, Total: 40_000, Started: began})
	}
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	if len(lines) != 2 {
		t.Fatalf("%d lines in 24 s, want 2:\n%s", len(lines), &out)
	}
	if want := `msg="making a snapshot" unit=bytes done=10000 total=40000 percent=25 per_second=1000 eta=30s`; !strings.Contains(lines[0], want) {
		t.Errorf("said %s, want %s", lines[0], want)
	}
}

// TestProgressOfASnapshot: the snapshotter says it.
func TestProgressOfASnapshot(t *testing.T) {
	var out bytes.Buffer
	b := newBench(t, oneTable)
	now := time.Now()
	b.edit = func(o *Options) {
		o.Clock = func() time.Time { return now }
		o.Logger = slog.New(slog.NewTextHandler(&out, nil))
	}
	p, err := New(b.options())
	if err != nil {
		t.Fatal(err)
	}
	for name, o := range map[string]snapshot.Options{"making a snapshot": p.snapshots.options(), "reading the snapshot back": p.rebuildOptions()} {
		now = now.Add(time.Minute)
		o.Progress(snapshot.Progress{Bytes: 1, Total: 2, Started: now.Add(-progressEvery)})
		if !strings.Contains(out.String(), name) {
			t.Errorf("nothing is said of %s:\n%s", name, &out)
		}
	}
}
