package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"math"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sqlite-replicator/replicator/cdc"
	"github.com/sqlite-replicator/replicator/wal"
)

// history encodes transactions, the second one in several records.
func history(t *testing.T) (records [][]byte) {
	t.Helper()
	e := cdc.NewEncoder(cdc.Tail{Next: 1}, 1, cdc.ID{1}, func(rec []byte, _ cdc.Head, _ *cdc.Boundary) error {
		records = append(records, bytes.Clone(rec))
		return nil
	})
	check := func(err error) {
		if err != nil {
			t.Fatal(err)
		}
	}
	op := func(c cdc.Change) { check(e.Op(cdc.AppendOp(nil, &c, 0))) }
	check(e.Epoch(cdc.Boundary{}))
	table := &cdc.Table{Name: "t"}
	op(cdc.Change{Op: cdc.OpTable, Table: table})
	op(cdc.Change{Op: cdc.OpSchema, Schema: &cdc.SchemaChange{New: &cdc.SchemaObject{Type: "table", Name: "t", Table: "t"}}})
	op(cdc.Change{Op: cdc.OpInsert, Table: table, Rowid: 1, New: []byte{3, 8, 15, 'x'}}) // (0, 'x')
	check(e.End(cdc.Boundary{}, false))
	check(e.Flush())
	op(cdc.Change{Op: cdc.OpTable, Table: table})
	big := append([]byte{5, 0x80 | 0x30, 0x80, 0x00}, make([]byte, 3*cdc.MaxBody)...)
	op(cdc.Change{Op: cdc.OpUpdate, Table: table, Rowid: 2, Old: []byte{2, 9}, New: big})
	op(cdc.Change{Op: cdc.OpDelete, Table: table, Rowid: 3, Old: []byte{2, 9}})
	check(e.End(cdc.Boundary{}, true))
	check(e.Flush())
	check(e.Break(cdc.Boundary{}, "the disk was full"))
	return records
}

func dump(t *testing.T, o dumpOptions, records [][]byte) string {
	t.Helper()
	var b strings.Builder
	d := dumper{o: &o, out: &b}
	for _, rec := range records {
		if err := d.record(rec); err != nil {
			t.Fatal(err)
		}
	}
	var lines []string
	for line := range strings.SplitSeq(strings.TrimSpace(b.String()), "\n") {
		lsn, rest, isRecord := strings.Cut(line, "  ")
		if isRecord && lsn != "" { // sizes and times are not this test's business
			fields := strings.Fields(rest)
			line = lsn + " " + fields[2]
			if _, note, ok := strings.Cut(rest, "("); ok {
				line += " (" + note
			}
		}
		lines = append(lines, line)
	}
	return strings.Join(lines, "\n")
}

func TestDump(t *testing.T) {
	records := history(t)
	if len(records) < 6 {
		t.Fatalf("only %d records: the second transaction is not cut", len(records))
	}
	for _, tt := range []struct {
		name string
		o    dumpOptions
		from int
		want string
	}{
		{"all", dumpOptions{}, 0, "1 epoch\n2 commit\n    create table t\n    insert t rowid 1\n    end\n3 part\n4 part\n5 part\n6 part\n" +
			"7 commit\n    update t rowid 2\n    delete t rowid 3\n    end resync\n8 break (the disk was full)"},
		{"with values", dumpOptions{values: true, table: "T"}, 1, "2 commit\n    create table t\n    insert t rowid 1 new [0,\"x\"]\n" +
			"7 commit\n    update t rowid 2 old [1] new [\"unreadable: sqlitefile: corrupt: "},
		{"another table", dumpOptions{table: "u"}, 0, ""},
		{"from inside a transaction", dumpOptions{}, 4, "5 part (begins inside a transaction; start at an earlier LSN to see it)\n" +
			"6 part (begins inside a transaction; start at an earlier LSN to see it)\n" +
			"7 commit (begins inside a transaction; start at an earlier LSN to see it)\n8 break (the disk was full)"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := dump(t, tt.o, records[tt.from:])
			if tt.o.values { // the large value is zeros, in a shape that is none
				got = got[:min(len(got), len(tt.want))]
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// TestDumpOfInfinity: SQLite has it, JSON has not, and what follows is to be seen, too.
func TestDumpOfInfinity(t *testing.T) {
	record := []byte{4, 7, 7, 9}
	for _, f := range []float64{math.Inf(1), math.Inf(-1)} {
		record = binary.BigEndian.AppendUint64(record, math.Float64bits(f))
	}
	if got, want := jsonLine(row(record)), "[9e999,-9e999,1]"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// TestDumpThatIsStopped: half of a change log that looks whole would mislead a script. To
// follow it ends only by being stopped.
func TestDumpThatIsStopped(t *testing.T) {
	dir := t.TempDir()
	log, err := wal.Open(dir, wal.Options{})
	if err != nil {
		t.Fatal(err)
	}
	e := cdc.NewEncoder(log.Tail(), 1, cdc.ID{1}, log.Append)
	if err := errors.Join(e.Epoch(cdc.Boundary{}), log.Sync(), log.Close()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for follow, want := range map[bool]error{false: context.Canceled, true: nil} {
		var out strings.Builder
		if err := (&dumpOptions{dir: dir, follow: follow}).run(ctx, &environment{stdout: &out}); !errors.Is(err, want) {
			t.Errorf("follow %t: %v, want %v", follow, err, want)
		}
	}
}
