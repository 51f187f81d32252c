package replicator_test

import (
	"bytes"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sqlite-replicator/replicator/cdc"
	"github.com/sqlite-replicator/replicator/stream"
	"github.com/sqlite-replicator/replicator/wal"
)

// TestReplicaHasSeenAGreaterEpoch: the primary learns from a report that another
// one has taken over, although nothing in its own stream says so.
func TestReplicaHasSeenAGreaterEpoch(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	shell(t, p.source, setUp)
	p.start()
	insertRows(t, p.source, "rows", 10)
	converge(t, "app", "", p.primary, p.replica)
	rec := firstRecord(t, filepath.Join(p.dir, "primary-1", "app", "log"))
	url := strings.TrimSpace(strings.TrimPrefix(strings.TrimSpace(p.nats), "url:"))
	conn, err := stream.Connect(t.Context(), stream.Options{URL: url, Name: "replica-2", Logger: logger(t, "replica-2")})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	seen := cdc.Position{Lineage: rec.Boundary.Lineage, Epoch: rec.Epoch + 1, LSN: 1000}
	ctx := patient(t)
	var d databaseStatus
	for d.State != "fenced" {
		if err := conn.SendReport(stream.Report{Node: "replica-2", DB: "app", State: "streaming", Seen: seen}); err != nil {
			t.Fatal(err)
		}
		if d = p.primary.statusOf(t, "app"); ctx.Err() != nil {
			t.Fatalf("the primary is %s: %s", d.State, d.Error)
		}
	}
	if !strings.Contains(d.Error, "replica-2") {
		t.Errorf("it says %q", d.Error)
	}
	if !strings.Contains(p.primary.p.stderr.String(), "fenced") {
		t.Error("its log does not say so")
	}
	insertRows(t, p.source, "unpublished", 10)
	if got := shell(t, p.replica.paths["app"], "SELECT count(*) FROM t"); got != "10" {
		t.Errorf("the replica has %s rows", got)
	}
}

func firstRecord(t *testing.T, log string) cdc.Record {
	t.Helper()
	r, err := wal.OpenReader(log, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	b, _, err := r.Next()
	if err != nil {
		t.Fatal(err)
	}
	rec, err := cdc.DecodeBoundary(bytes.Clone(b))
	if err != nil {
		t.Fatal(err)
	}
	return rec
}
