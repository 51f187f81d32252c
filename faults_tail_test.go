package replicator_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/sqlite-replicator/replicator/cdc"
	"github.com/sqlite-replicator/replicator/primary"
	"github.com/sqlite-replicator/replicator/wal"
)

// TestChangeLogLosesItsTail: the primary takes back from the stream what its
// change log has lost, and replicas go on as if nothing had happened.
func TestChangeLogLosesItsTail(t *testing.T) {
	for _, c := range []struct {
		name string
		lose func(t *testing.T, log string)
	}{
		{"records", func(t *testing.T, log string) {
			_, last := ends(t, log)
			cut(t, log, last-3)
		}},
		{"last segment", func(t *testing.T, log string) {
			s := segmentsOf(t, log)
			if err := os.Remove(s[len(s)-1]); err != nil || len(s) < 2 {
				t.Fatalf("%d segments, %v", len(s), err)
			}
		}},
		{"all segments", func(t *testing.T, log string) { cut(t, log, 0) }},
	} {
		for _, wrote := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, application went on %t", c.name, wrote), func(t *testing.T) {
				t.Parallel()
				dir := folder(t)
				listen := address(t)
				source := filepath.Join(dir, "app.db")
				shell(t, source, setUp)
				n := newNode(t, "primary", "primary-1", dir, "  listen: "+listen+"\nchange_log:\n  segment_size: 1MiB\n", database{"app", source})
				r := newNode(t, "replica", "replica-1", dir, "  url: nats://"+listen+"\n", database{"app", filepath.Join(dir, "replica.db")})
				n.start()
				r.start()
				n.ready()
				r.ready()
				log := filepath.Join(dir, "primary-1", "app", "log")
				for len(segmentsOf(t, log)) < 3 {
					shell(t, source, "INSERT INTO t(v) VALUES(randomblob(300000))")
					n.must("sync", "--db", "app")
				}
				for range 5 {
					insertRows(t, source, "before", 10)
					converge(t, "app", "before", n, r)
				}
				n.stop()
				c.lose(t, log)
				if wrote {
					insertRows(t, source, "meanwhile", 10)
				}
				n.start()
				n.ready()
				insertRows(t, source, "after", 10)
				converge(t, "app", "after", n, r)
				if d := r.database("app"); d.Details["reseeds_total"] != 0 || d.Details["divergences_total"] != 0 {
					t.Errorf("the replica was seeded again: %+v", d)
				}
				late := newNode(t, "replica", "replica-2", dir, "  url: nats://"+listen+"\n", database{"app", filepath.Join(dir, "late.db")})
				late.start()
				converge(t, "app", "late", n, late)
			})
		}
	}
}

// TestTailLostAndTakenOver: another primary has gone on from the lost tail. What
// it published is foreign, and all before it, too.
func TestTailLostAndTakenOver(t *testing.T) {
	t.Parallel()
	p := newPlant(t, 141)
	f := p.begin()
	p.stopPrimary()
	source, data := p.twin()
	own := filepath.Join(p.data, "log")
	conn := p.connect("heir", p.url)
	heir := p.newPipeline("heir", source, data, conn)
	runs := run(t, "heir", heir.Run)
	p.beat(runs.ctx, heir, conn)
	newApplicationOn(p, source).do(20)
	at, err := heir.Sync(p.ctx)
	p.must(err)
	p.reach(f, at)
	_, last := ends(t, own)
	cut(t, own, last-3)
	p.startPrimary()
	if err := p.fate(p.running); !isFence(err) {
		p.fail("it ended with %v", err)
	}
	if s := p.pipeline.Status(); s.State != primary.StateFenced {
		p.fail("it says %+v", s)
	}
	at, err = heir.Sync(p.ctx)
	p.must(err)
	p.reach(f, at)
	compare(t, source, f.path, "the heir's")
}

// segmentsOf are the files of a change log.
func segmentsOf(t *testing.T, log string) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(log, "*.log"))
	if err != nil || len(files) == 0 {
		t.Fatalf("segments in %s: %q, %v", log, files, err)
	}
	return files
}

// ends are the first and the last record of a change log that nobody has open.
func ends(t *testing.T, log string) (first, last cdc.LSN) {
	t.Helper()
	l, err := wal.Open(log, wal.Options{})
	if err != nil {
		t.Fatal(err)
	}
	first, last = l.First(), l.Last()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	return first, last
}

// cut removes the records above an LSN.
func cut(t *testing.T, log string, above cdc.LSN) {
	t.Helper()
	if err := wal.Cut(log, above, wal.Options{}); err != nil {
		t.Fatal(err)
	}
}
