package main

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"github.com/spf13/cobra"

	"github.com/sqlite-replicator/replicator/web"
)

type waitOptions struct {
	target  target
	db      string
	lsn     uint64
	epoch   uint64
	maxLag  time.Duration
	bounded bool // by maxLag
	timeout time.Duration
}

func newWait(e *environment) *cobra.Command {
	var o waitOptions
	cmd := command(e, "wait [--db NAME --lsn N]", "Wait until a node has applied an LSN or, without one, is ready", nil)
	cmd.RunE = runs(func(cmd *cobra.Command, _ []string) error {
		if cmd.Flags().Changed("lsn") && o.lsn == 0 {
			return usagef("--lsn is 0, want an LSN, which begin with 1; to wait until the node is ready leave it out")
		}
		if o.bounded = cmd.Flags().Changed("max-lag"); o.maxLag < 0 {
			return usagef("--max-lag is %s, want at least 0", o.maxLag)
		}
		return o.run(cmd.Context(), e)
	})
	cmd.Long = "wait returns once the node has applied the LSN that `replicator sync` printed. Without --lsn it returns once\n" +
		"every database of the node is streaming and, with --max-lag, within that bound. A node that was just started is\n" +
		"waited for."
	o.target.flags(cmd, replicaAddress)
	cmd.Flags().StringVar(&o.db, "db", "", "name of the database")
	cmd.Flags().Uint64Var(&o.lsn, "lsn", 0, "LSN to wait for")
	cmd.Flags().Uint64Var(&o.epoch, "epoch", 0, "epoch of the LSN, if it is known")
	cmd.Flags().DurationVar(&o.maxLag, "max-lag", 0, "without --lsn: largest lag that counts as ready")
	cmd.Flags().DurationVar(&o.timeout, "timeout", 30*time.Second, "how long to wait")
	cmd.MarkFlagsRequiredTogether("db", "lsn")
	cmd.MarkFlagsMutuallyExclusive("lsn", "max-lag")
	return cmd
}

func (o *waitOptions) run(ctx context.Context, e *environment) error {
	c, err := o.target.client(e)
	if err != nil {
		return err
	}
	if o.lsn == 0 {
		return late(o.ready(ctx, c))
	}
	ctx, cancel := context.WithTimeout(ctx, o.timeout+answerRoom)
	defer cancel()
	deadline := e.clock().Add(o.timeout)
	var at web.Position
	err = patiently(ctx, func() error {
		q := url.Values{"lsn": {fmt.Sprint(o.lsn)}, "timeout": {remaining(e, deadline)}}
		if o.epoch > 0 {
			q.Set("epoch", fmt.Sprint(o.epoch))
		}
		return c.do(ctx, http.MethodGet, "/v1/databases/"+url.PathEscape(o.db)+"/wait", q, &at)
	})
	return late(ctx, err)
}

// ready waits for the whole node.
func (o *waitOptions) ready(ctx context.Context, c *client) (context.Context, error) {
	ctx, cancel := context.WithTimeout(ctx, o.timeout)
	defer cancel()
	q := url.Values{}
	if o.bounded {
		q.Set("max_lag", o.maxLag.String())
	}
	last := error(nil) // the request that ctx cuts off says nothing
	err := patiently(ctx, func() error {
		err := c.do(ctx, http.MethodGet, "/readyz", q, nil)
		if ctx.Err() != nil && last != nil {
			return last
		}
		last = err
		return err
	})
	return ctx, err
}
