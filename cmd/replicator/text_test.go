package main

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sqlite-replicator/replicator/cdc"
	"github.com/sqlite-replicator/replicator/internal/config"
	"github.com/sqlite-replicator/replicator/stream"
	"github.com/sqlite-replicator/replicator/web"
)

func clockOf(*testing.T) func() time.Time {
	noon := time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)
	return func() time.Time { return noon }
}

func TestText(t *testing.T) {
	for _, tt := range []struct{ got, want string }{
		{number(0), "0"}, {number(999), "999"}, {number(1000), "1,000"}, {number(1234567), "1,234,567"},
		{size(0), "0 B"}, {size(1023), "1023 B"}, {size(1024), "1.0 KiB"}, {size(1536 << 20), "1.5 GiB"}, {size(-5), "0 B"},
		{span(-time.Second), "0 s"}, {span(3 * time.Millisecond), "3 ms"}, {span(1500 * time.Millisecond), "1.5 s"},
		{span(42 * time.Second), "42 s"}, {span(250 * time.Second), "4m10s"}, {span(3*time.Hour + 5*time.Minute), "3h5m"}, {span(52 * time.Hour), "2d4h"},
		{count(1, "row"), "1 row"}, {count(0, "row"), "0 rows"}, {count(1200, "row"), "1,200 rows"},
		{fmt.Sprint(visible(paint{true}.state("failed"))), "6"},
		{paint{}.state("failed"), "failed"},
		{goal{}.String(), "the end of the stream"}, {goal{lsn: 7}.String(), "LSN 7"},
	} {
		if tt.got != tt.want {
			t.Errorf("got %q, want %q", tt.got, tt.want)
		}
	}
}

func ptr[T any](v T) *T { return &v }

func TestProgressThatWaits(t *testing.T) {
	p := web.Progress{What: "snapshot", Unit: "bytes", Waits: "for its turn"}
	if got := progressText(p); got != "snapshot waits for its turn" {
		t.Error(got)
	}
}

func TestPrintStatus(t *testing.T) {
	now := clockOf(t)()
	s := web.Status{Node: "primary-1", Role: "primary", Version: "v1.2.3", Time: now, Databases: []web.Database{{
		Name: "app", State: "streaming", Since: now.Add(-3 * time.Minute), Epoch: 4,
		LSN:      web.LSNs{Captured: ptr(cdc.LSN(1200)), Durable: ptr(cdc.LSN(1200)), Published: ptr(cdc.LSN(1199))},
		Lag:      web.Lag{Transactions: ptr(uint64(2)), Bytes: ptr(uint64(9)), Seconds: ptr(0.25)},
		Sizes:    web.Sizes{Database: 5 << 20, SQLiteWAL: 40960, ChangeLog: 2 << 20, Snapshot: 1 << 20},
		Progress: &web.Progress{What: "snapshot", Unit: "bytes", Done: 1 << 20, Total: 5 << 20, PerSecond: 1 << 20, ETASeconds: ptr(4.0)},
		Replicas: []web.Replica{
			{Node: "replica-1", State: "catching_up", Applied: 1100, Alive: true, ReportedAt: now.Add(-200 * time.Millisecond), Lag: web.Lag{Seconds: ptr(2.5), Transactions: ptr(uint64(100))}},
			{Node: "replica-2", State: "streaming", Applied: 10, ReportedAt: now.Add(-time.Hour), Lag: web.Lag{Since: ptr(now.Add(-time.Hour))}},
		},
	}, {
		Name: "b", State: "waiting", Since: now, Error: "b.db: no database there yet", LSN: web.LSNs{Captured: ptr(cdc.LSN(0))},
	}}}
	want := `primary-1  primary  v1.2.3

DATABASE  STATE      FOR   LSN                                              EPOCH  LAG           SIZE     SQLITE WAL  CHANGE LOG  SNAPSHOT
app       streaming  3m0s  captured 1,200, durable 1,200, published 1,199  4      250 ms, 2 tx  5.0 MiB  40.0 KiB    2.0 MiB     1.0 MiB
b         waiting    0 ms  0                                                0      unknown       0 B      0 B         -           -

app: snapshot 20 % of 5.0 MiB, 1.0 MiB/s, 4.0 s left

b: b.db: no database there yet

REPLICA    DATABASE  STATE               LSN    LAG            HEARD
replica-1  app       catching_up         1,100  2.5 s, 100 tx  200 ms ago
replica-2  app       silent (streaming)  10     unknown for 1h0m  1h0m ago
`
	var got strings.Builder
	printStatus(&got, s, paint{})
	// Widths are the table's own business.
	if diff := cmp.Diff(words(want), words(got.String())); diff != "" {
		t.Errorf("(-want +got):\n%s\n%s", diff, got.String())
	}
}

