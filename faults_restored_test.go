package replicator_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

// A restored is a primary whose whole data directory, NATS in it, was put back from a
// backup after some terms, while its replica kept what it had.
func restored(t *testing.T, terms int) (source string, n, r *node) {
	dir := folder(t)
	listen := address(t)
	source = filepath.Join(dir, "app.db")
	shell(t, source, setUp)
	n = newNode(t, "primary", "primary-1", dir, "  listen: "+listen+"\n", database{"app", source})
	r = newNode(t, "replica", "replica-1", dir, "  url: nats://"+listen+"\n", database{"app", filepath.Join(dir, "replica.db")})
	n.start()
	r.start()
	n.ready()
	insertRows(t, source, "before", 10)
	converge(t, "app", "before", n, r)
	n.stop()
	data := filepath.Join(dir, "primary-1")
	if err := os.CopyFS(data+".backup", os.DirFS(data)); err != nil {
		t.Fatal(err)
	}
	for range terms {
		n.start()
		n.ready()
		insertRows(t, source, "lost", 10)
		converge(t, "app", "lost", n, r)
		n.stop()
	}
	if err := os.RemoveAll(data); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(data+".backup", data); err != nil {
		t.Fatal(err)
	}
	n.start()
	return source, n, r
}

// TestDataDirRestored: with one term lost the next has the same epoch, and a history
// of its own. The replica notices, although no record comes that would not fit, and
// follows: it loses nothing, since the source has it all.
func TestDataDirRestored(t *testing.T) {
	t.Parallel()
	source, n, r := restored(t, 1)
	ctx, cancel := oneWait()
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for r.reseeds() == 0 {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("the replica stays in the lost history: %+v", r.database("app"))
		}
	}
	insertRows(t, source, "after", 10)
	converge(t, "app", "after", n, r)
}

// TestDataDirRestoredTooOld: replicas have seen more terms than the next one can know
// of. It must not go on beside them.
func TestDataDirRestoredTooOld(t *testing.T) {
	t.Parallel()
	_, n, _ := restored(t, 2)
	n.reaches("app", "fenced", "replica-1")
}
