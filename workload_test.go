package replicator_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sqlite-replicator/replicator/internal/sqlite"
)

// A workload does to one database what applications do, and what nobody should.
// It is a function of its seed: no statement holds random(), the time or
// anything else that differs between two runs, and no statement may fail for
// another reason than the state of the database. So a seed that finds something
// finds it again, and its trace is a script for the sqlite3 shell.
type workload struct {
	path   string
	r      *rand.Rand
	shape  shape
	c      *sqlite.Conn
	reader *sqlite.Conn // a read transaction that is in the way of checkpoints; nil: none
	trace  io.Writer

	schema schema
	names  int // made so far
	inTx   bool

	done    map[string]int // operations, by name
	refused map[string]int // statements that SQLite refused, as it should
	err     error          // the first failure that no workload may cause
}

// A shape is what a database file keeps for life.
type shape struct {
	pageSize   int
	autoVacuum int
	encoding   string
	reserved   int // bytes at the end of each page
}

func (s shape) String() string {
	return fmt.Sprintf("pages of %d bytes (%d reserved), auto_vacuum %d, %s", s.pageSize, s.reserved, s.autoVacuum, s.encoding)
}

func newShape(r *rand.Rand) shape {
	s := shape{
		pageSize:   512 << r.IntN(8),
		autoVacuum: r.IntN(3),
		encoding:   pick(r, "UTF-8", "UTF-8", "UTF-16le", "UTF-16be"),
	}
	if _, err := exec.LookPath("sqlite3"); err == nil && r.IntN(4) == 0 {
		s.reserved = pick(r, 4, 16, 32)
	}
	return s
}

func pick[T any](r *rand.Rand, from ...T) T { return from[r.IntN(len(from))] }

// An operation is one thing that a workload does, about as often as its weight
// says.
type operation struct {
	name   string
	weight int
	do     func(*workload)
}

// choose takes an operation by weight.
func (w *workload) choose(from []operation) operation {
	total := 0
	for _, o := range from {
		total += o.weight
	}
	at := w.r.IntN(total)
	for _, o := range from {
		if at -= o.weight; at < 0 {
			return o
		}
	}
	panic("unreachable")
}

func (w *workload) step(from []operation) {
	o := w.choose(from)
	w.done[o.name]++
	w.note("-- " + o.name)
	o.do(w)
}

// playWorkload is the child's main: PATH SEED [TRACE]. It does as many
// operations as each line of its input says, then prints "ok".
func playWorkload(args []string) error {
	seed, err := strconv.ParseUint(args[1], 10, 64)
	if err != nil {
		return err
	}
	w := &workload{path: args[0], r: seeded(seed, 1), trace: io.Discard, done: map[string]int{}, refused: map[string]int{}}
	if len(args) > 2 {
		f, err := os.Create(args[2])
		if err != nil {
			return err
		}
		defer f.Close()
		w.trace = f
	}
	if err := w.begin(); err != nil {
		return err
	}
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		n, err := strconv.Atoi(in.Text())
		if err != nil {
			return err
		}
		for i := 0; i < n && w.err == nil; i++ {
			w.step(operations)
		}
		if w.err != nil {
			return fmt.Errorf("workload of seed %d: %w", seed, w.err)
		}
		fmt.Printf("ok %v, refused %v\n", w.done, w.refused)
	}
	return errors.Join(w.release(), w.c.Close())
}

func seeded(seed, part uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, part)) }

// begin makes the database, or goes on with the one there is.
func (w *workload) begin() error {
	w.shape = newShape(w.r)
	_, err := os.Stat(w.path)
	if err == nil {
		w.connect()
		w.shape.pageSize = w.number("PRAGMA page_size")
		w.names = 10_000
		w.load()
		return w.err
	}
	if err := createShaped(w.path, w.shape); err != nil {
		return err
	}
	w.connect()
	w.load()
	for range 5 {
		w.createTable()
		w.load()
	}
	w.createFTS()
	w.createDocument()
	w.createRTree()
	w.load()
	return w.err
}

