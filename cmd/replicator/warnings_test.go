package main

import (
	"strings"
	"testing"
	"time"

	"github.com/sqlite-replicator/replicator/primary"
	"github.com/sqlite-replicator/replicator/web"
)

// TestReaderWarning: what the capture knows of a reader in its way reaches the status,
// the metrics and the screen, and goes.
func TestReaderWarning(t *testing.T) {
	now := clockOf(t)()
	var s primary.Status
	if d := primaryDetails(s, now); d["sqlite_wal_held_bytes"] != 0 || d["sqlite_wal_held_seconds"] != 0 || len(primaryWarnings(s)) > 0 {
		t.Errorf("nobody is in the way: %v", d)
	}
	s.Capture.Held = &primary.HeldWAL{Since: now.Add(-90 * time.Second), Bytes: 5 << 20, Processes: []int{7, 9}}
	if d := primaryDetails(s, now); d["sqlite_wal_held_bytes"] != 5<<20 || d["sqlite_wal_held_seconds"] != 90 {
		t.Errorf("a reader is in the way: %v", d)
	}
	var out strings.Builder
	printNotes(&out, web.Status{Databases: []web.Database{{Name: "app", State: "streaming", Warnings: primaryWarnings(s)}}}, paint{})
	for _, want := range []string{"app: ", "5242880 bytes", "process 7, 9", "2026-01-02T11:58:30Z", "end that transaction"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q lacks %q", out.String(), want)
		}
	}
}
