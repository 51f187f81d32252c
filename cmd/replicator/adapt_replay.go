package main

import (
	"github.com/sqlite-replicator/replicator/primary"
	"github.com/sqlite-replicator/replicator/replica"
	"github.com/sqlite-replicator/replicator/snapshot"
)

// replaying is a replica's file as the primary uses one to rebuild the state at
// its last position.
type replaying struct{ *replica.File }

// Finish strips what makes the file a replica.
func (r replaying) Finish() error { return r.File.Finish(true) }

// openReplay opens a file restored from the snapshot m for a primary.
func openReplay(path string, m snapshot.Manifest) (primary.Replayer, error) {
	f, err := openRestored(path, m)
	if err != nil {
		return nil, err
	}
	return replaying{f}, nil
}

// openRestored opens a file restored from the snapshot m, to apply what follows.
func openRestored(path string, m snapshot.Manifest) (*replica.File, error) {
	return replica.OpenFile(path, replica.FileOptions{At: replica.Mark{
		Position: m.Position, Transactions: m.Totals.Transactions, Bytes: m.Totals.Bytes, CapturedAt: m.Totals.CapturedAt,
	}})
}
