package replicator_test

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/sqlite-replicator/replicator/internal/sqlite"
)

// playInspect is another child's main: PATH OUT. It writes everything that a
// program can learn from a database into a file of lines, for comparison. It is
// a process of its own because a program that reads a replica is one, and
// because no descriptor of a source may be closed in the primary's.
func playInspect(args []string) (err error) {
	c, err := sqlite.Open(args[0], sqlite.Options{ReadOnly: true, BusyTimeout: busyTimeout})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	f, err := os.Create(args[1])
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if err := c.OpenRead(); err != nil {
		return err
	}
	i := &inspector{c: c, out: bufio.NewWriter(f)}
	for _, part := range []func() error{i.health, i.header, i.objects, i.tables, i.virtual} {
		if err := part(); err != nil {
			return err
		}
	}
	return i.out.Flush()
}

type inspector struct {
	c   *sqlite.Conn
	out *bufio.Writer
}

// line writes one fact: what it is about, and what is the case. Neither holds a
// line break or a tab unquoted.
func (i *inspector) line(about string, facts ...string) {
	fmt.Fprintf(i.out, "%s\t%s\n", about, strings.Join(facts, "\t"))
}

// health checks what holds in any sound database.
func (i *inspector) health() error {
	for _, check := range []string{"integrity_check(20)", "quick_check(20)"} {
		err := i.c.Query("PRAGMA "+check, nil, func(r sqlite.Row) error {
			i.line(check, r.Text(0))
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func (i *inspector) header() error {
	for _, name := range []string{"encoding", "user_version", "application_id"} {
		v, err := i.c.QueryText("PRAGMA " + name)
		if err != nil {
			return err
		}
		i.line(name, v)
	}
	return nil
}

const notOurs = " substr(name,1,12)<>'_replicator_' COLLATE NOCASE AND substr(tbl_name,1,12)<>'_replicator_' COLLATE NOCASE"

func (i *inspector) objects() error {
	return i.c.Query("SELECT type, name, tbl_name, sql FROM sqlite_schema WHERE"+notOurs+" ORDER BY 1, 2, 3", nil, func(r sqlite.Row) error {
		i.line("schema", fmt.Sprintf("%s %q on %q: %q", r.Text(0), r.Text(1), r.Text(2), r.Text(3)))
		return nil
	})
}

// tables writes every table with storage of its own: sqlite_sequence, statistics
// and the shadow tables of virtual ones, too.
func (i *inspector) tables() error {
	names, err := i.list("SELECT name FROM sqlite_schema WHERE type='table' AND rootpage>0 AND" + notOurs + " ORDER BY 1")
	if err != nil {
		return err
	}
	for _, name := range names {
		if err := i.table(name); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

func (i *inspector) list(sql string) (names []string, err error) {
	err = i.c.Query(sql, nil, func(r sqlite.Row) error {
		names = append(names, r.Text(0))
		return nil
	})
	return names, err
}

func (i *inspector) table(name string) error {
	kind, err := i.c.QueryInt("SELECT wr FROM pragma_table_list WHERE schema='main' AND name=?", name)
	if err != nil {
		return err
	}
	key := []string{"rowid", "_rowid_", "oid"}
	var list []string
	err = i.c.Query("SELECT name FROM pragma_table_xinfo(?)", []any{name}, func(r sqlite.Row) error {
		list = append(list, quote(r.Text(0)))
		key = slices.DeleteFunc(key, func(k string) bool { return strings.EqualFold(k, r.Text(0)) })
		return nil
	})
	if err != nil {
		return err
	}
	if kind == 0 && len(key) > 0 {
		list = append([]string{key[0]}, list...)
	}
	for part := range slices.Chunk(list, resultColumns) {
		if err := i.rows(name, part); err != nil {
			return err
		}
	}
	return nil
}

// resultColumns are the columns that a query is asked for: with their types they are
// fewer than SQLite's limit.
const resultColumns = 900

func (i *inspector) rows(table string, columns []string) error {
	list := make([]string, len(columns))
	for at, col := range columns {
		list[at] = fmt.Sprintf("typeof(%s),%s", col, col)
	}
	// The table itself in the order it is stored in, from no index.
	return i.c.Query("SELECT "+strings.Join(list, ",")+" FROM "+quote(table)+" NOT INDEXED", nil, func(r sqlite.Row) error {
		facts := make([]string, 0, r.Len()/2)
		for at := 0; at < r.Len(); at += 2 {
			facts = append(facts, show(r.Text(at), r, at+1))
		}
		i.line(fmt.Sprintf("table %q", table), facts...)
		return nil
	})
}

// show gives a value to the last bit. Long ones are hashed.
func show(kind string, r sqlite.Row, at int) string {
	switch kind {
	case "null":
		return "NULL"
	case "integer":
		return fmt.Sprint(r.Int(at))
	case "real":
		return fmt.Sprintf("real %016x (%v)", math.Float64bits(r.Float(at)), r.Float(at))
	}
	b := r.Blob(at) // of a text: in the database's encoding, untouched
	if len(b) <= 64 {
		return kind + " " + hex.EncodeToString(b)
	}
	sum := sha256.Sum256(b)
	return fmt.Sprintf("%s of %d bytes, sha256 %x", kind, len(b), sum[:8])
}

// virtual asks the virtual tables, whose modules read the shadow tables, and the
// views. An answer may be an error, on both sides.
func (i *inspector) virtual() error {
	ask := func(about, sql string) {
		err := i.c.Query(sql, nil, func(r sqlite.Row) error {
			facts := make([]string, r.Len())
			for at := range facts {
				facts[at] = fmt.Sprintf("%q", r.Text(at))
			}
			i.line(about, facts...)
			return nil
		})
		if err != nil {
			i.line(about, err.Error())
		}
	}
	names, err := i.list("SELECT name FROM sqlite_schema WHERE type='table' AND rootpage=0 ORDER BY 1")
	if err != nil {
		return err
	}
	for _, name := range names {
		if strings.HasPrefix(name, "fts") {
			for _, words := range []string{"w1", "w2 AND w3", "w7 OR w11", "w5*", "NEAR(w1 w2, 5)", "x"} {
				ask("match "+name, fmt.Sprintf("SELECT '%s', rowid, rank FROM %s WHERE %s MATCH '%s' ORDER BY rowid", words, name, name, words))
			}
			continue
		}
		ask("rtree "+name, fmt.Sprintf("SELECT * FROM %s WHERE x0<500 AND y1>300 ORDER BY id", name))
		ask("rtree "+name, fmt.Sprintf("SELECT rtreecheck('%s')", name))
	}
	views, err := i.list("SELECT name FROM sqlite_schema WHERE type='view' ORDER BY 1")
	if err != nil {
		return err
	}
	for _, name := range views {
		ask("view "+name, "SELECT count(*) FROM "+quote(name))
	}
	return nil
}

// compare fails the test unless the two databases hold the same. hint is added
// to what it says.
func compare(t *testing.T, source, replica, hint string) {
	t.Helper()
	dir := t.TempDir()
	want, got := filepath.Join(dir, "source"), filepath.Join(dir, "replica")
	first, second := spawn(t, "inspect", source, want), spawn(t, "inspect", replica, got)
	for _, p := range []*process{first, second} {
		if err := p.wait(); err != nil {
			t.Fatalf("inspect: %v\n%s", err, hint)
		}
	}
	if text := difference(t, want, got); text != "" {
		t.Fatalf("%s and its replica %s differ:\n%s%s", source, replica, text, hint)
	}
}

const otherOrder = "the same facts in another order\n"

// difference describes where two lists of facts part, in the words of the first
// facts that differ.
func difference(t *testing.T, want, got string) string {
	t.Helper()
	a, err := os.ReadFile(want)
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(got)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.HasPrefix(a, []byte("integrity_check(20)\tok\nquick_check(20)\tok\n")) {
		return "the source is damaged:\n" + head(a)
	}
	if bytes.Equal(a, b) {
		return ""
	}
	var text strings.Builder
	shown := 0
	only := func(mark string, lines, other []string) {
		have := map[string]int{}
		for _, l := range other {
			have[l]++
		}
		for _, l := range lines {
			if have[l]--; have[l] < 0 && shown < 12 {
				shown++
				fmt.Fprintf(&text, "%s %.400s\n", mark, l)
			}
		}
	}
	as, bs := strings.Split(string(a), "\n"), strings.Split(string(b), "\n")
	only("- source: ", as, bs)
	shown = 0
	only("+ replica:", bs, as)
	if text.Len() == 0 {
		return otherOrder
	}
	return text.String()
}

func head(b []byte) string {
	lines := bytes.SplitAfterN(b, []byte("\n"), 20)
	return string(bytes.Join(lines[:min(len(lines), 19)], nil))
}

// drain is for children whose output nobody reads.
func drain(r io.Reader) { _, _ = io.Copy(io.Discard, r) }
