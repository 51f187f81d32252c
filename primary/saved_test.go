package primary

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sqlite-replicator/replicator/cdc"
	"github.com/sqlite-replicator/replicator/internal/durable"
	"github.com/sqlite-replicator/replicator/internal/sqlitefile"
)

// wide has a tree with many leaves, one with chains, and one without rowids.
const wide = `CREATE TABLE t(id INTEGER PRIMARY KEY, v); CREATE TABLE c(v); CREATE TABLE k(a PRIMARY KEY, b) WITHOUT ROWID;
	WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<3000) INSERT INTO t SELECT i, zeroblob(200) FROM n;
	INSERT INTO c SELECT zeroblob(id) FROM t; INSERT INTO k SELECT id, v FROM t`

func (b *bench) saved() string { return filepath.Join(b.dir, savedFile) }

func (b *bench) started() (s start) {
	b.t.Helper()
	noError(b.t, b.p.ask(b.ctx, func(c *capture) error {
		s = c.start
		return nil
	}))
	return s
}

// savedBench is a source whose first term has ended in order, after a transaction and
// with all sums known. In it is what the database was then.
func savedBench(t *testing.T) *bench {
	b := newBench(t, wide)
	b.edit = func(o *Options) { // or the first to write after the stop could start the SQLite WAL over
		o.Capture.TurnoverBytes, o.Capture.RepinFrames = 1<<30, 1<<30
	}
	b.start()
	b.sync()
	b.exec("UPDATE t SET v=1 WHERE id=1500")
	b.sync()
	b.known()
	b.end()
	return b
}

// follows checks that changes of every table are captured, and nothing is found wrong.
func (b *bench) follows() {
	b.t.Helper()
	b.exec("UPDATE t SET v=v||'x' WHERE id%7=0; UPDATE c SET v=zeroblob(3) WHERE rowid%11=0; DELETE FROM k WHERE a%13=0; CREATE TABLE IF NOT EXISTS n(a); INSERT INTO n VALUES(1)")
	b.sync()
	b.known()
	noError(b.t, b.p.summer.inspect(b.ctx))
	if s := b.p.Status().Sums; s.Mismatches+s.MapMismatches > 0 || s.Inspections == 0 {
		b.t.Errorf("found %+v", s)
	}
	if diff := cmp.Diff(b.content(), b.sums()); diff != "" {
		b.t.Errorf("(-SQL +capture):\n%s", diff)
	}
	if b.has(cdc.Break) {
		b.t.Errorf("the records are %v", b.kinds())
	}
}

// TestRestartRecalls: after an ordered stop the database is not read again, and the
// row-set hashes are known at once. What was written meanwhile is captured.
func TestRestartRecalls(t *testing.T) {
	for _, meanwhile := range []string{"", "UPDATE t SET v=2 WHERE id=700; INSERT INTO c VALUES(zeroblob(2000))"} {
		b := savedBench(t)
		b.exec(meanwhile)
		b.start()
		at := b.sync()
		if s := b.started(); !s.recalled || s.read > 2*scanBytes/4096 { // the header and sqlite_schema
			t.Errorf("%+v", s)
		}
		if s := b.p.Status().Sums; s.Known != s.Tables || s.Tables != 3 || s.Pages != 0 {
			t.Errorf("the hashes that are known: %+v", s)
		}
		if _, err := os.Stat(b.saved()); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("what was saved is there while the term runs: %v", err)
		}
		if n := strings.Count(fmt.Sprint(b.kinds()), "commit"); meanwhile != "" && n < 2 {
			t.Errorf("the records up to %v are %v", at, b.kinds())
		}
		b.follows()
	}
}

// TestRestartRecallsAgain: each ordered stop saves what has become of the map.
func TestRestartRecallsAgain(t *testing.T) {
	b := savedBench(t)
	for range 3 {
		b.start()
		b.sync()
		if s := b.started(); !s.recalled {
			t.Error("it was read again")
		}
		b.follows()
		b.end()
	}
}

