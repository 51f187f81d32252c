package primary

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sqlite-replicator/replicator/internal/durable"
)

// reported waits for the report of a kind and reads it. It is the owner's only.
func (b *bench) reported(kind string) (r bugReport) {
	b.t.Helper()
	noError(b.t, b.p.changed.wait(b.ctx, func() bool { return strings.HasSuffix(b.p.Status().Reports.Newest, "-"+kind+".json") }))
	path := b.p.Status().Reports.Newest
	info, err := os.Stat(path)
	noError(b.t, err)
	if info.Mode().Perm() != 0o600 || filepath.Dir(path) != filepath.Join(b.dir, "reports") {
		b.t.Errorf("%s has mode %v", path, info.Mode())
	}
	text, err := os.ReadFile(path)
	noError(b.t, err)
	noError(b.t, json.Unmarshal(text, &r))
	if r.Kind != kind || r.Replicator != "v7" || r.SQLite == "" || r.LSN == 0 || r.Epoch == 0 || r.Time.IsZero() || r.Source.PageSize != 4096 {
		b.t.Errorf("the report is %s", text)
	}
	return r
}

// newReporting is a bench whose first state is captured.
func newReporting(t *testing.T) *bench {
	b := newBench(t, sumTables)
	b.edit = func(o *Options) { o.Version = "v7" }
	b.start()
	b.sync()
	b.known()
	return b
}

// root is the root page of a table.
func (c *capture) root(name string) uint32 {
	for root, tree := range c.decoder.schema.trees {
		if tree.table.Name == name {
			return root
		}
	}
	return 0
}

func TestReportOfAWrongMap(t *testing.T) {
	b := newReporting(t)
	root := uint32(0)
	noError(t, b.p.ask(b.ctx, func(c *capture) error {
		root = c.root("t2")
		c.decoder.pages.set(root, chainNext, 1)
		return nil
	}))
	noError(t, b.p.summer.inspect(b.ctx))
	r := b.reported(reportPageMap)
	if want := fmt.Sprintf("page %d: chain page of page 1", root); !slices.Contains(r.Map, want) {
		t.Errorf("the map is %q, want %q", r.Map, want)
	}
	if !slices.ContainsFunc(r.After, func(p pageOutline) bool { return p.Page == root && p.Type == "leaf table" }) {
		t.Errorf("the pages are %+v", r.After)
	}
}

func TestReportOfAWrongSum(t *testing.T) {
	for name, find := range map[string]func(*bench){
		"inspection": func(b *bench) { noError(b.t, b.p.summer.inspect(b.ctx)) },
		"audit": func(b *bench) {
			id, _, err := b.p.BeginAudit(b.ctx)
			noError(b.t, err)
			_, err = b.p.Audit(b.ctx, id)
			noError(b.t, err)
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := newReporting(t)
			root := uint32(0)
			noError(t, b.p.ask(b.ctx, func(c *capture) error {
				root = c.root("t4")
				c.sums.tables["t4"].sum[1]--
				return nil
			}))
			find(b)
			r := b.reported(reportRowSums)
			if len(r.Sums) != 1 || r.Sums[0].Table != "t4" || r.Sums[0].Root != root || r.Sums[0].Have == r.Sums[0].Want {
				t.Errorf("the hashes are %+v", r.Sums)
			}
		})
	}
}

// A wrong entry of the map makes a transaction fall back, and, where a table is reached
// by no way, undecodable.
func TestReportOfADecoder(t *testing.T) {
	for kind, spoil := range map[string]func(c *capture) uint32{
		reportFallback: func(c *capture) uint32 { // the parent of the first page below the root, which stays as it is
			root := c.root("big")
			for n := range c.decoder.head.PageCount + 1 {
				if k, parent := c.decoder.pages.at(n); k == treePage && parent == root {
					c.decoder.pages.set(n, treePage, n+1)
					return n
				}
			}
			return 0
		},
		reportUndecodable: func(c *capture) uint32 {
			c.decoder.pages.set(c.root("t2"), chainNext, 1)
			return c.root("t2")
		},
	} {
		t.Run(kind, func(t *testing.T) {
			b := newReporting(t)
			b.exec("CREATE TABLE big(v); WITH n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<200) INSERT INTO big SELECT randomblob(1000) FROM n")
			b.sync()
			page := uint32(0)
			noError(t, b.p.ask(b.ctx, func(c *capture) error {
				page = spoil(c)
				return nil
			}))
			b.exec("BEGIN; DELETE FROM big WHERE rowid BETWEEN 20 AND 180; INSERT INTO t2(b) VALUES(1); COMMIT")
			r := b.reported(kind)
			find := func(list []pageOutline) (o pageOutline) {
				if i := slices.IndexFunc(list, func(p pageOutline) bool { return p.Page == page }); i >= 0 {
					return list[i]
				}
				return o
			}
			before, after := find(r.Before), find(r.After)
			if page == 0 || before.Type != "leaf table" || after.Type != "leaf table" {
				t.Errorf("page %d was %+v and is %+v", page, before, after)
			}
			if kind == reportFallback && (r.Table != "big" || before.Tag != after.Tag || len(r.Before) < 3) {
				t.Errorf("table %q; page %d was %+v and is %+v", r.Table, page, before, after)
			}
			if kind == reportUndecodable && (before.Tag == after.Tag || after.Frame <= before.Frame || !slices.Contains(r.Transaction.Written, page)) {
				t.Errorf("page %d was %+v and is %+v after %+v", page, before, after, r.Transaction)
			}
		})
	}
}