// createShaped makes an empty database in WAL mode. Only the shell can be told to
// reserve bytes.
func createShaped(path string, s shape) error {
	// audit is the one table that stays: triggers write into it.
	setup := fmt.Sprintf("PRAGMA page_size=%d; PRAGMA auto_vacuum=%d; PRAGMA encoding='%s'; PRAGMA journal_mode=WAL; CREATE TABLE audit(n INTEGER PRIMARY KEY, what TEXT);",
		s.pageSize, s.autoVacuum, s.encoding)
	if s.reserved > 0 {
		out, err := exec.Command("sqlite3", path, fmt.Sprintf(".filectrl reserve_bytes %d", s.reserved), setup).CombinedOutput()
		if err != nil {
			return fmt.Errorf("sqlite3: %w: %s", err, out)
		}
		return nil
	}
	c, err := sqlite.Open(path, sqlite.Options{Plain: true, Create: true})
	if err != nil {
		return err
	}
	return errors.Join(c.Exec(setup), c.Close())
}

// connect opens the connection, in place of the one there was.
func (w *workload) connect() {
	if w.c != nil {
		w.must(w.c.Close())
	}
	c, err := sqlite.Open(w.path, sqlite.Options{Plain: true, BusyTimeout: busyTimeout})
	if err != nil {
		w.must(err)
		return
	}
	w.c = c
	w.exec("PRAGMA foreign_keys=ON")
	w.tune()
}

const busyTimeout = 20 * time.Second

// tune changes what applications configure.
func (w *workload) tune() {
	for _, p := range []string{
		fmt.Sprintf("wal_autocheckpoint=%d", pick(w.r, 0, 1, 5, 50, 1000)),
		fmt.Sprintf("cache_size=%d", pick(w.r, 1, 1, 20, 200, -2000)), // small: spills uncommitted pages
		fmt.Sprintf("cache_spill=%d", pick(w.r, 1, 1, 0)),
		fmt.Sprintf("synchronous=%d", pick(w.r, 0, 1, 1, 2)),
		fmt.Sprintf("secure_delete=%s", pick(w.r, "0", "1", "FAST")),
		fmt.Sprintf("legacy_alter_table=%d", w.r.IntN(2)),
		fmt.Sprintf("recursive_triggers=%d", w.r.IntN(2)),
	} {
		w.exec("PRAGMA " + p)
	}
}

// must keeps the first failure.
func (w *workload) must(err error) {
	if err != nil && w.err == nil {
		w.err = err
		w.note("-- " + err.Error())
	}
}

// Result codes that a statement may end with because of what is in the database:
// a name that is gone, a constraint, a value of the wrong type.
var refusals = []int{1, 19, 20}

// exec runs one statement and reports whether SQLite did it.
func (w *workload) exec(sql string, args ...any) bool {
	if w.err != nil {
		return false
	}
	w.note(literally(sql, args) + ";")
	began := time.Now()
	err := w.c.Exec(sql, args...)
	if err == nil {
		return true
	}
	var e *sqlite.Error
	if !errors.As(err, &e) || !slices.Contains(refusals, e.Code) {
		w.must(fmt.Errorf("%s: after %s: %w", abridge(sql), time.Since(began), err))
		return false
	}
	w.note("-- refused: " + e.Message)
	w.refused[strings.Fields(sql)[0]]++
	return false
}

// query reads what a statement is made of.
func (w *workload) query(sql string, row func(sqlite.Row), args ...any) {
	if w.err != nil {
		return
	}
	if err := w.c.Query(sql, args, func(r sqlite.Row) error { row(r); return nil }); err != nil {
		w.must(fmt.Errorf("%s: %w", abridge(sql), err))
	}
}

func (w *workload) number(sql string, args ...any) (n int) {
	w.query(sql, func(r sqlite.Row) { n = int(r.Int(0)) }, args...)
	return n
}

func (w *workload) note(line string) { fmt.Fprintln(w.trace, line) }

func abridge(s string) string {
	if len(s) > 300 {
		return s[:300] + "…"
	}
	return s
}

// name makes one that was never used.
func (w *workload) name(prefix string) string {
	w.names++
	return fmt.Sprintf("%s%d", prefix, w.names)
}

