package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/sqlite-replicator/replicator/internal/config"
	"github.com/sqlite-replicator/replicator/internal/sqlite"
	"github.com/sqlite-replicator/replicator/web"
)

type demoOptions struct {
	dir     string
	seconds int
	rate    int
}

func newDemo(e *environment) *cobra.Command {
	var o demoOptions
	cmd := command(e, "demo", "Run a primary, a replica and a program that writes, and show the lag", o.run)
	cmd.Long = "demo starts a primary with its own NATS server and a replica, in one process, and a second process that writes\n" +
		"the source database as any program would. It shows each second how far the replica is, and in the end compares\n" +
		"every row. It runs until Ctrl-C; where the output is no terminal, for 10 seconds."
	cmd.Flags().StringVar(&o.dir, "dir", "", "where the files go; without it a new folder for temporary files")
	cmd.Flags().IntVar(&o.seconds, "seconds", 0, "how long; 0 is until Ctrl-C")
	cmd.Flags().IntVar(&o.rate, "rate", 500, "transactions a second that the program writes; 0 is as fast as it can")
	return cmd
}

const (
	unattendedSeconds = 10
	demoFinish        = 8 * time.Second // to catch up and compare, after the writing has ended
	demoDatabase      = "app"
	demoLog           = "demo.log"
)

func (o *demoOptions) run(ctx context.Context, e *environment) error {
	if o.seconds == 0 && !e.terminal {
		o.seconds = unattendedSeconds
	}
	d, err := newDemoRun(e, o.dir)
	if err != nil {
		return err
	}
	defer d.close()
	if d.writer, err = startWriter(ctx, d.source, o.rate, d.log); err != nil {
		return err
	}
	// Ctrl-C ends the writing, not what comes after it.
	if err := d.start(context.WithoutCancel(ctx)); err != nil {
		return err
	}
	live, cancel := ctx, context.CancelFunc(func() {})
	if o.seconds > 0 {
		live, cancel = context.WithTimeout(ctx, time.Duration(o.seconds)*time.Second)
	}
	defer cancel()
	if err := d.live(live); err != nil {
		return err
	}
	finish, cancel := context.WithTimeout(context.WithoutCancel(ctx), demoFinish)
	defer cancel()
	return d.compare(finish)
}

// A demoRun is one run of the demo.
type demoRun struct {
	e            *environment
	dir          string
	source, copy string
	log          *os.File
	writer       *writer
	primary      *primaryDaemon
	replica      *replicaDaemon
}