// A frame that was checkpointed before it was decoded is what the pin prevents.
func TestReportOfLostFrames(t *testing.T) {
	b := newReporting(t)
	b.exec("INSERT INTO t1 VALUES(9,9,9)")
	b.sync()
	noError(t, b.p.ask(b.ctx, func(c *capture) error {
		noError(t, c.follower.repin())
		c.reportLost(errSpace) // which is no defect
		return c.follower.reader.Start()
	}))
	r := b.reported(reportSQLiteWAL)
	if !strings.Contains(r.What, "was checkpointed") || len(r.Frames) < 3 || !strings.HasPrefix(r.Frames[0], "wal-index: ") {
		t.Errorf("the frames are %q", r.Frames)
	}
	if s := b.p.Status().Reports; s.Kept != 1 || s.Failed != 1 {
		t.Errorf("%+v", s)
	}
}

// newKeeper are reports on a disk in memory.
func newKeeper(t *testing.T, clock func() time.Time) (*reports, *durable.Mem) {
	t.Helper()
	disk := durable.NewMem()
	r := newReports("/data/app", "v7", clock, slog.New(slog.DiscardHandler), func() {})
	r.fs, r.room = disk, func(int64) error { return nil }
	return r, disk
}

func TestReportsAreBounded(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	r, disk := newKeeper(t, func() time.Time { return now })
	noError(t, disk.MkdirAll(r.dir))
	disk.SetImage(filepath.Join(r.dir, "20250101T000000.000Z-fallback.json.tmp"), []byte("half"))
	disk.SetImage(filepath.Join(r.dir, "notes of the user"), []byte("mine"))
	for i := range 3 * reportsKept {
		now = now.Add(time.Hour)
		if !r.failed(reportFallback) || r.failed(reportFallback) {
			t.Fatal("not one report of a kind and time")
		}
		r.offer(&bugReport{Kind: reportFallback, What: fmt.Sprint(i)})
		r.keep(<-r.queue)
	}
	names, err := r.names()
	noError(t, err)
	all, err := disk.ReadDir(r.dir)
	noError(t, err)
	s := r.state()
	if len(names) != reportsKept || len(all) != reportsKept+1 || s.Kept != reportsKept || s.Failed != 6*reportsKept {
		t.Errorf("%d reports, %d files, %+v", len(names), len(all), s)
	}
	if text := disk.Image(s.Newest); !strings.Contains(string(text), fmt.Sprintf("%q", fmt.Sprint(3*reportsKept-1))) {
		t.Errorf("the newest is %s", text)
	}
	r.offer(&bugReport{Kind: reportFallback, What: strings.Repeat("x", reportMost)})
	r.keep(<-r.queue)
	if again := r.state(); again != s {
		t.Errorf("a report that is too long: %+v", again)
	}
}

// A disk in trouble costs the report and nothing else, at whatever call.
func TestReportsOnABadDisk(t *testing.T) {
	calls := 0
	attempt := func(fail int, happened bool) (r *reports, disk *durable.Mem) {
		now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
		r, disk = newKeeper(t, func() time.Time { return now })
		disk.Inject(func(durable.Call) durable.Fault {
			if calls++; calls == fail {
				return durable.Fault{Err: unix.ENOSPC, Happened: happened}
			}
			return durable.Fault{}
		})
		calls = 0
		r.keep(&bugReport{Kind: reportFallback, What: "first", Time: now})
		disk.Inject(nil)
		r.keep(&bugReport{Kind: reportRowSums, What: "second", Time: now.Add(time.Second)})
		return r, disk
	}
	attempt(0, false)
	for fail := range calls {
		for _, happened := range []bool{false, true} {
			r, disk := attempt(fail+1, happened)
			names, err := r.names()
			noError(t, err)
			if !strings.HasSuffix(r.state().Newest, reportRowSums+".json") || slices.ContainsFunc(names, partly) || disk.OpenFiles() != 0 {
				t.Errorf("call %d failed: %q, %+v, %d files open", fail+1, names, r.state(), disk.OpenFiles())
			}
		}
	}
	r, disk := newKeeper(t, time.Now)
	r.room = func(int64) error { return unix.ENOSPC }
	r.keep(&bugReport{Kind: reportFallback, Time: time.Now()})
	if _, err := disk.ReadDir(r.dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the disk is full, and something was made: %v", err)
	}
}

// Nobody waits for a disk that does not answer, and what waits at the end is written.
func TestReportsDelayNobody(t *testing.T) {
	r, _ := newKeeper(t, time.Now)
	for i := range 3 * reportQueue {
		r.offer(&bugReport{Kind: reportFallback, What: fmt.Sprint(i)})
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := r.Run(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("Run: %v", err)
	}
	if s := r.state(); s.Kept == 0 || len(r.queue) != 0 {
		t.Errorf("%+v, %d wait", s, len(r.queue))
	}
}