// operations are the work outside explicit transactions.
var operations = []operation{
	{"rows", 600, func(w *workload) { w.step(rowOperations) }},
	{"transaction", 180, (*workload).transaction},
	{"schema", 90, func(w *workload) { w.step(schemaOperations); w.load() }},
	{"maintenance", 60, func(w *workload) { w.step(maintenance) }},
	{"reconnect", 20, func(w *workload) { w.must(w.release()); w.connect() }},
}

// maintenance is what cannot run inside a transaction, or changes no row.
var maintenance = []operation{
	{"tune", 20, (*workload).tune},
	{"checkpoint", 40, (*workload).checkpoint},
	{"reader", 15, (*workload).toggleReader},
	{"incremental_vacuum", 10, func(w *workload) { w.exec(fmt.Sprintf("PRAGMA incremental_vacuum(%d)", 1+w.r.IntN(200))) }},
	{"vacuum", 5, (*workload).vacuum},
	{"analyze", 5, func(w *workload) { w.exec("ANALYZE") }},
	{"reindex", 5, func(w *workload) { w.exec("REINDEX") }},
	{"optimize", 3, (*workload).optimize},
	{"user_version", 5, func(w *workload) { w.exec(fmt.Sprintf("PRAGMA user_version=%d", int32(w.r.Uint32()))) }},
	{"application_id", 5, func(w *workload) { w.exec(fmt.Sprintf("PRAGMA application_id=%d", int32(w.r.Uint32()))) }},
}

// optimize begins with the write lock: of itself the pragma reads first, and SQLite
// lets nobody wait who wants to write later.
func (w *workload) optimize() {
	for _, sql := range []string{"BEGIN IMMEDIATE", "PRAGMA optimize", "COMMIT"} {
		w.exec(sql)
	}
}

// transaction does several things and keeps, or takes back, some or all.
func (w *workload) transaction() {
	if !w.exec("BEGIN IMMEDIATE") {
		return
	}
	w.inTx = true
	ddl := w.r.IntN(4) == 0
	depth := 0 // savepoints that are open
	for i := w.r.IntN(15); i >= 0; i-- {
		switch n := w.r.IntN(12); {
		case n <= 1:
			depth++
			w.exec("SAVEPOINT s")
		case n == 2 && depth > 0:
			w.exec("ROLLBACK TO s")
			w.load()
		case n == 3 && depth > 0:
			depth--
			w.exec("RELEASE s")
		case n == 4 && ddl:
			w.step(schemaOperations)
			w.load()
		default:
			w.step(rowOperations)
		}
	}
	// A deferred foreign key may refuse the COMMIT, an error in a statement may
	// have ended the transaction already.
	if w.r.IntN(4) == 0 || !w.exec("COMMIT") {
		w.exec("ROLLBACK")
	}
	w.inTx = false
	w.load()
}

// checkpoint asks for one of every kind. Whether it gets it depends on who reads,
// and changes no row.
func (w *workload) checkpoint() {
	mode := pick(w.r, sqlite.Passive, sqlite.Full, sqlite.Restart, sqlite.Truncate)
	w.exec("PRAGMA busy_timeout=20")
	_, err := w.c.Checkpoint(mode)
	w.must(err)
	w.exec(fmt.Sprintf("PRAGMA busy_timeout=%d", busyTimeout.Milliseconds()))
}

// toggleReader opens a read transaction that stays, or ends it.
func (w *workload) toggleReader() {
	if w.reader != nil {
		w.must(w.release())
		return
	}
	c, err := sqlite.Open(w.path, sqlite.Options{Plain: true, BusyTimeout: busyTimeout})
	if err == nil {
		w.reader, err = c, c.OpenRead()
	}
	w.must(err)
}

func (w *workload) release() error {
	if w.reader == nil {
		return nil
	}
	c := w.reader
	w.reader = nil
	return errors.Join(c.Rollback(), c.Close())
}

func (w *workload) vacuum() {
	if w.r.IntN(2) == 0 {
		w.exec(fmt.Sprintf("PRAGMA auto_vacuum=%d", w.r.IntN(3)))
	}
	w.exec("VACUUM")
}