// TestRestartsRecallWhatIs: whatever was written before and between terms, what one
// recalls is the database, though most of the map is in a file.
func TestRestartsRecallWhatIs(t *testing.T) {
	for seed := range uint64(2) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			b := newBench(t, wide+";"+sumTables)
			b.edit = func(o *Options) {
				o.Capture.TurnoverBytes, o.Capture.RepinFrames = 1<<30, 1<<30 // see savedBench
				o.Sources.users = mapsInAll / len(mapBlock{})
			}
			w := &stateWriter{rng: rand.New(rand.NewPCG(seed, 3)), n: 100, tables: []string{"t1", "t2", "t3", "t4"}}
			for term := range 8 {
				b.start()
				b.sync()
				if s := b.started(); s.recalled != (term > 0) {
					t.Fatalf("term %d: %+v", term, s)
				}
				b.known()
				noError(t, b.p.ask(b.ctx, func(c *capture) error {
					return c.decoder.check(newScan(c.follower.view), c.follower.view.pages)
				}))
				for range 5 {
					b.exec(w.transaction())
				}
				b.sync()
				b.known()
				if diff := cmp.Diff(b.content(), b.sums()); diff != "" {
					t.Fatalf("term %d (-SQL +capture):\n%s", term, diff)
				}
				b.end()
				if term%2 == 0 {
					b.exec(fmt.Sprintf("INSERT INTO t VALUES(%d,%[1]d); INSERT INTO c VALUES(zeroblob(%[1]d)); CREATE TABLE m%[1]d(a)", 100_000+term))
				}
			}
		})
	}
}

// TestRestartReadsInDoubt: what was saved counts only if all of it is there, and of
// exactly the state that the term goes on from.
func TestRestartReadsInDoubt(t *testing.T) {
	for name, spoil := range map[string]func(b *bench, saved []byte) []byte{
		"killed":  func(*bench, []byte) []byte { return nil },
		"damaged": func(_ *bench, saved []byte) []byte { saved[len(saved)/2] ^= 4; return saved },
		"cut":     func(_ *bench, saved []byte) []byte { return saved[:len(saved)-1] },
		"empty":   func(*bench, []byte) []byte { return []byte{} },
		"of the term before": func(b *bench, saved []byte) []byte {
			b.start()
			b.sync()
			b.end()
			return saved
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := savedBench(t)
			saved, err := os.ReadFile(b.saved())
			noError(t, err)
			if saved = spoil(b, saved); saved == nil {
				noError(t, os.Remove(b.saved()))
			} else {
				noError(t, os.WriteFile(b.saved(), saved, 0o600))
			}
			b.start()
			b.sync()
			if s := b.started(); s.recalled || s.read < 500 {
				t.Errorf("%+v", s)
			}
			b.follows()
		})
	}
}

// TestRestartReadsAnotherFile: where the proof fails there is nothing to recall. What
// was saved would fit.
func TestRestartReadsAnotherFile(t *testing.T) {
	for name, replace := range map[string]func(b *bench){
		"touched": func(b *bench) { noError(b.t, os.Chtimes(b.path, time.Time{}, time.Now().Add(time.Hour))) },
		"copied": func(b *bench) {
			noError(b.t, b.app.Close())
			content, err := os.ReadFile(b.path)
			noError(b.t, err)
			noError(b.t, errors.Join(os.Remove(b.path), os.WriteFile(b.path, content, 0o600)))
			b.connect()
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := savedBench(t)
			replace(b)
			b.start()
			b.sync()
			if s := b.started(); s.recalled || s.read < 500 {
				t.Errorf("%+v", s)
			}
			if !b.has(cdc.Break) { // there is no snapshot to compare with
				t.Errorf("the records are %v", b.kinds())
			}
		})
	}
}

// falsify rewrites what was saved, with a checksum that is right.
func (b *bench) falsify(edit func(*savedState, *pageMap)) {
	b.t.Helper()
	content, err := os.ReadFile(b.saved())
	noError(b.t, err)
	want := headerOfSaved(b.t, content)
	var m pageMap
	state, err := readSaved(durable.OS{}, b.saved(), want, &m)
	noError(b.t, err)
	edit(&state, &m)
	noError(b.t, writeSaved(durable.OS{}, b.saved(), state, &m, func() error { return nil }))
}

func headerOfSaved(t *testing.T, content []byte) (s savedState) {
	t.Helper()
	start := len(savedMagic) + 4
	size := binary.LittleEndian.Uint32(content[len(savedMagic):])
	noError(t, json.Unmarshal(content[start:start+int(size)], &s))
	return s
}

// TestFalsifiedMapIsFound: a map that is wrong, and says that it is right, loses
// changes until it is inspected.
func TestFalsifiedMapIsFound(t *testing.T) {
	b := savedBench(t)
	b.falsify(func(_ *savedState, m *pageMap) {
		for p := range m.count {
			if kind, parent := m.at(p); kind == treePage && parent != 0 {
				m.set(p, unmapped, 0)
			}
		}
	})
	b.start()
	b.sync()
	if s := b.started(); !s.recalled {
		t.Fatalf("%+v", s)
	}
	b.exec("UPDATE t SET v='lost' WHERE id=1200")
	at := b.sync()
	noError(t, b.p.summer.inspect(b.ctx))
	if s := b.p.Status().Sums; s.MapMismatches != 1 {
		t.Errorf("found %+v", s)
	}
	noError(t, b.p.changed.wait(b.ctx, func() bool { return b.p.Status().LSN.Captured > at.LSN }))
	b.sync()
	b.known()
	if s := b.started(); s.recalled {
		t.Error("the map that was refuted is used again")
	}
	if diff := cmp.Diff(b.content(), b.sums()); diff != "" {
		t.Errorf("(-SQL +capture):\n%s", diff)
	}
	if !b.has(cdc.Break) {
		t.Errorf("the records are %v", b.kinds())
	}
}

