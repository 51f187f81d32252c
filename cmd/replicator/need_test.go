package main

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/sqlite-replicator/replicator/cdc"
	"github.com/sqlite-replicator/replicator/primary"
	"github.com/sqlite-replicator/replicator/replica"
	"github.com/sqlite-replicator/replicator/stream"
	"github.com/sqlite-replicator/replicator/web"
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

// TestReplicasThatCount: sync counts who is there to be read, and has what it covers.
func TestReplicasThatCount(t *testing.T) {
	now := clockOf(t)()
	f := newFleet(func() time.Time { return now })
	at := cdc.Position{Lineage: cdc.ID{1}, Epoch: 1, LSN: 10}
	r := stream.Report{State: "streaming", Applied: at}
	reports := func(node string, r stream.Report) {
		r.Node = node
		f.add(r)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	count := func(what string, want int) {
		t.Helper()
		if f.wait(ended, at, want) != nil || f.wait(ended, at, want+1) == nil {
			t.Errorf("%s: not %d", what, want)
		}
	}
	reports("old-name", r)
	now = now.Add(time.Hour)
	reports("new-name", r)
	count("a replica that was renamed", 1)
	for _, state := range []string{"diverged", "failed"} {
		r := r
		r.State = state
		reports("new-name", r)
		count(state, 0)
	}
	r.State = "offline"
	reports("new-name", r)
	count("cut off, and it has it", 1)

	// Those that report once a minute are never young at once.
	began := now
	for _, node := range []string{"seldom-1", "seldom-2"} {
		now = now.Add(time.Minute)
		reports(node, r)
	}
	if n := f.holding(at, began); n != 3 {
		t.Errorf("%d replicas have reported since", n)
	}
}

// TestWaitOnAPrimaryThatFails does not last until the time is up.
func TestWaitOnAPrimaryThatFails(t *testing.T) {
	d := quietSource(t, time.Now)
	n := &primaryNode{databases: []*sourceDatabase{d}}
	done := make(chan error, 1)
	go func() {
		_, err := n.Wait(t.Context(), "app", web.Position{LSN: 1})
		done <- err
	}()
	why := errors.New("the disk is gone")
	d.ended.Store(&why)
	if err := <-done; !errors.Is(err, web.ErrUnavailable) || !errors.Is(err, why) {
		t.Error(err)
	}
}
