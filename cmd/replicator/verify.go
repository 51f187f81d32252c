package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"github.com/spf13/cobra"

	"github.com/sqlite-replicator/replicator/web"
)

type verifyOptions struct {
	target  target
	db      string
	json    bool
	timeout time.Duration
}

func newVerify(e *environment) *cobra.Command {
	var o verifyOptions
	cmd := command(e, "verify [--db NAME]", "Compare every row of a replica with its primary", o.run)
	cmd.Long = "verify asks a running replica to compare all tables with the primary, both at exactly one LSN, while both go on\n" +
		"serving. It exits with 4 if anything differs."
	o.target.flags(cmd, replicaAddress)
	cmd.Flags().StringVar(&o.db, "db", "", "name of the database; without it all of the replica's")
	cmd.Flags().BoolVar(&o.json, "json", false, "print JSON, one object for each database")
	cmd.Flags().DurationVar(&o.timeout, "timeout", time.Hour, "how long to wait, for each database")
	return cmd
}

func (o *verifyOptions) run(ctx context.Context, e *environment) error {
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
		v, err := o.one(ctx, c, db)
		if err != nil {
			errs = append(errs, fmt.Errorf("verify %s: %w", db, err))
			continue
		}
		if err := o.print(e, v); err != nil {
			return err
		}
		if !v.Equal {
			errs = append(errs, &exitError{codeDiverged, fmt.Errorf("verify %s: the replica differs from its primary at LSN %d", db, v.LSN)})
		}
	}
	return errors.Join(errs...)
}

func (o *verifyOptions) one(ctx context.Context, c *client, db string) (web.Verification, error) {
	ctx, cancel := context.WithTimeout(ctx, o.timeout+answerRoom)
	defer cancel()
	var v web.Verification
	err := c.do(ctx, http.MethodPost, "/v1/databases/"+url.PathEscape(db)+"/verify", url.Values{"timeout": {o.timeout.String()}}, &v)
	return v, late(ctx, err)
}

func (o *verifyOptions) print(e *environment, v web.Verification) error {
	if o.json {
		return json.NewEncoder(e.stdout).Encode(v)
	}
	word := "equal"
	if !v.Equal {
		word = "DIFFERENT"
	}
	_, err := fmt.Fprintf(e.stdout, "%s on %s: %s at LSN %d: %s, %s, %.1f s\n", v.Database, v.Node, word, v.LSN,
		count(v.Tables, "table"), count(int(v.Rows), "row"), v.Seconds)
	for _, d := range v.Differences {
		if err == nil {
			_, err = fmt.Fprintf(e.stdout, "  %s\n", d)
		}
	}
	return err
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
