package main

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sqlite-replicator/replicator/internal/sqlite"
	"github.com/sqlite-replicator/replicator/primary"
)

// TestPortions: the hashes of any number of tables, with names of any length, arrive in
// messages that every server takes.
func TestPortions(t *testing.T) {
	var tables []sqlite.TableSum
	for i := range 30_000 {
		name := fmt.Sprintf("t%d", i)
		if i%100 == 7 {
			name += strings.Repeat("\x01", 10_000)
		}
		tables = append(tables, sqlite.TableSum{Name: name, Rows: uint64(i)})
	}
	whole := primary.AuditState{Audit: &primary.Audit{Tables: tables}}
	var got []sqlite.TableSum
	for more := true; more; {
		p := portion(whole, len(got))
		answer, err := json.Marshal(p)
		if err != nil || len(answer) > 1<<20 || len(p.Audit.Tables) == 0 {
			t.Fatalf("%d tables in %d bytes, %v", len(p.Audit.Tables), len(answer), err)
		}
		var heard auditState
		if err := json.Unmarshal(answer, &heard); err != nil {
			t.Fatal(err)
		}
		got, more = append(got, heard.Audit.Tables...), heard.More
	}
	if diff := cmp.Diff(tables, got); diff != "" {
		t.Error(diff)
	}
	if len(whole.Audit.Tables) != len(tables) {
		t.Error("the audit itself was cut")
	}
	if p := portion(primary.AuditState{}, 0); p.Audit != nil || p.More {
		t.Errorf("of one that goes on: %+v", p)
	}
}
