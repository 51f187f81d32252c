package main

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"path/filepath"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/sqlite-replicator/replicator/cdc"
	"github.com/sqlite-replicator/replicator/internal/config"
	"github.com/sqlite-replicator/replicator/internal/sqlitefile"
	"github.com/sqlite-replicator/replicator/wal"
)

type dumpOptions struct {
	dir, config, db string
	from            uint64
	table           string
	json            bool
	values          bool
	follow          bool
}

func newLog(e *environment) *cobra.Command {
	var o dumpOptions
	dump := command(e, "dump (--config FILE [--db NAME] | --dir DIR)", "Print the records of a change log, in use or not", o.run)
	dump.Long = "dump prints what a primary has captured: each record with its LSN and each change in it with its table and, of a\n" +
		"rowid table, its key. Rows are data of yours: they are printed only with --values."
	f := dump.Flags()
	f.StringVar(&o.dir, "dir", "", "folder of the change log: data_dir/NAME/log")
	f.StringVar(&o.config, "config", "", "configuration of the primary")
	f.StringVar(&o.db, "db", "", "name of the database; not needed when there is one")
	f.Uint64Var(&o.from, "from", 0, "LSN to start from; without it the oldest")
	f.StringVar(&o.table, "table", "", "only changes of this table")
	f.BoolVar(&o.json, "json", false, "print JSON, one object for each record")
	f.BoolVar(&o.values, "values", false, "print the rows")
	f.BoolVar(&o.follow, "follow", false, "go on with what is appended, until Ctrl-C")
	dump.MarkFlagsMutuallyExclusive("dir", "config")
	dump.MarkFlagsOneRequired("dir", "config")
	return group("log", "Inspect a change log", dump)
}

const followEvery = 200 * time.Millisecond

func (o *dumpOptions) run(ctx context.Context, e *environment) (err error) {
	if o.dir == "" {
		if o.dir, err = o.find(e); err != nil {
			return err
		}
	}
	r, err := wal.OpenReader(o.dir, cdc.LSN(o.from))
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("there is no change log in %s; a primary makes one when it has found the database", o.dir)
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	d := dumper{o: o, out: e.stdout}
	for {
		raw, _, err := r.Next()
		switch {
		case errors.Is(err, io.EOF) && o.follow:
			select {
			case <-time.After(followEvery):
				continue
			case <-ctx.Done():
				return nil
			}
		case ctx.Err() != nil && o.follow:
			return nil
		case ctx.Err() != nil:
			return fmt.Errorf("stopped at LSN %d: %w", d.last, context.Cause(ctx))
		case errors.Is(err, io.EOF):
			return d.finish(e.stderr)
		case err != nil:
			return err
		}
		if err := d.record(raw); err != nil {
			return err
		}
	}
}

// find is the folder of the change log of a configured database.
func (o *dumpOptions) find(e *environment) (string, error) {
	a, err := openAccess(e, o.config)
	if err != nil {
		return "", err
	}
	if a.role == config.RoleReplica {
		return "", usagef("%s is the configuration of a replica, which has no change log", o.config)
	}
	db, err := a.database(o.db)
	return filepath.Join(a.dataDir, db, "log"), err
}

// A dumpedRecord is what is printed of a record.
type dumpedRecord struct {
	LSN          cdc.LSN        `json:"lsn"`
	Epoch        cdc.Epoch      `json:"epoch"`
	Kind         string         `json:"kind"`
	Bytes        int            `json:"bytes"`
	CapturedAt   *time.Time     `json:"captured_at,omitempty"`
	Transactions *uint64        `json:"transactions,omitempty"` // total of the history so far
	Hash         string         `json:"prev_hash,omitempty"`    // chain hash at the boundary before
	Note         string         `json:"note,omitempty"`
	Changes      []dumpedChange `json:"changes,omitempty"`
}

// A dumpedChange is what is printed of a change.
type dumpedChange struct {
	Op     string            `json:"op"`
	Table  string            `json:"table,omitempty"`
	Rowid  *int64            `json:"rowid,omitempty"`
	Old    []any             `json:"old,omitempty"`
	New    []any             `json:"new,omitempty"`
	Schema *cdc.SchemaChange `json:"schema,omitempty"`
	Value  *int32            `json:"value,omitempty"`
	Resync bool              `json:"resync,omitempty"`
}

// A dumper prints records one after another.
type dumper struct {
	o       *dumpOptions
	out     io.Writer
	decoder cdc.Decoder
	aligned bool // a boundary was seen: from here on every operation can be told

	first, last cdc.LSN // read
	named       bool    // a change of the table that is asked for was seen
}

// finish says why nothing was printed. That the change log ends before the record
// that is asked for is an error; that a table was not changed is an answer.
func (d *dumper) finish(stderr io.Writer) error {
	if d.first == 0 {
		last, err := wal.LastIn(d.o.dir)
		if err == nil && d.o.from > 0 {
			err = fmt.Errorf("LSN %d is not in %s: the change log ends at LSN %d; --follow waits for more", d.o.from, d.o.dir, last)
		}
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(stderr, "no records yet in %s\n", d.o.dir)
		return err
	}
	if d.o.table == "" || d.named {
		return nil
	}
	_, err := fmt.Fprintf(stderr, "no change of a table %q in LSN %d to %d\n", d.o.table, d.first, d.last)
	return err
}

