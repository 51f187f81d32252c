package main

import (
	"errors"
	"strings"
	"testing"

	"github.com/sqlite-replicator/replicator/web"
)

// A stubNode is a node of which only the databases matter.
type stubNode struct{ web.Source }

func (stubNode) Databases() []web.Database { return []web.Database{{Name: "app", State: "streaming"}} }

func TestLobby(t *testing.T) {
	noon := clockOf(t)()
	l := &lobby{databases: []web.Database{{Name: "app", Path: "/app.db"}}, since: noon}
	l.say("NATS is silent")
	d := l.Databases()[0]
	if d.Name != "app" || d.Path != "/app.db" || d.State != stateStarting || d.Error != "NATS is silent" || !d.Since.Equal(noon) || d.Lag.Seconds != nil {
		t.Errorf("the database is %+v", d)
	}
	ctx := t.Context()
	for name, ask := range map[string]func(db string) error{
		"sync":     func(db string) error { _, err := l.Sync(ctx, db, 0); return err },
		"wait":     func(db string) error { _, err := l.Wait(ctx, db, web.Position{}); return err },
		"repair":   func(db string) error { _, err := l.Repair(ctx, db); return err },
		"verify":   func(db string) error { _, err := l.Verify(ctx, db); return err },
		"snapshot": func(db string) error { _, err := l.Snapshot(ctx, db); return err },
	} {
		if err := ask("app"); !errors.Is(err, web.ErrUnavailable) || !strings.Contains(err.Error(), "NATS is silent") {
			t.Errorf("%s: %v", name, err)
		}
		if err := ask("other"); !errors.Is(err, web.ErrUnknown) {
			t.Errorf("%s of an unknown database: %v", name, err)
		}
	}
	l.open(stubNode{})
	if d := l.Databases()[0]; d.State != "streaming" {
		t.Errorf("the node is there, the database is %+v", d)
	}
}
