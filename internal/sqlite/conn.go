package sqlite

// #include <stdlib.h>
// #include "conn.h"
import "C"

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"time"
	"unsafe"

	_ "github.com/mattn/go-sqlite3" // compiles SQLite itself into the program
)

// Options say how Open opens a file. The zero value opens an existing file for
// reading and writing, with none of SQLite's housekeeping (package comment).
type Options struct {
	ReadOnly  bool // no write of this connection reaches the file
	Create    bool // create the file when it is missing; else that is an error
	Immutable bool // the file cannot change and has no SQLite WAL: no locks, no -shm

	// Plain makes an ordinary connection such as an application's: automatic
	// checkpoints, a checkpoint at the last close, triggers and CHECK constraints.
	Plain             bool
	Triggers          bool // fire triggers
	CheckpointOnClose bool // let the last connection to close checkpoint and delete the SQLite WAL

	BusyTimeout time.Duration // how long SQLite itself waits for a lock; 0 = not at all
	CacheBytes  int64         // page cache limit; 0 = SQLite's default, 2 MB
	Lean        bool          // take little memory, for locks, marks and checkpoints: 30 KiB instead of 160
	Synchronous string        // NORMAL (""), FULL or EXTRA; never less, see the package comment

	// RowSums lets Apply read every row before and after it changes it, and keep by
	// how much the row-set hash of each target changes; see Target.TakeSum.
	RowSums bool
}

// A Conn is one SQLite connection. Only Interrupt may be called while another
// call runs; everything else needs the caller's own order.
type Conn struct {
	db      *C.sqlite3
	mu      sync.Mutex // guards db against Interrupt during Close
	stmts   stmtCache
	targets map[*Target]struct{} // live targets, closed with the connection
	batch   *batch               // made by the first Apply
	rowSums bool                 // Options.RowSums
	catalog catalog

	constants *constants // made by the first Missing

	schemaEdited bool       // the parsed schema may be one that a rollback takes back
	onlyCommit   bool       // see OnlyCommit
	fuse         *C.int64_t // of InterruptAt; nil: never asked for
}

// memory is the name of a private in-memory database.
const memory = ":memory:"

// Open opens the database file at path. Any byte but NUL may occur in path: it is
// never read as a URI. Open reads the file's header, so a file that is not a
// database, or one that another connection holds exclusively, fails here.
func Open(path string, o Options) (*Conn, error) {
	if path == "" || strings.ContainsRune(path, 0) {
		return nil, fmt.Errorf("sqlite: open %q: not a usable path", path)
	}
	c, err := open(fileURI(path, o), o)
	if err != nil {
		return nil, fmt.Errorf("sqlite: open %s: %w", path, err)
	}
	return c, nil
}

func open(name string, o Options) (*Conn, error) {
	flags := C.int(C.SQLITE_OPEN_READWRITE)
	switch {
	case o.ReadOnly:
		flags = C.SQLITE_OPEN_READONLY
	case o.Create:
		flags |= C.SQLITE_OPEN_CREATE
	}
	cname := C.CString(name)
	defer C.free(unsafe.Pointer(cname))
	c := &Conn{targets: make(map[*Target]struct{}), rowSums: o.RowSums}
	rc := C.sqlite3_open_v2(cname, &c.db, flags|C.SQLITE_OPEN_URI|C.SQLITE_OPEN_NOMUTEX|C.SQLITE_OPEN_EXRESCODE, nil)
	if rc == C.SQLITE_OK {
		if err := c.configure(o); err != nil {
			return nil, errors.Join(err, c.Close())
		}
		return c, nil
	}
	err := c.fail("open", rc)
	return nil, errors.Join(err, c.Close())
}

