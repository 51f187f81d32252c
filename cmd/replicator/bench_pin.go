package main

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/sqlite-replicator/replicator/internal/config"
	"github.com/sqlite-replicator/replicator/internal/sqlite"
)

// A benchPin keeps a read transaction open on a database and moves it as a primary does
// that decodes nothing, has no change log and publishes nothing. What it takes from a
// writer is what any program must take that reads the SQLite WAL without a loss.
type benchPin struct {
	files           []*os.File      // database and SQLite WAL; to close one sooner would drop SQLite's locks
	pins            [2]*sqlite.Conn // hold read transactions, in turn
	control, helper *sqlite.Conn    // one checkpoints, one takes the write lock
	held            int             // index of the pin that is held
	at              uint32          // frames when it was opened
	repin, turnover uint32          // frames, as the primary's settings
}

func newBenchPin(e *environment) *cobra.Command {
	return &cobra.Command{
		Use:    "bench-pin FILE",
		Short:  "Keep the SQLite WAL of a database of the bench from loss until standard input ends, and nothing else",
		Hidden: true,
		Args:   cobra.ExactArgs(1),
		RunE: runs(func(cmd *cobra.Command, args []string) (err error) {
			ctx, cancel := untilInputEnds(cmd.Context())
			defer cancel()
			p, err := openBenchPin(args[0])
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, p.close()) }()
			if err := json.NewEncoder(e.stdout).Encode(true); err != nil { // it is held
				return err
			}
			return p.run(ctx)
		}),
	}
}

func openBenchPin(file string) (p *benchPin, err error) {
	capture := config.DefaultPrimary().Capture
	p = &benchPin{repin: uint32(capture.RepinFrames), turnover: uint32(turnoverFrames())}
	for _, c := range []**sqlite.Conn{&p.pins[0], &p.pins[1], &p.control, &p.helper} {
		if *c, err = sqlite.Open(file, sqlite.Options{Plain: true}); err != nil {
			return nil, errors.Join(err, p.close())
		}
	}
	err = p.pins[0].OpenRead() // makes the SQLite WAL, if there is none
	for _, name := range []string{file + "-wal", file} {
		if err != nil {
			break
		}
		var f *os.File
		f, err = os.OpenFile(name, os.O_RDWR, 0)
		p.files = append(p.files, f)
	}
	if err != nil {
		return nil, errors.Join(err, p.close())
	}
	return p, nil
}

func (p *benchPin) close() (err error) {
	for _, c := range []*sqlite.Conn{p.pins[0], p.pins[1], p.control, p.helper} {
		if c != nil {
			err = errors.Join(err, c.Close())
		}
	}
	for _, f := range p.files {
		_ = f.Close() // nil, or synced where it matters
	}
	return err
}

// run moves the pin until ctx ends.
func (p *benchPin) run(ctx context.Context) error {
	for ctx.Err() == nil {
		m, err := p.control.Checkpoint(sqlite.Noop)
		switch {
		case err != nil:
		case m.Frames < p.at: // a writer has started it over
			p.at = 0
		case m.Frames >= p.turnover && m.Frames > p.at:
			err = p.startOver()
		case m.Frames-p.at >= p.repin:
			err = p.move()
		}
		if err != nil {
			return err
		}
		time.Sleep(time.Millisecond)
	}
	return nil
}

// move opens a pin at the present, gives up the other, and copies what that allows.
func (p *benchPin) move() error {
	next := 1 - p.held
	m, err := p.control.Checkpoint(sqlite.Noop)
	if err == nil {
		err = p.pins[next].OpenRead()
	}
	if err == nil {
		err = p.pins[p.held].Rollback()
	}
	if err == nil {
		_, err = p.control.Checkpoint(sqlite.Passive)
	}
	p.held, p.at = next, m.Frames
	return err
}

// startOver lets the next writer start the SQLite WAL over.
func (p *benchPin) startOver() (err error) {
	if err := errors.Join(p.move(), p.files[0].Sync(), p.files[1].Sync()); err != nil {
		return err
	}
	const patience = 500 * time.Millisecond
	for deadline := time.Now().Add(patience); ; time.Sleep(20 * time.Microsecond) {
		if err = p.helper.BeginImmediate(); !sqlite.IsBusy(err) || time.Now().After(deadline) {
			break
		}
	}
	if sqlite.IsBusy(err) {
		return nil // the next look tries again
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.helper.Rollback()) }()
	if err := p.pins[p.held].Rollback(); err != nil {
		return err
	}
	m, err := p.control.Checkpoint(sqlite.Passive)
	p.at = m.Frames
	return errors.Join(err, p.pins[p.held].OpenRead())
}
