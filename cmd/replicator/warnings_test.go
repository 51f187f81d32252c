package main

import (
	"strings"
	"testing"
	"time"

	"github.com/sqlite-replicator/replicator/primary"
	"github.com/sqlite-replicator/replicator/web"
)

// TestReportWarning: reports are told of until they are removed.
func TestReportWarning(t *testing.T) {
	var s primary.Status
	s.Reports = primary.ReportStatus{Failed: 3, Kept: 1, Newest: "/data/app/reports/1.json"}
	if d := primaryDetails(s, clockOf(t)()); d["self_check_failures_total"] != 3 || d["bug_reports"] != 1 {
		t.Errorf("the figures are %v", d)
	}
	if w := primaryWarnings(s); len(w) != 1 || !strings.HasPrefix(w[0], "1 report of") || !strings.Contains(w[0], s.Reports.Newest) {
		t.Errorf("the warnings are %q", w)
	}
	s.Reports.Kept = 0
	if w := primaryWarnings(s); len(w) != 0 {
		t.Errorf("after they were removed: %q", w)
	}
}

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
