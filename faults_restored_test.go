package replicator_test

import (
	"os"
	"path/filepath"
	"testing"
)

// restored starts a primary whose whole data directory, NATS in it, was put back from a
// backup after some terms, while its replica kept what it had.
func restored(t *testing.T, terms int) *node {
	dir := folder(t)
	listen := address(t)
	source := filepath.Join(dir, "app.db")
	shell(t, source, setUp)
	n := newNode(t, "primary", "primary-1", dir, "  listen: "+listen+"\n", database{"app", source})
	r := newNode(t, "replica", "replica-1", dir, "  url: nats://"+listen+"\n", database{"app", filepath.Join(dir, "replica.db")})
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
	return n
}

// TestDataDirRestoredTooOld: replicas have seen more terms than the next one can know
// of. It must not go on beside them.
func TestDataDirRestoredTooOld(t *testing.T) {
	t.Parallel()
	restored(t, 2).reaches("app", "fenced", "replica-1")
}
