package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/sqlite-replicator/replicator/replica"
	"github.com/sqlite-replicator/replicator/web"
)

type verifyOptions struct {
	target  target
	db      string
	json    bool
	repair  bool
	timeout time.Duration
}

func newVerify(e *environment) *cobra.Command {
	var o verifyOptions
	cmd := command(e, "verify [--db NAME] [--repair]", "Compare every row of a replica with its primary", o.run)
	cmd.Long = `verify asks a running replica to compare all tables with the primary, both at exactly one LSN, while both go on serving.
It exits with 4 if anything differs, and names the tables, and the first rows of each by rowid.

A replica that is found to differ is diverged, as if it had found out by itself: it makes itself equal from a snapshot,
while readers go on, or stops with apply.on_divergence: stop. With --repair verify waits until it is equal, also where it
has stopped, and compares again.

The primary's SQLite WAL cannot start over while it is read. When it passes half of max_sqlite_wal the comparison gives way.`
	o.target.flags(cmd, replicaAddress)
	cmd.Flags().StringVar(&o.db, "db", "", "name of the database; without it all of the replica's")
	cmd.Flags().BoolVar(&o.json, "json", false, "print JSON, one object for each comparison")
	cmd.Flags().BoolVar(&o.repair, "repair", false, "make a replica that differs equal, and compare again")
	cmd.Flags().DurationVar(&o.timeout, "timeout", 0, "how long to wait for each comparison and repair; 0: while anything moves")
	return cmd
}

func (o *verifyOptions) run(ctx context.Context, e *environment) error {
	if o.timeout < 0 {
		return usagef("--timeout is %s, want at least 0", o.timeout)
	}
	c, err := o.target.client(e)
	if err != nil {
		return err
	}
	names := []string{o.db}
	if o.db == "" {
		if names, err = c.databases(ctx); err != nil {
			return err
		}
	}
	var errs []error
	for _, db := range names {
		if err := o.database(ctx, e, c, db); err != nil {
			errs = append(errs, fmt.Errorf("verify %s: %w", db, err))
		}
	}
	return errors.Join(errs...)
}

// maxRepairs is how often a replica is repaired: the second time from a snapshot that
// is newer than the difference.
const maxRepairs = 2

func (o *verifyOptions) database(ctx context.Context, e *environment, c *client, db string) error {
	for repairs := 0; ; repairs++ {
		if o.repair { // also what is known from before
			if err := o.ask(ctx, e, c, db, "repair", nil); err != nil {
				return err
			}
		}
		var v web.Verification
		if err := o.ask(ctx, e, c, db, "verify", &v); err != nil {
			return err
		}
		if err := o.print(e, v); err != nil || v.Equal {
			return err
		}
		if !o.repair || repairs == maxRepairs {
			hint := "; --repair makes it equal"
			if o.repair {
				hint = ", although it was repaired"
			}
			return &exitError{codeDiverged, fmt.Errorf("the replica differs from its primary at LSN %d%s", v.LSN, hint)}
		}
	}
}

// ask makes the replica do something to a database, and shows meanwhile how far it is.
func (o *verifyOptions) ask(ctx context.Context, e *environment, c *client, db, what string, answer any) error {
	var query url.Values
	if o.timeout > 0 {
		query = url.Values{"timeout": {o.timeout.String()}}
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, o.timeout+answerRoom)
		defer cancel()
	}
	stop := newMeter(e).follow(ctx, c, db)
	err := c.do(ctx, http.MethodPost, "/v1/databases/"+url.PathEscape(db)+"/"+what, query, answer)
	stop()
	return late(ctx, err)
}

func (o *verifyOptions) print(e *environment, v web.Verification) error {
	if o.json {
		return json.NewEncoder(e.stdout).Encode(v)
	}
	word := "equal"
	if !v.Equal {
		word = "DIFFERENT"
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s on %s: %s at LSN %d: %s, %s, %.1f s\n", legibleLine(v.Database), legibleLine(v.Node), word, v.LSN,
		count(v.Tables, "table"), count(int(v.Rows), "row"), v.Seconds)
	for _, d := range v.Differences {
		fmt.Fprintf(&b, "  %s\n", legibleLine(d))
	}
	for _, t := range v.Differing {
		name := legibleLine(t.Table)
		for _, r := range t.First {
			fmt.Fprintf(&b, "  table %s: rowid %d %s\n", name, r.Rowid, faultText(r.Fault))
		}
		switch more := t.Count - len(t.First); {
		case t.More:
			fmt.Fprintf(&b, "  table %s: and more than %s\n", name, count(more, "other row"))
		case more > 0:
			fmt.Fprintf(&b, "  table %s: and %s\n", name, count(more, "other row"))
		}
	}
	_, err := io.WriteString(e.stdout, b.String())
	return err
}

func faultText(fault string) string {
	switch replica.RowFault(fault) {
	case replica.RowMissing:
		return "is missing here"
	case replica.RowExtra:
		return "is not on the primary"
	}
	return legibleLine(fault)
}

// databases are the names of the node's databases.
func (c *client) databases(ctx context.Context) ([]string, error) {
	var s web.Status
	if err := c.do(ctx, http.MethodGet, "/v1/status", nil, &s); err != nil {
		return nil, err
	}
	var names []string
	for _, d := range s.Databases {
		names = append(names, d.Name)
	}
	return names, nil
}