// configure sets what must hold before the connection touches the file first, and
// only then runs its first statement.
func (c *Conn) configure(o Options) error {
	ours := !o.Plain
	settings := []struct {
		op int
		on bool
	}{
		{C.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, ours && !o.CheckpointOnClose},
		{C.SQLITE_DBCONFIG_ENABLE_TRIGGER, o.Plain || o.Triggers},
		// A schema written by an older SQLite may quote strings with ".
		{C.SQLITE_DBCONFIG_DQS_DDL, true},
		{C.SQLITE_DBCONFIG_DQS_DML, true},
		{C.SQLITE_DBCONFIG_DEFENSIVE, false},
	}
	for _, s := range settings {
		if err := c.dbConfig(s.op, s.on); err != nil {
			return err
		}
	}
	if o.Lean {
		if err := c.fail("open", C.rq_no_lookaside(c.db)); err != nil {
			return err
		}
		o.CacheBytes = leanCache
	}
	if ours {
		if err := c.fail("open", C.sqlite3_wal_autocheckpoint(c.db, 0)); err != nil {
			return err
		}
	}
	ms := o.BusyTimeout.Milliseconds()
	if o.BusyTimeout > 0 && ms == 0 {
		ms = 1
	}
	if err := c.fail("open", C.sqlite3_busy_timeout(c.db, C.int(ms))); err != nil {
		return err
	}
	if ours {
		if err := c.Exec("PRAGMA foreign_keys=OFF; PRAGMA ignore_check_constraints=ON"); err != nil {
			return err
		}
	}
	if o.CacheBytes > 0 {
		if err := c.Exec(fmt.Sprintf("PRAGMA cache_size=-%d", (o.CacheBytes+1023)/1024)); err != nil {
			return err
		}
	}
	return c.setSynchronous(o.Synchronous)
}

// leanCache is less than three pages of any size: then SQLite allocates the pages of
// its cache one by one, and not twenty at once.
const leanCache = 1

// setSynchronous sets the level and asserts that it took.
func (c *Conn) setSynchronous(level string) error {
	want, ok := map[string]int64{"": 1, "NORMAL": 1, "FULL": 2, "EXTRA": 3}[strings.ToUpper(level)]
	if !ok {
		return fmt.Errorf("synchronous is %q, want NORMAL, FULL or EXTRA: with less, a power failure corrupts the database", level)
	}
	if err := c.Exec(fmt.Sprintf("PRAGMA synchronous=%d", want)); err != nil {
		return err
	}
	got, err := c.QueryInt("PRAGMA synchronous")
	if err != nil {
		return err
	}
	if got < want {
		return fmt.Errorf("synchronous stayed at %d, want %d", got, want)
	}
	return nil
}

// fileURI quotes path, so that SQLite takes ?, # and % as parts of the name.
func fileURI(path string, o Options) string {
	const hex = "0123456789ABCDEF"
	var b strings.Builder
	b.WriteString("file:")
	for _, ch := range []byte(filepath.Clean(path)) { // Clean: a leading // would be an authority
		switch {
		case 'a' <= ch && ch <= 'z', 'A' <= ch && ch <= 'Z', '0' <= ch && ch <= '9', strings.IndexByte("/-_.~", ch) >= 0:
			b.WriteByte(ch)
		default:
			b.WriteByte('%')
			b.WriteByte(hex[ch>>4])
			b.WriteByte(hex[ch&15])
		}
	}
	if o.Immutable {
		b.WriteString("?immutable=1")
	}
	return b.String()
}

// Close ends an open transaction by rollback and closes the connection. It may be
// called twice. Targets of the connection are closed with it.
func (c *Conn) Close() error {
	if c.db == nil {
		return nil
	}
	c.ResetTargets()
	c.stmts.clear()
	if c.batch != nil {
		c.batch.free()
		c.batch = nil
	}
	if c.constants != nil {
		_ = c.constants.c.Close() // in memory: nothing to lose
		c.constants = nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	rc := C.sqlite3_close_v2(c.db)
	c.db = nil
	C.free(unsafe.Pointer(c.fuse))
	c.fuse = nil
	return c.fail("close", rc)
}

// Interrupt makes the call that runs on c return early with an error for which
// IsInterrupted is true. It may be called from any goroutine at any time.
func (c *Conn) Interrupt() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.db != nil {
		C.sqlite3_interrupt(c.db)
	}
}

// InterruptAt lets the nth statement from now fail as Interrupt does, for tests of what
// that leaves; those that SQLite itself runs to read a schema count. 0: none fails.
func (c *Conn) InterruptAt(n int) {
	if c.db == nil {
		return
	}
	if c.fuse == nil {
		c.fuse = (*C.int64_t)(C.malloc(C.sizeof_int64_t))
	}
	*c.fuse = C.int64_t(n)
	C.rq_interrupt_at(c.db, c.fuse)
}

// InterruptDue reports whether the statement of InterruptAt is still to come.
func (c *Conn) InterruptDue() bool { return c.fuse != nil && *c.fuse > 0 }

