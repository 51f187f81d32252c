package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"strconv"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/sqlite-replicator/replicator/internal/sqlite"
)

// benchSchema is of every database of the bench: rows of 120 bytes and an index
// on a random text.
const (
	benchTable   = "CREATE TABLE t (id INTEGER PRIMARY KEY, k TEXT NOT NULL, at INTEGER NOT NULL, body TEXT NOT NULL)"
	benchIndex   = "CREATE INDEX t_k ON t (k)"
	benchKey     = 16 // bytes of k
	benchBody    = 88 // bytes of body
	benchRowSize = 8 + benchKey + 8 + benchBody
)

// A writeJob says how a program writes. It ends after window or transactions,
// whichever is set.
type writeJob struct {
	rows         int // a transaction
	rate         int // transactions a second and file; 0 is as fast as it can
	window       time.Duration
	transactions int
	synchronous  string // NORMAL or FULL
	checkpoint   int    // frames of the SQLite WAL; 0 is SQLite's default, 1000
	words        int    // bytes of a row's text, made of words; 0 is benchBody of any letters
}

// A writeResult is what a program wrote.
type writeResult struct {
	Transactions int       `json:"transactions"`
	Rows         int       `json:"rows"`
	Seconds      float64   `json:"seconds"`
	Commit       quantiles `json:"commit_ms"` // of whole transactions, from BEGIN to the return of COMMIT
}

func (r writeResult) perSecond() float64 { return float64(r.Transactions) / r.Seconds }

func (j writeJob) args(files []string) []string {
	return append([]string{"bench-writer", "--rows", strconv.Itoa(j.rows), "--rate", strconv.Itoa(j.rate),
		"--window", j.window.String(), "--transactions", strconv.Itoa(j.transactions),
		"--synchronous", j.synchronous, "--checkpoint", strconv.Itoa(j.checkpoint),
		"--words", strconv.Itoa(j.words)}, files...)
}

func newBenchWriter(e *environment) *cobra.Command {
	var j writeJob
	cmd := &cobra.Command{
		Use:    "bench-writer FILE...",
		Short:  "Write databases of the bench and print how that went",
		Hidden: true,
		Args:   cobra.MinimumNArgs(1),
		RunE: runs(func(cmd *cobra.Command, args []string) error {
			ctx, cancel := untilInputEnds(cmd.Context())
			defer cancel()
			r, err := j.run(ctx, args)
			if err != nil {
				return err
			}
			return json.NewEncoder(e.stdout).Encode(r)
		}),
	}
	f := cmd.Flags()
	f.IntVar(&j.rows, "rows", 1, "rows a transaction")
	f.IntVar(&j.rate, "rate", 0, "transactions a second and file")
	f.DurationVar(&j.window, "window", 0, "how long")
	f.IntVar(&j.transactions, "transactions", 0, "how many")
	f.StringVar(&j.synchronous, "synchronous", "NORMAL", "or FULL")
	f.IntVar(&j.checkpoint, "checkpoint", 0, "PRAGMA wal_autocheckpoint")
	f.IntVar(&j.words, "words", 0, "bytes of text, of words, in a row")
	return cmd
}

// untilInputEnds ends the context with standard input.
func untilInputEnds(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin) // its end is the message
		cancel()
	}()
	return ctx, cancel
}

// run writes all files at the same time.
func (j writeJob) run(ctx context.Context, files []string) (total writeResult, err error) {
	took := make([][]time.Duration, len(files))
	began := time.Now()
	g, ctx := errgroup.WithContext(ctx)
	for i, file := range files {
		g.Go(func() (err error) {
			c, err := sqlite.Open(file, sqlite.Options{Plain: true, BusyTimeout: 10 * time.Second, Synchronous: j.synchronous})
			if err != nil {
				return err
			}
			took[i], err = j.write(ctx, c)
			return errors.Join(err, c.Close())
		})
	}
	if err := g.Wait(); err != nil {
		return total, err
	}
	total.Seconds = time.Since(began).Seconds()
	var all []time.Duration
	for _, t := range took {
		all = append(all, t...)
	}
	total.Transactions, total.Rows, total.Commit = len(all), len(all)*j.rows, quantilesOf(all)
	return total, nil
}

// write writes one file and returns how long each transaction took.
func (j writeJob) write(ctx context.Context, c *sqlite.Conn) (took []time.Duration, err error) {
	if j.checkpoint > 0 {
		if err := c.Exec(fmt.Sprintf("PRAGMA wal_autocheckpoint = %d", j.checkpoint)); err != nil {
			return nil, err
		}
	}
	body := newBody(j.words)
	for began := time.Now(); ctx.Err() == nil; {
		if j.transactions > 0 && len(took) == j.transactions || j.window > 0 && time.Since(began) >= j.window {
			break
		}
		if j.rate > 0 {
			due := began.Add(time.Duration(float64(len(took)) / float64(j.rate) * float64(time.Second)))
			time.Sleep(time.Until(due))
		}
		start := time.Now()
		if err := j.transaction(c, body); err != nil {
			return took, err
		}
		took = append(took, time.Since(start))
	}
	return took, nil
}

// transaction stamps its rows with the time before they are committed: a lag
// that is counted from there holds the commit itself.
func (j writeJob) transaction(c *sqlite.Conn, body *benchText) error {
	if err := c.BeginImmediate(); err != nil {
		return err
	}
	var err error
	for range j.rows {
		body.fill()
		k := fmt.Sprintf("%016x", rand.Uint64())
		if err = c.Exec("INSERT INTO t (k, at, body) VALUES (?, ?, ?)", k, time.Now().UnixNano(), string(body.text)); err != nil {
			break
		}
	}
	if err == nil {
		err = c.Commit()
	}
	return errors.Join(err, c.Rollback())
}

// makeDatabase makes a database with rows rows and no SQLite WAL left.
func makeDatabase(path string, rows int) (err error) {
	c, err := sqlite.Open(path, sqlite.Options{Plain: true, Create: true, CacheBytes: 64 << 20})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	if err := c.Exec("PRAGMA journal_mode = WAL; " + benchTable); err != nil {
		return err
	}
	body := newBody(0)
	job := writeJob{rows: 1}
	const batch = 20_000
	for done := 0; done < rows; done += job.rows {
		job.rows = min(batch, rows-done)
		if err := job.transaction(c, body); err != nil {
			return err
		}
	}
	return c.Exec(benchIndex)
}
