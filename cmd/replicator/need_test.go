package main

import (
	"testing"

	"github.com/sqlite-replicator/replicator/cdc"
	"github.com/sqlite-replicator/replicator/primary"
	"github.com/sqlite-replicator/replicator/replica"
	"github.com/sqlite-replicator/replicator/stream"
)

func TestNeed(t *testing.T) {
	here, other := cdc.ID{1}, cdc.ID{2}
	for _, c := range []struct {
		state   replica.State
		lineage cdc.ID
		want    primary.Need
	}{
		{replica.Streaming, here, primary.Need{After: 7}},
		{replica.CatchingUp, here, primary.Need{After: 7}},
		{replica.Streaming, other, primary.Need{}}, // its numbers mean nothing here
		{replica.Restoring, other, primary.Need{After: 7, Restoring: true}},
		{replica.Failed, here, primary.Need{}},
	} {
		r := stream.Report{State: string(c.state), Applied: cdc.Position{Lineage: c.lineage, LSN: 7}, Needs: 7}
		if got := need(r, here); got != c.want {
			t.Errorf("%s of lineage %s: %+v, want %+v", c.state, c.lineage, got, c.want)
		}
	}
}
