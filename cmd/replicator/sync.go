package main

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/sqlite-replicator/replicator/web"
)

// answerRoom is how much longer than the node the command itself waits: long
// enough to hear how far the node has come.
const answerRoom = 2 * time.Second

type syncOptions struct {
	target   target
	db       string
	replicas int
	timeout  time.Duration
}

func newSync(e *environment) *cobra.Command {
	var o syncOptions
	cmd := command(e, "sync --db NAME", "Wait until everything committed so far is published, and print its LSN", o.run)
	cmd.Long = "sync asks the primary for an LSN that covers everything committed before the call, once all of it is durable\n" +
		"and published and, with --replicas, applied by as many replicas. Give it to `replicator wait` on a replica.\n" +
		"Asked of a replica, sync asks the primary and waits until the replica has applied it."
	o.target.flags(cmd, primaryAddress)
	cmd.Flags().StringVar(&o.db, "db", "", "name of the database (required)")
	cmd.Flags().IntVar(&o.replicas, "replicas", 0, "how many replicas must have applied it")
	cmd.Flags().DurationVar(&o.timeout, "timeout", 30*time.Second, "how long to wait")
	require(cmd, "db")
	return cmd
}

func (o *syncOptions) run(ctx context.Context, e *environment) error {
	if o.replicas < 0 {
		return usagef("--replicas is %d, want at least 0", o.replicas)
	}
	c, err := o.target.client(e)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, o.timeout+answerRoom)
	defer cancel()
	deadline := e.clock().Add(o.timeout)
	var at web.Position
	err = patiently(ctx, func() error {
		q := url.Values{"timeout": {remaining(e, deadline)}}
		if o.replicas > 0 {
			q.Set("replicas", strconv.Itoa(o.replicas))
		}
		return c.do(ctx, http.MethodPost, "/v1/databases/"+url.PathEscape(o.db)+"/sync", q, &at)
	})
	if err != nil {
		return late(ctx, err)
	}
	_, err = fmt.Fprintln(e.stdout, at.LSN)
	return err
}

// remaining is the time until deadline, as a parameter.
func remaining(e *environment, deadline time.Time) string {
	return max(deadline.Sub(e.clock()), time.Millisecond).Round(time.Millisecond).String()
}