func TestFalsifiedSumIsFound(t *testing.T) {
	b := savedBench(t)
	b.falsify(func(s *savedState, _ *pageMap) { s.Sums[1].Sum[0]++ })
	b.start()
	b.sync()
	noError(t, b.p.summer.inspect(b.ctx))
	noError(t, b.p.changed.wait(b.ctx, func() bool { return b.p.Status().Sums.Mismatches == 1 && len(b.sums()) == 3 }))
	if diff := cmp.Diff(b.content(), b.sums()); diff != "" {
		t.Errorf("(-SQL +capture):\n%s", diff)
	}
}

// TestOnlyAnOrderedEndSaves: what a term knew that ended in trouble is not believed.
func TestOnlyAnOrderedEndSaves(t *testing.T) {
	for name, edit := range map[string]func(*capture){
		"trouble":            func(*capture) {},
		"taken, not durable": func(c *capture) { c.orderly, c.unsynced = true, true },
		"no state":           func(c *capture) { c.orderly, c.decoder.loaded = true, false },
		"another position":   func(c *capture) { c.orderly = true; c.follower.reader = sqlitefile.NewWALReader(c.src.log) },
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, wide)
			c := startCapture(t, b.path, newMemoryLog(func(*cdc.Change) error { return nil }), testCaptureOptions())
			edit(c)
			c.leave()
			if _, err := os.Stat(c.saved()); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("there is something: %v", err)
			}
			c.unsynced, c.orderly = false, false
		})
	}
}

// A savedExample is a small map and its state.
func savedExample() (savedState, *pageMap) {
	var m pageMap
	m.resize(3*blockPages + 9)
	m.set(1, treePage, 0)
	m.set(3*blockPages+1, chainHead, 1)
	s := savedState{Pages: m.count, PageSize: 512, Usable: 512, Encoding: 1, Sums: []savedSum{{Table: []byte("t\xff"), Sum: cdc.RowSum{1, 2}}}}
	s.At = cdc.Position{Epoch: 3, LSN: 9}
	s.At.Hash[0], s.At.Lineage[0] = 1, 1
	s.File.Size = 7
	return s, &m
}

func always() error { return nil }

func TestSavedFile(t *testing.T) {
	mem := durable.NewMem()
	want, m := savedExample()
	noError(t, writeSaved(mem, "/f", want, m, always))
	var back pageMap
	got, err := readSaved(mem, "/f", want, &back)
	noError(t, err)
	noError(t, back.compare(m))
	if want.Blocks = 2; cmp.Diff(want, got) != "" || back.count != m.count {
		t.Errorf("(-saved +read):\n%s", cmp.Diff(want, got))
	}
	if n := mem.OpenFiles(); n != 0 {
		t.Errorf("%d files are open", n)
	}
}

// TestSavedFileDamaged: no byte of it can be another, missing or too much.
func TestSavedFileDamaged(t *testing.T) {
	mem := durable.NewMem()
	want, m := savedExample()
	noError(t, writeSaved(mem, "/f", want, m, always))
	whole := mem.Image("/f")
	refused := func(what string, b []byte) {
		t.Helper()
		mem.SetImage("/f", b)
		var back, empty pageMap
		if _, err := readSaved(mem, "/f", want, &back); !errors.Is(err, errNotSaved) {
			t.Fatalf("%s: %v", what, err)
		}
		noError(t, back.compare(&empty))
	}
	for i := range whole {
		b := bytes.Clone(whole)
		b[i] ^= 1 << (i % 8)
		refused(fmt.Sprintf("byte %d of %d", i, len(whole)), b)
		refused(fmt.Sprintf("%d bytes of %d", i, len(whole)), whole[:i])
	}
	refused("a byte more", append(bytes.Clone(whole), 0))
	refused("twice", append(bytes.Clone(whole), whole...))
}

