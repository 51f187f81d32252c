package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/sqlite-replicator/replicator/cdc"
	"github.com/sqlite-replicator/replicator/internal/config"
	"github.com/sqlite-replicator/replicator/internal/sqlite"
	"github.com/sqlite-replicator/replicator/wal"
)

// newBenchReplay is the limit of a replica that catches up: the same changes
// through the same library in groups of the same size, and nothing else. No
// stream, no verification, no position.
func newBenchReplay(e *environment) *cobra.Command {
	var log string
	cmd := &cobra.Command{
		Use:    "bench-replay --log DIR FILE",
		Short:  "Apply the rows of a change log to a copy and print how long it took",
		Hidden: true,
		Args:   cobra.ExactArgs(1),
		RunE: runs(func(_ *cobra.Command, args []string) error {
			r, err := replayLog(log, args[0])
			if err != nil {
				return err
			}
			return json.NewEncoder(e.stdout).Encode(r)
		}),
	}
	cmd.Flags().StringVar(&log, "log", "", "folder of the change log")
	return cmd
}

// A logReplay applies records in groups.
type logReplay struct {
	conn    *sqlite.Conn
	target  *sqlite.Target // of the only table
	decoder cdc.Decoder
	changes []sqlite.Change // of the present record
	held    []byte          // their rows
	rows    int
}

func replayLog(log, file string) (result writeResult, err error) {
	apply := config.DefaultReplica().Apply
	c, err := sqlite.Open(file, sqlite.Options{CacheBytes: int64(apply.CacheSize)})
	if err != nil {
		return result, err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	const page = 4096
	if err := c.Exec(fmt.Sprintf("PRAGMA wal_autocheckpoint = %d", apply.CheckpointSize/page)); err != nil {
		return result, err
	}
	table, err := c.Table("t")
	if err != nil {
		return result, err
	}
	p := &logReplay{conn: c}
	if p.target, err = c.Target(table); err != nil {
		return result, err
	}
	records, err := wal.OpenReader(log, 0)
	if err != nil {
		return result, err
	}
	defer func() { err = errors.Join(err, records.Close()) }()
	began := time.Now()
	for more := true; more; {
		if more, err = p.group(records, apply.GroupMaxRecords, int(apply.GroupMaxBytes)); err != nil {
			return result, err
		}
	}
	return writeResult{Rows: p.rows, Seconds: time.Since(began).Seconds()}, nil
}

// group applies one transaction's worth of records, and reports whether there
// may be more.
func (p *logReplay) group(from *wal.FileReader, maxRecords, maxBytes int) (more bool, err error) {
	if err := p.conn.BeginImmediate(); err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, p.conn.Rollback()) }()
	more = true
	for records, size := 0, 0; more && records < maxRecords && size < maxBytes; records++ {
		raw, _, err := from.Next()
		if errors.Is(err, io.EOF) {
			more = false
			break
		}
		if err != nil {
			return false, err
		}
		size += len(raw)
		if err := p.apply(raw); err != nil {
			return false, err
		}
	}
	return more, p.conn.Commit()
}

func (p *logReplay) apply(raw []byte) error {
	rec, err := cdc.Decode(raw)
	if err != nil {
		return err
	}
	p.changes, p.held = p.changes[:0], p.held[:0]
	err = p.decoder.Decode(rec, func(c *cdc.Change) error {
		if c.Op != cdc.OpInsert {
			return nil // the bench writes inserts only
		}
		at := len(p.held)
		p.held = append(p.held, c.New...)
		p.changes = append(p.changes, sqlite.Change{Op: sqlite.Insert, Table: p.target, Rowid: c.Rowid, New: p.held[at:len(p.held):len(p.held)]})
		return nil
	})
	if err != nil {
		return err
	}
	n, err := p.conn.Apply(p.changes)
	p.rows += n
	return err
}