func newDemoRun(e *environment, dir string) (*demoRun, error) {
	var err error
	if dir == "" {
		dir, err = os.MkdirTemp("", "replicator-demo-")
	} else if dir, err = filepath.Abs(dir); err == nil {
		err = os.MkdirAll(dir, 0o700)
	}
	if err == nil {
		err = ownDemoDir(dir)
	}
	if err != nil {
		return nil, fmt.Errorf("folder of the demo: %w", err)
	}
	d := &demoRun{e: e, dir: dir, source: filepath.Join(dir, "app.db"), copy: filepath.Join(dir, "replica.db")}
	d.log, err = os.OpenFile(filepath.Join(dir, demoLog), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	return d, err
}

// ownDemoDir refuses a folder that has anything but what an earlier demo has left: it writes
// databases there, and somebody may have some of the same names.
func ownDemoDir(dir string) error {
	there, err := os.ReadDir(dir)
	if err == nil && len(there) > 0 && !slices.ContainsFunc(there, func(f os.DirEntry) bool { return f.Name() == demoLog }) {
		err = usagef("%s is neither empty nor of an earlier demo; choose another folder", dir)
	}
	return err
}

// start starts both nodes; what they log goes to a file.
func (d *demoRun) start(ctx context.Context) (err error) {
	quiet := *d.e
	quiet.stderr = d.log
	p := config.DefaultPrimary()
	p.Node, p.DataDir, p.HTTP.Listen, p.NATS.Embedded.Listen = "demo-primary", filepath.Join(d.dir, "primary"), "127.0.0.1:0", "127.0.0.1:0"
	p.Databases = []config.PrimaryDatabase{{Name: demoDatabase, Path: d.source}}
	p = p.Resolve(d.dir)
	if d.primary, err = startPrimary(ctx, &quiet, p); err != nil {
		return err
	}
	d.hurry(ctx)
	r := config.DefaultReplica()
	r.Node, r.DataDir, r.HTTP.Listen, r.NATS.URL = "demo-replica", filepath.Join(d.dir, "replica"), "127.0.0.1:0", d.primary.url
	r.Databases = []config.ReplicaDatabase{{Name: demoDatabase, Path: d.copy}}
	d.replica, err = startReplica(ctx, &quiet, r.Resolve(d.dir))
	return err
}

// hurry has the snapshot made that the replica starts from. One is made anyway,
// a second later; whoever watches a demo counts them.
func (d *demoRun) hurry(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	if _, err := d.primary.node.Snapshot(ctx, demoDatabase); err != nil {
		d.primary.log.Info("no snapshot yet", "err", err)
	}
}

func (d *demoRun) close() {
	if d.writer != nil {
		d.writer.stop()
	}
	if d.replica != nil {
		d.replica.stack.stop()
	}
	if d.primary != nil {
		d.primary.stack.stop()
	}
	_ = d.log.Close() // nothing of value
}

// live shows a line each second while the writer runs.
func (d *demoRun) live(ctx context.Context) error {
	fmt.Fprintf(d.e.stdout, "source   %s\nreplica  %s\nstatus   http://%s/v1/status\n\n", d.source, d.copy, addressOf(ctx, d.primary.web))
	var t demoTable
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for began := d.e.clock(); ; {
		select {
		case <-ctx.Done():
			d.writer.stop()
			return nil
		case <-d.writer.ended:
			if ctx.Err() != nil { // Ctrl-C reached both processes
				return nil
			}
			return fmt.Errorf("the program that writes has ended; see %s", d.log.Name())
		case err := <-d.primary.stack.failed:
			return err
		case err := <-d.replica.stack.failed:
			return err
		case <-tick.C:
			t.print(d.e, d.e.clock().Sub(began), d.primary.node.Databases()[0], d.replica.node.Databases()[0], d.rows(d.copy))
		}
	}
}

func addressOf(ctx context.Context, s *web.Server) string {
	select {
	case <-s.Ready():
		return s.Addr()
	case <-ctx.Done():
		return "-"
	}
}

// A demoTable prints the live lines.
type demoTable struct {
	lines        int
	transactions float64 // at the last line
}

func (t *demoTable) print(e *environment, after time.Duration, p, r web.Database, rows string) {
	if t.lines%20 == 0 {
		fmt.Fprintf(e.stdout, "%6s  %9s  %9s  %9s  %12s  %-11s  %s\n", "TIME", "WRITES/S", "LSN", "APPLIED", "REPLICA ROWS", "STATE", "LAG")
	}
	t.lines++
	total := p.Details["transactions_total"]
	fmt.Fprintf(e.stdout, "%6s  %9.0f  %9s  %9s  %12s  %s  %s\n", span(after.Round(time.Second)), total-t.transactions,
		number(uint64(*p.LSN.Captured)), number(uint64(*r.LSN.Applied)), rows,
		pad(paint{e.terminal}.state(r.State), 11), lagText(r.Lag, e.clock()))
	t.transactions = total
}

func pad(s string, width int) string {
	for visible(s) < width {
		s += " "
	}
	return s
}

// rows counts the rows of the demo's table as any reader of the file would.
func (d *demoRun) rows(path string) string {
	c, err := sqlite.Open(path, sqlite.Options{ReadOnly: true, BusyTimeout: time.Second})
	if err != nil {
		return "-" // not there yet
	}
	defer func() { _ = c.Close() }() // reading only
	n, err := c.QueryInt("SELECT count(*) FROM entries")
	if err != nil {
		return "-"
	}
	return number(uint64(n))
}

// compare waits until the replica has everything and proves it.
func (d *demoRun) compare(ctx context.Context) error {
	at, err := d.primary.node.Sync(ctx, demoDatabase, 0)
	if err == nil {
		_, err = d.replica.node.Wait(ctx, demoDatabase, at)
	}
	var v web.Verification
	if err == nil {
		v, err = d.replica.node.Verify(ctx, demoDatabase)
	}
	if err != nil {
		return fmt.Errorf("the replica did not get everything: %w (see %s)", err, d.log.Name())
	}
	fmt.Fprintln(d.e.stdout)
	print := verifyOptions{}
	if err := print.print(d.e, v); err != nil {
		return err
	}
	fmt.Fprintf(d.e.stdout, "\nLook at both files:\n  sqlite3 %s 'SELECT count(*), sum(amount) FROM entries'\n  sqlite3 %s 'SELECT count(*), sum(amount) FROM entries'\n", d.source, d.copy)
	if !v.Equal {
		return &exitError{codeDiverged, errors.New("the replica differs from its source")}
	}
	return nil
}
