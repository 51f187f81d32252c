package replicator_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// newPairWith is a pair whose primary has more in its configuration: sections of it,
// and of nats what comes first.
func newPairWith(t *testing.T, more string) *pair {
	t.Helper()
	p := &pair{dir: folder(t)}
	listen := address(t)
	p.nats = "  url: nats://" + listen + "\n"
	p.source = filepath.Join(p.dir, "app.db")
	p.primary = newNode(t, "primary", "primary-1", p.dir, "  listen: "+listen+"\n"+more, database{"app", p.source})
	p.replica = p.another(t, "replica-1")
	return p
}

// begin starts both on a database with a table, and waits for the first snapshot: to
// make it later would be in the way of what is tested.
func (p *pair) begin() {
	t := p.primary.t
	t.Helper()
	shell(t, p.source, setUp)
	p.start()
	insertRows(t, p.source, "first", 100)
	converge(t, "app", "first", p.primary, p.replica)
	p.primary.must("snapshot", "create", "--db", "app")
}

// insertBytes inserts n rows of random bytes in one transaction.
func insertBytes(t *testing.T, path string, n, size int) {
	t.Helper()
	shell(t, path, fmt.Sprintf("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<%d) INSERT INTO t(v) SELECT randomblob(%d) FROM n", n, size))
}

// reseeds is how often a replica was seeded again.
func (n *node) reseeds() float64 {
	n.t.Helper()
	return n.database("app").Details["reseeds_total"]
}

// TestTransactionLargerThanTheStream: a transaction that the stream cannot hold goes
// around it, by a snapshot.
func TestTransactionLargerThanTheStream(t *testing.T) {
	t.Parallel()
	p := newPairWith(t, "stream:\n  max_bytes: 8MiB\n")
	p.begin()
	insertBytes(t, p.source, 2000, 8000)
	insertRows(t, p.source, "after", 100)
	converge(t, "app", "a transaction of 16 MB", p.primary, p.replica)
	shell(t, p.source, "UPDATE t SET v=randomblob(8000) WHERE length(v)=8000")
	p.primary.crash() // in the middle of it
	p.primary.start()
	insertRows(t, p.source, "after", 100)
	late := p.another(t, "replica-2")
	late.start()
	converge(t, "app", "another one, and a crash", p.primary, p.replica, late)
	if p.replica.reseeds() == 0 {
		t.Error("the transaction went through the stream: nothing was tested")
	}
	// What fits goes through it again.
	before := p.replica.reseeds()
	insertRows(t, p.source, "small", 100)
	converge(t, "app", "small ones", p.primary, p.replica, late)
	if after := p.replica.reseeds(); after != before {
		t.Errorf("the replica was seeded again for a small transaction")
	}
}

// TestSQLiteWALAtItsLimit: a primary that cannot follow lets go of the SQLite WAL, and
// finds out later what it missed.
func TestSQLiteWALAtItsLimit(t *testing.T) {
	t.Parallel()
	p := newPairWith(t, "capture:\n  max_sqlite_wal: 16MiB\n  turnover_size: 1MiB\n")
	p.begin()
	p.primary.signal(syscall.SIGSTOP)
	// For so long that the primary looks at the size before it has captured everything:
	// it does once a second.
	for began := time.Now(); time.Since(began) < 2*time.Second; {
		insertRows(t, p.source, "small", 1)
	}
	for range 5 {
		insertBytes(t, p.source, 1000, 8000)
	}
	p.primary.signal(syscall.SIGCONT)
	p.primary.must("sync", "--db", "app", "--timeout", patience.String())
	if log := p.primary.p.stderr.String(); !strings.Contains(log, "the SQLite WAL has passed max_sqlite_wal") {
		t.Error("the log does not tell that the SQLite WAL has passed its bound")
	}
	insertBytes(t, p.source, 10, 8000)
	converge(t, "app", "the pin was given up", p.primary, p.replica)
	// It starts over: further transactions do not make it grow.
	insertBytes(t, p.source, 1000, 8000)
	p.primary.must("sync", "--db", "app")
	for range 5 {
		insertRows(t, p.source, "small", 10)
		p.primary.must("sync", "--db", "app")
	}
	info, err := os.Stat(p.source + "-wal")
	if err != nil || info.Size() > 64<<20 {
		t.Errorf("the SQLite WAL: %v, %v", info, err)
	}
	converge(t, "app", "later", p.primary, p.replica)
}