// TestSavedFileOfAnotherState: everything that says which state it is counts.
func TestSavedFileOfAnotherState(t *testing.T) {
	mem := durable.NewMem()
	saved, m := savedExample()
	noError(t, writeSaved(mem, "/f", saved, m, always))
	for name, edit := range map[string]func(*savedState){
		"lineage":   func(s *savedState) { s.At.Lineage[3]++ },
		"epoch":     func(s *savedState) { s.At.Epoch++ },
		"lsn":       func(s *savedState) { s.At.LSN++ },
		"hash":      func(s *savedState) { s.At.Hash[7]++ },
		"file size": func(s *savedState) { s.File.Size++ },
		"file time": func(s *savedState) { s.File.Modified = time.Unix(1, 1) },
		"pages":     func(s *savedState) { s.Pages++ },
		"page size": func(s *savedState) { s.PageSize *= 2 },
		"usable":    func(s *savedState) { s.Usable-- },
		"encoding":  func(s *savedState) { s.Encoding++ },
	} {
		want := saved
		edit(&want)
		var back, empty pageMap
		if _, err := readSaved(mem, "/f", want, &back); !errors.Is(err, errNotSaved) {
			t.Errorf("%s: %v", name, err)
		}
		noError(t, back.compare(&empty))
	}
}

// TestSaveAnyFault: a call that fails, and a crash before any call, leave the file
// whole, or no use.
func TestSaveAnyFault(t *testing.T) {
	want, m := savedExample()
	usable := func(fs *durable.Mem) error {
		var back pageMap
		if _, err := readSaved(fs, "/f", want, &back); err != nil {
			return err
		}
		return back.compare(m)
	}
	before := want
	before.At.LSN--
	for _, failure := range []error{syscall.ENOSPC, syscall.EIO, nil} {
		for last, at := 1, 0; at < last; at++ {
			mem := durable.NewMem()
			noError(t, writeSaved(mem, "/f", before, m, always))
			calls := 0
			mem.Inject(func(durable.Call) durable.Fault {
				calls++
				if calls-1 != at {
					return durable.Fault{}
				}
				for _, pick := range []func(int) int{nil, func(n int) int { return n - 1 }, func(n int) int { return at % n }} {
					if err := usable(mem.Crash(pick)); err != nil && !errors.Is(err, errNotSaved) {
						t.Errorf("crash before call %d: %v", at, err)
					}
				}
				return durable.Fault{Err: failure}
			})
			err := writeSaved(mem, "/f", want, m, always)
			mem.Inject(nil)
			last = calls
			switch now := usable(mem.Crash(nil)); {
			case now != nil && !errors.Is(now, errNotSaved):
				t.Errorf("call %d: %v", at, now)
			case err == nil && now != nil:
				t.Errorf("call %d: it is saved, and %v", at, now)
			case err == nil && failure != nil:
				t.Errorf("call %d failed, and nobody said so", at)
			}
			if failure == nil && last < 4 {
				t.Fatalf("there are only %d calls", last)
			}
		}
	}
}

// TestSaveTakesTooLong: a term that is to end does not write for ever.
func TestSaveTakesTooLong(t *testing.T) {
	b := newBench(t, wide)
	c := startCapture(t, b.path, newMemoryLog(func(*cdc.Change) error { return nil }), testCaptureOptions())
	now := time.Now()
	c.clock = func() time.Time { now = now.Add(savedPatient); return now }
	if err := c.save(fileStamp{}); err == nil {
		t.Error("it was saved")
	}
	left, err := filepath.Glob(c.saved() + "*")
	if noError(t, err); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	c.clock = time.Now
	noError(t, c.save(fileStamp{}))
	if _, err := os.Stat(c.saved()); err != nil {
		t.Error(err)
	}
}

// TestMapFitsTheTables: a map that cannot be one of the database is no map.
func TestMapFitsTheTables(t *testing.T) {
	s := newSchema()
	s.trees[7] = &tree{root: 7}
	for name, c := range map[string]struct {
		edit func(*pageMap)
		ok   bool
	}{
		"right":               {func(*pageMap) {}, true},
		"a root is missing":   {func(m *pageMap) { m.set(7, unmapped, 0) }, false},
		"a root of no table":  {func(m *pageMap) { m.set(8, treePage, 0) }, false},
		"a chain of nothing":  {func(m *pageMap) { m.set(8, chainHead, 0) }, false},
		"a parent beyond":     {func(m *pageMap) { m.set(8, treePage, 11) }, false},
		"no kind":             {func(m *pageMap) { m.set(8, chainNext+1, 1) }, false},
		"an entry beyond":     {func(m *pageMap) { m.set(10, treePage, 7); m.count = 9 }, false},
		"a parent of nothing": {func(m *pageMap) { m.set(8, treePage, 7); m.set(8, unmapped, 7) }, false},
	} {
		var m pageMap
		m.resize(10)
		m.set(1, treePage, 0)
		m.set(7, treePage, 0)
		m.set(9, treePage, 7)
		c.edit(&m)
		if err := m.fits(s); (err == nil) != c.ok || err != nil && !errors.Is(err, errInconsistent) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
