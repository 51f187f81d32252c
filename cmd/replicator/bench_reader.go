package main

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/sqlite-replicator/replicator/internal/sqlite"
)

// readerPause is the time between two looks of the reader, which is part of the
// lag that it sees. Without one it would take a core from what is measured.
const readerPause = 200 * time.Microsecond

// readerNap is a pause of that length. The runtime's timers would make a millisecond
// of it, in a process that does nothing else, and the kernel 50 µs more of any.
func readerNap() {
	const slack = time.Microsecond
	_ = unix.Prctl(unix.PR_SET_TIMERSLACK, uintptr(slack.Nanoseconds()), 0, 0, 0)
	pause := unix.NsecToTimespec(readerPause.Nanoseconds())
	_ = unix.Nanosleep(&pause, nil) // cut short, it is a look too many
}

// A readResult is what a reader saw: rows that came while it looked, and how old
// each was when it could be read.
type readResult struct {
	Rows int       `json:"rows"`
	Lag  quantiles `json:"lag_ms"`
}

func newBenchReader(e *environment) *cobra.Command {
	return &cobra.Command{
		Use:    "bench-reader FILE",
		Short:  "Watch a database of the bench until standard input ends, and print how old new rows were",
		Hidden: true,
		Args:   cobra.ExactArgs(1),
		RunE: runs(func(cmd *cobra.Command, args []string) (err error) {
			ctx, cancel := untilInputEnds(cmd.Context())
			defer cancel()
			c, err := sqlite.Open(args[0], sqlite.Options{ReadOnly: true, BusyTimeout: 10 * time.Second})
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, c.Close()) }()
			last, err := c.QueryInt("SELECT coalesce(max(id), 0) FROM t")
			if err != nil {
				return err
			}
			out := json.NewEncoder(e.stdout)
			if err := out.Encode(readResult{}); err != nil { // from here on it looks
				return err
			}
			ages, err := watchRows(ctx, c, last)
			if err != nil {
				return err
			}
			return out.Encode(readResult{Rows: len(ages), Lag: quantilesOf(ages)})
		}),
	}
}

// watchRows looks for rows after last until ctx ends, and once more.
func watchRows(ctx context.Context, c *sqlite.Conn, last int64) (ages []time.Duration, err error) {
	seen := int64(-1)
	for over := false; ; {
		version, err := c.DataVersion()
		if err != nil {
			return nil, err
		}
		if version != seen {
			seen = version
			err := c.Query("SELECT id, at FROM t WHERE id > ?1 ORDER BY id", []any{last}, func(r sqlite.Row) error {
				last = r.Int(0)
				ages = append(ages, time.Since(time.Unix(0, r.Int(1))))
				return nil
			})
			if err != nil {
				return nil, err
			}
		}
		if over {
			return ages, nil
		}
		over = ctx.Err() != nil
		readerNap()
	}
}
