package primary

import (
	"errors"
	"os"
	"testing"
	"time"

	"github.com/sqlite-replicator/replicator/cdc"
	"github.com/sqlite-replicator/replicator/internal/sqlite"
	"github.com/sqlite-replicator/replicator/internal/sqlitefile"
)

// TestDatabaseAcrossTheLockBytePage captures a database that reaches past 1 GiB.
// SQLite never uses the page that holds the byte at that offset, and a copy, a
// map or a tree that counts on it goes wrong there.
func TestDatabaseAcrossTheLockBytePage(t *testing.T) {
	if testing.Short() {
		t.Skip("writes 1.1 GiB")
	}
	const pageSize = 65536
	path := makeSource(t, "PRAGMA page_size=65536; PRAGMA journal_mode=WAL; CREATE TABLE t(id INTEGER PRIMARY KEY, v)")
	grow(t, path, sqlitefile.LockBytePage(pageSize)-40)
	rows := map[int64]int{}
	log := newMemoryLog(func(c *cdc.Change) error {
		if c.Op == cdc.OpInsert {
			rows[c.Rowid] = len(c.New)
		}
		return nil
	})
	c := startCapture(t, path, log, testCaptureOptions())
	app, err := sqlite.Open(path, sqlite.Options{Plain: true, BusyTimeout: 10 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	defer app.Close()
	lockByte := sqlitefile.LockBytePage(pageSize)
	for n := 0; c.follower.view.pages < lockByte+40; n++ {
		if err := app.Exec("INSERT INTO t(v) VALUES(randomblob(200000))"); err != nil {
			t.Fatal(err)
		}
		if _, err := c.poll(); err != nil {
			t.Fatal(err)
		}
		if n > 600 {
			t.Fatalf("%d pages after %d rows", c.follower.view.pages, n)
		}
	}
	if err := c.decoder.check(c.follower.view, c.follower.view.pages); err != nil {
		t.Error(err)
	}
	if kind, _ := c.decoder.pages.at(lockByte); kind != unmapped {
		t.Errorf("the lock-byte page is mapped as %v", kind)
	}
	// Nothing was checkpointed: the file ends before the page, and no frame has it.
	frozen, err := c.freeze()
	noError(t, err)
	defer func() { noError(t, frozen.Close()) }()
	if n, err := frozen.ReadPages(t.Context(), lockByte-1, make([]byte, 3*pageSize)); err != nil || n != 3 {
		t.Errorf("%d pages around the lock-byte page are read: %v", n, err)
	}
	count, err := app.QueryInt("SELECT count(*) FROM t WHERE length(v)=200000")
	if err != nil {
		t.Fatal(err)
	}
	if len(rows) < 20 || int(count) != len(rows) {
		t.Errorf("captured %d rows, the source has %d", len(rows), count)
	}
	for id, n := range rows {
		if n < 200000 {
			t.Errorf("row %d was captured with %d bytes", id, n)
		}
	}
}

// grow makes the database as long as pages, with one table that nobody looks at.
func grow(t *testing.T, path string, pages uint32) {
	t.Helper()
	app, err := sqlite.Open(path, sqlite.Options{Plain: true})
	if err != nil {
		t.Fatal(err)
	}
	const each = 60_000_000
	err = app.Exec("PRAGMA journal_mode=DELETE; CREATE TABLE big(v)")
	for left := int64(pages) * 65536; err == nil && left > each; left -= each + each/65536*4 {
		err = app.Exec("INSERT INTO big VALUES(zeroblob(?))", each)
	}
	if err = errors.Join(err, app.Exec("PRAGMA journal_mode=WAL"), app.Close()); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if missing := int64(pages)*65536 - info.Size(); missing > 2*each {
		t.Fatalf("%d bytes short", missing)
	}
}
