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

	"github.com/sqlite-replicator/replicator/snapshot"
	"github.com/sqlite-replicator/replicator/web"
)

func newSnapshot(e *environment) *cobra.Command {
	return group("snapshot", "Make, list and verify snapshots", newSnapshotCreate(e), newSnapshotList(e), newSnapshotVerify(e))
}

type snapshotCreateOptions struct {
	target  target
	db      string
	timeout time.Duration
}

func newSnapshotCreate(e *environment) *cobra.Command {
	var o snapshotCreateOptions
	cmd := command(e, "create --db NAME", "Make a snapshot now; ask the running primary", o.run)
	o.target.flags(cmd, primaryAddress)
	cmd.Flags().StringVar(&o.db, "db", "", "name of the database (required)")
	cmd.Flags().DurationVar(&o.timeout, "timeout", 6*time.Hour, "how long to wait")
	require(cmd, "db")
	return cmd
}

func (o *snapshotCreateOptions) run(ctx context.Context, e *environment) error {
	c, err := o.target.client(e)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, o.timeout+answerRoom)
	defer cancel()
	meter := newMeter(e)
	stop := meter.follow(ctx, c, o.db)
	var s web.Snapshot
	err = c.do(ctx, http.MethodPost, "/v1/databases/"+url.PathEscape(o.db)+"/snapshot", url.Values{"timeout": {o.timeout.String()}}, &s)
	stop()
	if err != nil {
		return late(ctx, err)
	}
	_, err = fmt.Fprintf(e.stdout, "%s: snapshot %s at LSN %d, %s, %s stored\n", o.db, s.ID, s.LSN, size(s.Bytes), size(s.Stored))
	return err
}

// A storedOptions names the snapshots of one database in the store.
type storedOptions struct {
	place place
	id    string
	json  bool
}

func newSnapshotList(e *environment) *cobra.Command {
	var o storedOptions
	cmd := command(e, "list --config FILE", "List the snapshots in the store, the newest last", o.list)
	o.place.flags(cmd)
	cmd.Flags().BoolVar(&o.json, "json", false, "print JSON, one object for each snapshot")
	return cmd
}

func newSnapshotVerify(e *environment) *cobra.Command {
	var o storedOptions
	cmd := command(e, "verify --config FILE [--id ID]", "Read snapshots from the store and check every byte", o.verify)
	o.place.flags(cmd)
	cmd.Flags().StringVar(&o.id, "id", "", "only this snapshot")
	return cmd
}

// stored gives the snapshots in the store. The error names those that cannot be
// used, and comes with the others.
func (o *storedOptions) stored(ctx context.Context, e *environment, use func(snapshot.Store, []snapshot.Manifest) error) error {
	return o.place.visit(ctx, e, func(_ *access, _ string, store snapshot.Store) error {
		all, err := snapshot.List(ctx, store)
		if all == nil {
			return err
		}
		return errors.Join(use(store, all), err)
	})
}

func (o *storedOptions) list(ctx context.Context, e *environment) error {
	return o.stored(ctx, e, func(_ snapshot.Store, all []snapshot.Manifest) error {
		if o.json {
			for _, m := range all {
				m.Chunks = nil // thousands of lines that only a restore reads
				if err := json.NewEncoder(e.stdout).Encode(m); err != nil {
					return err
				}
			}
			return nil
		}
		var t table
		t.add("LSN", "EPOCH", "CREATED", "SIZE", "STORED", "ID")
		for _, m := range all {
			t.add(number(uint64(m.Position.LSN)), m.Position.Epoch.String(), m.CreatedAt.UTC().Format(time.RFC3339),
				size(m.Size()), size(m.StoredSize()), m.ID)
		}
		t.print(e.stdout)
		return nil
	})
}

func (o *storedOptions) verify(ctx context.Context, e *environment) error {
	return o.stored(ctx, e, func(store snapshot.Store, all []snapshot.Manifest) error {
		var errs []error
		found := false
		meter := newMeter(e)
		for _, m := range all {
			if o.id != "" && m.ID != o.id {
				continue
			}
			found = true
			err := snapshot.Verify(ctx, store, m, meter.snapshot("reading"))
			meter.clear()
			if err != nil {
				errs = append(errs, fmt.Errorf("snapshot %s: %w", m.ID, err))
				continue
			}
			fmt.Fprintf(e.stdout, "%s at LSN %d: %s, every byte as it was written\n", m.ID, m.Position.LSN, size(m.Size()))
		}
		switch {
		case found:
		case o.id != "":
			errs = append(errs, fmt.Errorf("no snapshot %s in the store, which has %s", o.id, count(len(all), "snapshot")))
		default:
			errs = append(errs, errors.New("there is no snapshot in the store"))
		}
		return errors.Join(errs...)
	})
}