// interruptOn interrupts c when ctx ends. The function it returns ends that, and
// returns when no interrupt can come any more: a late one would hit a statement of
// someone else.
func (c *Conn) interruptOn(ctx context.Context) (stop func()) {
	done := make(chan struct{})
	cancel := context.AfterFunc(ctx, func() {
		defer close(done)
		c.Interrupt()
	})
	return func() {
		if !cancel() {
			<-done
		}
	}
}

// SetTriggers switches triggers of the main and attached databases on or off.
// SQLite fires TEMP triggers either way.
func (c *Conn) SetTriggers(on bool) error { return c.dbConfig(C.SQLITE_DBCONFIG_ENABLE_TRIGGER, on) }

func (c *Conn) dbConfig(op int, on bool) error {
	if c.db == nil {
		return ErrClosed
	}
	v := C.int(0)
	if on {
		v = 1
	}
	if rc := C.rq_db_config(c.db, C.int(op), v); rc != C.SQLITE_OK {
		return &Error{Op: "configure", Code: int(rc), Extended: int(rc), Message: fmt.Sprintf("option %d cannot be set", op)}
	}
	return nil
}

// Begin opens a transaction that takes no lock before its first statement does.
func (c *Conn) Begin() error { return c.run("BEGIN") }

// BeginImmediate opens a transaction that holds SQLite's write lock.
func (c *Conn) BeginImmediate() error { return c.run("BEGIN IMMEDIATE") }

// OnlyCommit makes Commit the only way into the main database from now on: a write
// outside a transaction fails with ErrNoTransaction and leaves nothing. SQLite may end a
// transaction by itself, and whoever has not noticed would write the rest of it for good.
func (c *Conn) OnlyCommit() {
	if c.db != nil {
		c.onlyCommit = true
		C.rq_only_commit(c.db, 1)
	}
}

// Commit commits the open transaction. After an error the transaction may still be
// open: see InTransaction.
func (c *Conn) Commit() error {
	if c.onlyCommit && c.db != nil {
		C.rq_only_commit(c.db, 0)
		defer C.rq_only_commit(c.db, 1)
	}
	err := c.run("COMMIT")
	if err == nil {
		c.schemaEdited = false
	}
	return err
}

// Rollback ends the open transaction. With none open it does nothing, so that it
// can be deferred.
func (c *Conn) Rollback() error {
	if c.InTransaction() {
		if err := c.run("ROLLBACK"); err != nil {
			return err
		}
	}
	if !c.schemaEdited || c.db == nil {
		return nil
	}
	c.schemaEdited = false
	return c.ResetSchema()
}

// InTransaction reports whether a transaction is open. SQLite ends one by itself
// on some errors (disk full, I/O, out of memory, an interrupted write).
func (c *Conn) InTransaction() bool { return c.db != nil && C.sqlite3_get_autocommit(c.db) == 0 }

// OpenRead opens a read transaction and takes its snapshot at once: a pin, which
// keeps SQLite from overwriting what the snapshot shows. Rollback releases it.
func (c *Conn) OpenRead() error {
	if err := c.Begin(); err != nil {
		return err
	}
	// BEGIN alone takes no snapshot; reading one page does.
	if _, err := c.QueryInt("SELECT count(*) FROM (SELECT 1 FROM sqlite_schema LIMIT 1)"); err != nil {
		return errors.Join(err, c.Rollback())
	}
	return nil
}

// DataVersion changes whenever another connection, of any process, has committed, or has
// truncated the SQLite WAL by a checkpoint; c's own commits leave it alone. It tells only
// whether two readings on one connection differ (PRAGMA data_version).
func (c *Conn) DataVersion() (int64, error) { return c.QueryInt("PRAGMA data_version") }

// Commits counts the commits of all connections, of any process, c's own among them; no
// checkpoint changes it. It tells only by how much two readings differ while a connection
// stays open, and is right while nobody else can commit. The database is in WAL mode,
// and c has read it (https://www.sqlite.org/walformat.html, iChange in the wal-index).
func (c *Conn) Commits() (uint32, error) {
	if c.db == nil {
		return 0, ErrClosed
	}
	var n C.uint32_t
	rc := C.rq_commits(c.db, &n)
	return uint32(n), c.fail("count commits", rc)
}

// ResetSchema makes c forget the schema it has parsed and read it again, which is
// needed after rows of sqlite_schema were edited.
func (c *Conn) ResetSchema() error { return c.run("PRAGMA writable_schema=RESET") }
