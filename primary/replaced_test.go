package primary

import (
	"fmt"
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
	b.replace()
	after := b.sync()
	if after.LSN <= before.LSN || after.Epoch <= before.Epoch {
		t.Errorf("the new file is at %s, the old one was at %s: want a new term", after, before)
	}
}

// replace puts another database in the place of the source, with a table u.
func (b *bench) replace() {
	b.t.Helper()
	noError(b.t, b.app.Close())
	for _, suffix := range []string{"", "-wal", "-shm"} {
		noError(b.t, os.Rename(b.path+suffix, filepath.Join(b.t.TempDir(), "moved"+suffix)))
	}
	b.connect()
	b.exec("CREATE TABLE u(a); INSERT INTO u VALUES('new')")
}

// TestAuditOfAReplacedFile: a connection that is opened for an audit leads to what is at the
// path now. Its rows are not compared with what was captured of another file.
func TestAuditOfAReplacedFile(t *testing.T) {
	b := newBench(t, "CREATE TABLE t(a); INSERT INTO t VALUES('old')")
	b.start()
	before := b.sync()
	b.known()
	b.replace()
	_, s := b.audited()
	want, _, err := b.app.Content(b.ctx, nil)
	noError(t, err)
	if s.Audit.At.Epoch <= before.Epoch || fmt.Sprint(s.Audit.Tables) != fmt.Sprint(want) {
		t.Errorf("at %s, before the file was replaced %s: %v, want %v", s.Audit.At, before, s.Audit.Tables, want)
	}
	if n := b.p.Status().Sums.Mismatches; n > 0 {
		t.Errorf("%d mismatches are said to be defects of the capture", n)
	}
}
