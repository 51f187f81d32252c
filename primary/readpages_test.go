package primary

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/sqlite-replicator/replicator/internal/sqlitefile"
)

// TestReadPagesAcrossTheEnd: while the SQLite WAL holds the newest pages, the
// database file ends before the database does, perhaps inside a run.
func TestReadPagesAcrossTheEnd(t *testing.T) {
	const size, inFile, pages = 512, 3, 6
	page := func(n int) []byte { return bytes.Repeat([]byte{byte(n)}, size) }
	v := &view{pageSize: size, pages: pages}
	var file, log, want []byte
	for n := 1; n <= pages; n++ {
		want = append(want, page(n)...)
		if n <= inFile {
			file = append(file, page(n)...)
			continue
		}
		v.frames.put(uint32(n), uint32(n-inFile))
		log = append(log, make([]byte, sqlitefile.FrameOffset(uint32(n-inFile), size)+sqlitefile.FrameHeaderSize-int64(len(log)))...)
		log = append(log, page(n)...)
	}
	v.db, v.log = written(t, file), written(t, log)
	for first := 1; first <= pages; first++ {
		got := make([]byte, (pages+1-first)*size)
		n, err := v.readPages(uint32(first), got)
		if err != nil || n != pages+1-first {
			t.Fatalf("from page %d: %d pages, %v", first, n, err)
		}
		if !bytes.Equal(got, want[(first-1)*size:]) {
			t.Errorf("from page %d: other bytes than were written", first)
		}
	}
	v.frames.shrink(pages - 1)
	if _, err := v.readPages(1, make([]byte, pages*size)); err == nil {
		t.Error("a page that is nowhere was read")
	}
}

// written is an open file with content b.
func written(t *testing.T, b []byte) *os.File {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() }) // reading only
	return f
}
