package stream

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/sqlite-replicator/replicator/cdc"
)

// seedLive adds a message, and damage to it.
func seedLive(f *testing.F, v any) {
	b, err := json.Marshal(v)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add(b[:len(b)/2])
	f.Add([]byte(strings.ReplaceAll(string(b), ":1", ":-1")))
	f.Add([]byte(strings.ReplaceAll(string(b), "2026", "9999")))
	for _, s := range []string{"", "null", "[]", "7", "{}", `{"lag":{"seconds":1e999}}`, `{"position":{"lineage":"zz"}}`, "\x00", `{"node":"\u0000\ud800"}`} {
		f.Add([]byte(s))
	}
}

// again sends and takes v once more: what was taken is what is passed on and shown.
func again[T any](t *testing.T, v T) {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatalf("%+v cannot be shown: %v", v, err)
	}
	var w T
	if err := json.Unmarshal(b, &w); err != nil {
		t.Fatalf("%s: %v", b, err)
	}
	if diff := cmp.Diff(v, w); diff != "" {
		t.Fatalf("sent again (-was +is):\n%s", diff)
	}
}

// FuzzHeartbeat: any bytes are a heartbeat or nothing.
func FuzzHeartbeat(f *testing.F) {
	seedLive(f, Heartbeat{Node: "p", State: "failed", Level: time.Hour, Position: cdc.Position{Lineage: cdc.ID{1}, Epoch: 1, LSN: 1}, Captured: 1, SentAt: time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC)})
	f.Fuzz(func(t *testing.T, b []byte) {
		if h, err := parseLive[Heartbeat](b); err == nil {
			again(t, h)
		}
	})
}

// FuzzReport: any bytes are a report that the fleet can keep and show, or nothing.
func FuzzReport(f *testing.F) {
	one, second := uint64(1), 1.5
	seedLive(f, Report{
		Node: "r", DB: "app", State: "streaming", Applied: cdc.Position{Lineage: cdc.ID{1}, Epoch: 1, LSN: 1}, Needs: 1,
		Lag: Lag{Transactions: &one, Seconds: &second}, SentAt: time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC),
	})
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := parseLive[Report](b)
		if err != nil {
			return
		}
		again(t, r)
		fleet := NewFleet(func() time.Time { return time.Unix(100, 0) })
		news := fleet.Add(r)
		list := fleet.Replicas()
		switch {
		case news != (r.Node != ""), len(list) > 1, len(list) == 0 && news:
			t.Fatalf("the report of %q makes a fleet of %d", r.Node, len(list))
		case len(list) == 1 && (!list[0].ArrivedAt.Equal(time.Unix(100, 0)) || !utf8.ValidString(r.Node)):
			t.Fatalf("the fleet keeps %+v", list[0])
		}
	})
}

// TestLongReport: an error as long as a list of damaged chunks does not make a replica
// silent, and nobody can fill the memory of a primary with reports.
func TestLongReport(t *testing.T) {
	ctx, c := testContext(t), testConn(t)
	got := make(chan Report, 2)
	if err := c.OnReports(ctx, "app", func(r Report) { got <- r }); err != nil {
		t.Fatal(err)
	}
	if err := c.nc.Publish("replicator.app.report", slices.Concat([]byte(`{"node":"flood","error":"`), make([]byte, maxLive), []byte(`"}`))); err != nil {
		t.Fatal(err)
	}
	if err := c.nc.Publish("replicator.app.report", []byte(`{"node":"flood","error":"`+strings.Repeat("x", maxLive)+`"}`)); err != nil {
		t.Fatal(err)
	}
	for _, char := range []string{"x", "\x01", "é", "\u2028"} {
		if err := c.SendReport(Report{Node: "r" + char, DB: "app", State: "failed", Error: strings.Repeat(char, 1<<20)}); err != nil {
			t.Fatal(err)
		}
		r := receive(t, got)
		if r.Node != "r"+char || len(r.Error) > maxError+8 || !strings.HasPrefix(r.Error, strings.Repeat(char, maxError/len(char))) || !utf8.ValidString(r.Error) {
			t.Errorf("%q: the report of %q has an error of %d bytes", char, r.Node, len(r.Error))
		}
	}
}
