package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/sqlite-replicator/replicator/internal/sqlite"
)

// A writer is the process that writes the demo's source database. It knows
// nothing of replicator: it is a program with a SQLite connection.
type writer struct {
	input io.Closer     // the process ends when it is closed
	ended chan struct{} // closed when it has
}

// startWriter runs this program again as a writer and waits until it has made
// the database.
func startWriter(ctx context.Context, path string, rate int, log *os.File) (*writer, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(self, "demo-writer", "--rate", strconv.Itoa(rate), path)
	cmd.Args[0] = os.Args[0] // tests run this program under another name
	cmd.Stderr = log
	input, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	output, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start the program that writes: %w", err)
	}
	w := &writer{input: input, ended: make(chan struct{})}
	made := make(chan error, 1)
	go func() {
		defer close(w.ended)
		_, err := output.Read(make([]byte, 1))
		made <- err
		_ = cmd.Wait() // it may be Ctrl-C that ended it
	}()
	select {
	case err = <-made:
	case <-ctx.Done():
		err = ctx.Err()
	}
	if err != nil {
		w.stop()
		return nil, fmt.Errorf("start the program that writes: %w (see %s)", err, log.Name())
	}
	return w, nil
}

// stop ends the writer; it may have ended before.
func (w *writer) stop() {
	_ = w.input.Close() // it is closed already after the first call
	<-w.ended
}

func newDemoWriter(e *environment) *cobra.Command {
	rate := 0
	cmd := &cobra.Command{
		Use:    "demo-writer FILE",
		Short:  "Write a database until standard input ends",
		Hidden: true,
		Args:   cobra.ExactArgs(1),
		RunE: runs(func(cmd *cobra.Command, args []string) error {
			ctx, cancel := context.WithCancel(cmd.Context())
			defer cancel()
			go func() {
				_, _ = io.Copy(io.Discard, os.Stdin) // its end is the message
				cancel()
			}()
			return runDemoWriter(ctx, e, args[0], rate)
		}),
	}
	cmd.Flags().IntVar(&rate, "rate", 0, "transactions a second; 0 is as fast as it can")
	return cmd
}

const demoSchema = `
PRAGMA journal_mode = WAL;
CREATE TABLE IF NOT EXISTS accounts (name TEXT PRIMARY KEY, balance INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS entries (id INTEGER PRIMARY KEY, account TEXT NOT NULL, amount INTEGER NOT NULL, at TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS entries_account ON entries (account);
`

// demoTick is how often a writer with a rate catches up with it.
const demoTick = 10 * time.Millisecond

// runDemoWriter keeps the books of a few accounts.
func runDemoWriter(ctx context.Context, e *environment, path string, rate int) (err error) {
	c, err := sqlite.Open(path, sqlite.Options{Plain: true, Create: true, BusyTimeout: 10 * time.Second})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	if err := c.Exec(demoSchema); err != nil {
		return err
	}
	fmt.Fprintln(e.stdout, "made")
	tick := time.NewTicker(demoTick)
	defer tick.Stop()
	began := time.Now()
	for done := 0; ctx.Err() == nil; done++ {
		for rate > 0 && done >= int(time.Since(began).Seconds()*float64(rate)) && ctx.Err() == nil {
			select {
			case <-tick.C:
			case <-ctx.Done():
			}
		}
		if err := demoTransaction(c); err != nil {
			return err
		}
	}
	return nil
}

// demoTransaction writes one transaction: an entry and the balance it changes,
// and sometimes the end of an old entry.
func demoTransaction(c *sqlite.Conn) error {
	if err := c.BeginImmediate(); err != nil {
		return err
	}
	account, amount := "account-"+strconv.Itoa(rand.IntN(100)), rand.IntN(2001)-1000
	err := c.Exec("INSERT INTO entries (account, amount, at) VALUES (?, ?, datetime('now'))", account, amount)
	if err == nil {
		err = c.Exec("INSERT INTO accounts VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET balance = balance + excluded.balance", account, amount)
	}
	if err == nil && rand.IntN(20) == 0 {
		err = c.Exec("DELETE FROM entries WHERE id = (SELECT min(id) FROM entries)")
	}
	if err == nil {
		err = c.Commit()
	}
	return errors.Join(err, c.Rollback())
}