// TestChangeLogAtItsLimit: what NATS does not take for a long time does not fill the
// disk of the application.
func TestChangeLogAtItsLimit(t *testing.T) {
	t.Parallel()
	dir := folder(t)
	listen, store, source := address(t), filepath.Join(dir, "nats"), filepath.Join(dir, "app.db")
	section := "  url: nats://" + listen + "\n"
	const limit = 8 << 20
	p := &pair{dir: dir, nats: section, source: source}
	p.primary = newNode(t, "primary", "primary-1", dir, section+"change_log:\n  max_size: 8MiB\n  segment_size: 1MiB\n", database{"app", source})
	p.replica = p.another(t, "replica-1")
	nats := startNATS(t, listen, store)
	p.begin()
	if err := nats.kill(); err == nil {
		t.Fatal("NATS had ended by itself")
	}
	for range 6 {
		insertBytes(t, source, 500, 8000)
	}
	p.primary.reaches("app", "offline", "")
	insertRows(t, source, "offline", 10)
	ctx, cancel := oneWait()
	defer cancel()
	for size := int64(limit + 1); size > limit; {
		if ctx.Err() != nil {
			t.Fatalf("the change log has %d bytes", size)
		}
		size = 0
		for _, segment := range segmentsOf(t, filepath.Join(dir, "primary-1", "app", "log")) {
			if info, err := os.Stat(segment); err == nil { // else trimmed a moment ago
				size += info.Size()
			}
		}
	}
	startNATS(t, listen, store)
	insertRows(t, source, "back", 10)
	converge(t, "app", "NATS is back", p.primary, p.replica)
	late := p.another(t, "replica-2")
	late.start()
	converge(t, "app", "late", p.primary, late)
}

// TestPrimaryDaemonDiskFull: change log, stream and snapshots have no room left, and
// then have some.
func TestPrimaryDaemonDiskFull(t *testing.T) {
	t.Parallel()
	p := newPairWith(t, "stream:\n  max_bytes: 32MiB\n")
	d := newDisk(t, filepath.Join(p.dir, "primary-1"), 96<<20)
	p.begin()
	d.fill()
	for range 10 {
		insertBytes(t, p.source, 100, 8000) // fails if we are in the way
	}
	p.primary.reaches("app", "disk_full", "no space left")
	insertRows(t, p.source, "disk full", 100)
	d.free()
	insertRows(t, p.source, "room", 100)
	converge(t, "app", "there is room", p.primary, p.replica)
	late := p.another(t, "replica-2")
	late.start()
	converge(t, "app", "late", p.primary, late)
}

// TestPausedReplica: what a replica needs that stands still for a while is not trimmed
// under it.
func TestPausedReplica(t *testing.T) {
	t.Parallel()
	p := newPairWith(t, "snapshot:\n  keep: 1\n")
	p.begin()
	p.replica.signal(syscall.SIGSTOP)
	late := p.another(t, "replica-2")
	for i := range 4 {
		insertBytes(t, p.source, 100, 8000)
		p.primary.must("sync", "--db", "app")
		p.primary.must("snapshot", "create", "--db", "app")
		if i == 1 {
			late.start()
			late.ready()
			late.signal(syscall.SIGSTOP)
		}
	}
	p.replica.signal(syscall.SIGCONT)
	late.signal(syscall.SIGCONT)
	converge(t, "app", "both go on", p.primary, p.replica, late)
	for _, r := range []*node{p.replica, late} {
		if n := r.reseeds(); n != 0 {
			t.Errorf("%s was seeded again %v times: the stream was trimmed under it", r.name, n)
		}
	}
}