func (d *dumper) record(raw []byte) error {
	rec, err := cdc.Decode(raw)
	if err != nil {
		return err
	}
	out := dumpedRecord{LSN: rec.LSN, Epoch: rec.Epoch, Kind: rec.Kind.String(), Bytes: rec.Length}
	if b := rec.Boundary; b != nil {
		out.CapturedAt, out.Transactions, out.Hash = &b.CapturedAt, &b.Transactions, b.Prev.String()
	}
	if rec.Kind == cdc.Break {
		out.Note = string(rec.Body)
	}
	if rec.Kind == cdc.EpochStart && d.decoder.Inside() {
		out.Note = "the transaction before it was never finished and does not count"
	}
	if d.first == 0 {
		d.first = rec.LSN
	}
	d.last = rec.LSN
	inside := d.decoder
	err = d.decoder.Decode(rec, func(c *cdc.Change) error {
		if shown, ok := d.change(c); ok {
			out.Changes = append(out.Changes, shown)
		}
		return nil
	})
	switch {
	case err != nil && !d.aligned && !inside.Inside():
		out.Note, out.Changes = "begins inside a transaction; start at an earlier LSN to see it", nil
		d.decoder.Reset()
	case err != nil:
		return err
	}
	d.aligned = d.aligned || rec.Boundary != nil
	d.named = d.named || len(out.Changes) > 0
	if d.o.table != "" && len(out.Changes) == 0 {
		return nil
	}
	return d.print(out)
}

// change gives what is shown of a change, and false for one that is not.
func (d *dumper) change(c *cdc.Change) (out dumpedChange, shown bool) {
	out = dumpedChange{Op: c.Op.String()}
	switch c.Op {
	case cdc.OpTable:
		return out, false // only what follows names it
	case cdc.OpDelete, cdc.OpUpdate, cdc.OpInsert:
		out.Table = c.Table.Name
		if !c.Table.WithoutRowid {
			rowid := c.Rowid
			out.Rowid = &rowid
		}
		if d.o.values {
			out.Old, out.New = row(c.Old), row(c.New)
		}
	case cdc.OpSchema:
		out.Schema = c.Schema
		out.Table = schemaTable(c.Schema)
	case cdc.OpUserVersion, cdc.OpApplicationID:
		value := c.Value
		out.Value = &value
	case cdc.OpEnd:
		out.Resync = c.Resync
	}
	return out, d.o.table == "" || strings.EqualFold(out.Table, d.o.table)
}

func schemaTable(s *cdc.SchemaChange) string {
	if s.New != nil {
		return s.New.Table
	}
	if s.Old != nil {
		return s.Old.Table
	}
	return ""
}

// row decodes a row into values that JSON can show; nil for none. Blobs, and
// text that is no UTF-8, are base64.
func row(record []byte) []any {
	if record == nil {
		return nil
	}
	values, err := sqlitefile.Record(nil, record)
	if err != nil {
		return []any{"unreadable: " + err.Error()}
	}
	out := make([]any, len(values))
	for i, v := range values {
		switch v.Type {
		case sqlitefile.TypeInt:
			out[i] = v.Int
		case sqlitefile.TypeFloat:
			out[i] = float(v.Float)
		case sqlitefile.TypeText:
			if utf8.Valid(v.Bytes) {
				out[i] = string(v.Bytes)
				continue
			}
			fallthrough
		case sqlitefile.TypeBlob:
			out[i] = map[string]string{"base64": base64.StdEncoding.EncodeToString(v.Bytes)}
		}
	}
	return out
}

// float is f as JSON can say it: an infinity is a number that SQLite reads as one.
func float(f float64) any {
	switch {
	case math.IsInf(f, 1):
		return json.Number("9e999")
	case math.IsInf(f, -1):
		return json.Number("-9e999")
	}
	return f
}

func (d *dumper) print(r dumpedRecord) error {
	if d.o.json {
		return json.NewEncoder(d.out).Encode(r)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%d  epoch %d  %s  %s", r.LSN, r.Epoch, r.Kind, size(int64(r.Bytes)))
	if r.CapturedAt != nil {
		fmt.Fprintf(&b, "  %s  transactions %s", r.CapturedAt.UTC().Format("2006-01-02T15:04:05.000Z"), number(*r.Transactions))
	}
	if r.Note != "" {
		fmt.Fprintf(&b, "  (%s)", legibleLine(r.Note))
	}
	b.WriteByte('\n')
	for _, c := range r.Changes {
		fmt.Fprintf(&b, "    %s\n", legibleLine(c.line()))
	}
	_, err := io.WriteString(d.out, b.String())
	return err
}

func (c dumpedChange) line() string {
	parts := []string{c.Op}
	switch {
	case c.Schema != nil:
		parts = []string{schemaLine(c.Schema)}
	case c.Table != "":
		parts = append(parts, c.Table)
	}
	if c.Rowid != nil {
		parts = append(parts, "rowid "+strconv.FormatInt(*c.Rowid, 10))
	}
	if c.Value != nil {
		parts = append(parts, strconv.Itoa(int(*c.Value)))
	}
	if c.Old != nil {
		parts = append(parts, "old "+jsonLine(c.Old))
	}
	if c.New != nil {
		parts = append(parts, "new "+jsonLine(c.New))
	}
	if c.Resync {
		parts = append(parts, "resync")
	}
	return strings.Join(parts, " ")
}

func schemaLine(s *cdc.SchemaChange) string {
	switch {
	case s.Old == nil && s.New == nil:
		return "schema"
	case s.Old == nil:
		return "create " + s.New.Type + " " + s.New.Name
	case s.New == nil:
		return "drop " + s.Old.Type + " " + s.Old.Name
	}
	return "alter " + s.Old.Type + " " + s.Old.Name
}

func jsonLine(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		return err.Error()
	}
	return string(b)
}