func words(s string) (lines []string) {
	for line := range strings.SplitSeq(s, "\n") {
		lines = append(lines, strings.Join(strings.Fields(line), " "))
	}
	return lines
}

func TestExitCodes(t *testing.T) {
	for _, tt := range []struct {
		err  error
		want int
	}{
		{nil, codeOK},
		{errors.New("unknown flag"), codeUsage}, // cobra's
		{&ranError{errors.New("disk broke")}, codeFailure},
		{&ranError{fmt.Errorf("x: %w", config.ErrInvalid)}, codeUsage},
		{&ranError{usagef("--db")}, codeUsage},
		{&ranError{errors.Join(&exitError{codeDiverged, errors.New("t")})}, codeDiverged},
		{&ranError{&exitError{codeLate, errors.New("t")}}, codeLate},
		{&ranError{errors.Join(fmt.Errorf("a: %w", &exitError{codeLate, errors.New("t")}), fmt.Errorf("b: %w", &exitError{codeDiverged, errors.New("t")}))}, codeDiverged},
	} {
		if got := exitCode(tt.err); got != tt.want {
			t.Errorf("%v: exit code %d, want %d", tt.err, got, tt.want)
		}
	}
}

func TestDialable(t *testing.T) {
	for _, tt := range []struct{ listen, want string }{
		{"127.0.0.1:8080", "http://127.0.0.1:8080"}, {"0.0.0.0:80", "http://localhost:80"}, {"[::]:80", "http://localhost:80"},
		{":80", "http://localhost:80"}, {"[::1]:80", "http://[::1]:80"}, {"db.example.com:80", "http://db.example.com:80"},
		{"127.0.0.1:0", ""}, {"nonsense", ""},
	} {
		if got, err := dialable(tt.listen); got != tt.want || (err == nil) != (tt.want != "") {
			t.Errorf("dialable(%q) is %q, %v; want %q", tt.listen, got, err, tt.want)
		}
	}
}

func TestGoalCovers(t *testing.T) {
	noon := clockOf(t)()
	for _, tt := range []struct {
		to   goal
		lsn  cdc.LSN
		at   time.Time
		want bool
	}{
		{goal{}, 99, noon, true},
		{goal{lsn: 5}, 5, noon, true},
		{goal{lsn: 5}, 6, noon, false},
		{goal{time: noon}, 9, noon, true},
		{goal{time: noon}, 9, noon.Add(1), false},
	} {
		if got := tt.to.covers(tt.lsn, tt.at); got != tt.want {
			t.Errorf("%v covers %d at %v: %t", tt.to, tt.lsn, tt.at, got)
		}
	}
}

// TestForeignTextIsShownNotObeyed: a report is by whoever may publish, and a table has
// any name. What a terminal would obey is written out, and a line stays one line.
func TestForeignTextIsShownNotObeyed(t *testing.T) {
	f := newFleet(time.Now)
	f.add(stream.Report{Node: "\x1b[2J\x1b]0;owned\a", State: "x\x1b[1A\nrow", Error: "\x1b[8m"})
	status := web.Status{Node: "p\u009b", Databases: []web.Database{{Name: "app", State: "failed", Error: "table \x1b[2J\u202e: damaged", Replicas: f.describe(time.Now())}}}
	var out strings.Builder
	printStatus(&out, status, paint{})
	lines := strings.Count(out.String(), "\n")
	different := web.Verification{Differences: []string{"table \x1b]0;owned\a\nx differs"}, Differing: []web.TableRows{{Table: "\x1b", Count: 1, First: []web.DifferingRow{{Rowid: 1}}}}}
	if err := (&verifyOptions{}).print(&environment{stdout: &out}, different); err != nil {
		t.Fatal(err)
	}
	if err := (&dumper{o: &dumpOptions{}, out: &out}).print(dumpedRecord{Note: "\x1b", Changes: []dumpedChange{{Op: "insert", Table: "a\nb\x7f"}}}); err != nil {
		t.Fatal(err)
	}
	if strings.ContainsAny(out.String(), "\x1b\a\x7f\u009b\u202e") || strings.Count(out.String(), "\n") != lines+3+2 {
		t.Errorf("%q", out.String())
	}
	if !strings.Contains(out.String(), `\u001b[2J`) {
		t.Errorf("it cannot be seen what the name is: %q", out.String())
	}
}
