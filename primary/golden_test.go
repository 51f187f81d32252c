package primary

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sqlite-replicator/replicator/cdc"
	"github.com/sqlite-replicator/replicator/internal/sqlitefile"
)

var updateGolden = flag.Bool("golden.update", false, "write what TestGolden finds as what it expects")

const goldenDatabases = "../testdata/databases"

// goldens are the databases of testdata, by path.
func goldens(t testing.TB) []string {
	t.Helper()
	list, err := filepath.Glob(filepath.Join(goldenDatabases, "*.db"))
	noError(t, err)
	if len(list) < 7 {
		t.Fatalf("%d databases in %s", len(list), goldenDatabases)
	}
	return list
}

// A teller writes changes down, one a line.
type teller struct{ text strings.Builder }

func (w *teller) change(c *cdc.Change) error {
	switch c.Op {
	case cdc.OpSchema:
		for _, o := range []*cdc.SchemaObject{c.Schema.Old, c.Schema.New} {
			if o == nil {
				w.text.WriteString("  schema: nothing\n")
			} else {
				fmt.Fprintf(&w.text, "  schema: %s %q on %q: %q\n", o.Type, o.Name, o.Table, o.SQL)
			}
		}
		return nil
	case cdc.OpUserVersion, cdc.OpApplicationID:
		fmt.Fprintf(&w.text, "  %v %d\n", c.Op, c.Value)
		return nil
	}
	fmt.Fprintf(&w.text, "  %v %q", c.Op, c.Table.Name)
	if !c.Table.WithoutRowid {
		fmt.Fprintf(&w.text, " %d", c.Rowid)
	}
	for i, record := range [][]byte{c.Old, c.New} {
		if record == nil {
			continue
		}
		vals, err := sqlitefile.Record(nil, record)
		if err != nil {
			return err
		}
		w.text.WriteString([]string{" old", " new"}[i])
		for _, v := range vals {
			w.text.WriteString(" " + tell(v))
		}
	}
	w.text.WriteString("\n")
	return nil
}

func tell(v sqlitefile.Value) string {
	switch v.Type {
	case sqlitefile.TypeInt:
		return fmt.Sprint(v.Int)
	case sqlitefile.TypeFloat:
		return fmt.Sprintf("%g.", v.Float)
	case sqlitefile.TypeNull:
		return "NULL"
	}
	b := v.Bytes
	if kept := bytes.TrimRight(b, string(b[max(0, len(b)-1):])); len(b)-len(kept) > 8 {
		return fmt.Sprintf("%v(%q+%d*%q)", v.Type, kept, len(b)-len(kept), b[len(b)-1:])
	}
	return fmt.Sprintf("%v(%q)", v.Type, b)
}

// story tells what the transactions in the SQLite WAL of the database at path did.
func story(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	noError(t, err)
	wal, err := os.ReadFile(path + "-wal")
	noError(t, err)
	state := newImage(data)
	d, w := newTestDecoder(t), &teller{}
	noError(t, d.load(state, state.count()))
	r := sqlitefile.NewWALReader(bytes.NewReader(wal))
	noError(t, r.Start())
	frame := sqlitefile.FrameHeaderSize + state.pageSize
	limit := uint32((len(wal) - sqlitefile.WALHeaderSize) / frame)
	for n := 1; ; n++ {
		tx, ok, err := r.Next(limit)
		noError(t, err)
		if !ok {
			break
		}
		fmt.Fprintf(&w.text, "transaction %d\n", n)
		after := &image{pageSize: state.pageSize, data: make([]byte, int(tx.DBSize)*state.pageSize)}
		copy(after.data, state.data)
		for i, page := range tx.Pages {
			if page > tx.DBSize {
				continue
			}
			from := sqlitefile.FrameOffset(tx.First+uint32(i), state.pageSize) + sqlitefile.FrameHeaderSize
			copy(after.data[int(page-1)*state.pageSize:], wal[from:][:state.pageSize])
		}
		written := slices.Clone(tx.Pages)
		slices.Sort(written)
		noError(t, d.transaction(state, after, slices.Compact(written), tx.DBSize, w))
		noError(t, d.check(after, tx.DBSize))
		state = after
	}
	return w.text.String()
}

// TestGolden decodes databases that SQLite's own shell made.
func TestGolden(t *testing.T) {
	for _, path := range goldens(t) {
		t.Run(filepath.Base(path), func(t *testing.T) {
			got, golden := story(t, path), strings.TrimSuffix(path, ".db")+".txt"
			if *updateGolden {
				noError(t, os.WriteFile(golden, []byte(got), 0o644))
			}
			want, err := os.ReadFile(golden)
			noError(t, err)
			if diff := cmp.Diff(string(want), got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// TestGoldenIsMade: the script makes, with the shell that is installed, databases of
// which the same is told.
func TestGoldenIsMade(t *testing.T) {
	if _, err := exec.LookPath("sqlite3"); err != nil {
		t.Skip("the sqlite3 shell is not installed")
	}
	dir := t.TempDir()
	if out, err := exec.Command("../testdata/make.sh", dir).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, path := range goldens(t) {
		want, err := os.ReadFile(strings.TrimSuffix(path, ".db") + ".txt")
		noError(t, err)
		if diff := cmp.Diff(string(want), story(t, filepath.Join(dir, filepath.Base(path)))); diff != "" {
			t.Errorf("%s (-golden +made):\n%s", path, diff)
		}
	}
}
