package primary

import (
	"os"
	"path/filepath"
	"testing"
)

// TestSyncOfAReplacedFile: an answer of Sync covers what is at the path now, not
// what the descriptors of a moment ago lead to.
func TestSyncOfAReplacedFile(t *testing.T) {
	b := newBench(t, "CREATE TABLE t(a); INSERT INTO t VALUES('old')")
	b.start()
	before := b.sync()
	if err := b.app.Close(); err != nil {
		t.Fatal(err)
	}
	for _, suffix := range []string{"", "-wal", "-shm"} {
		if err := os.Rename(b.path+suffix, filepath.Join(t.TempDir(), "moved"+suffix)); err != nil {
			t.Fatal(err)
		}
	}
	b.connect()
	b.exec("CREATE TABLE u(a); INSERT INTO u VALUES('new')")
	after := b.sync()
	if after.LSN <= before.LSN || after.Epoch <= before.Epoch {
		t.Errorf("the new file is at %s, the old one was at %s: want a new term", after, before)
	}
}
