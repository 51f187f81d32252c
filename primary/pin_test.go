package primary

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/sqlite-replicator/replicator/cdc"
	"github.com/sqlite-replicator/replicator/internal/sqlite"
	"github.com/sqlite-replicator/replicator/internal/sqlitefile"
)

var hostileGenerations = flag.Uint64("generations", 30, "generations of the SQLite WAL that the tests with hostile programs go through")

// A memoryLog is a change log without a disk. It verifies what it is given.
type memoryLog struct {
	verifier *cdc.Verifier
	decoder  cdc.Decoder
	tail     cdc.Tail
	synced   cdc.LSN
	sync     func() error
	visit    func(*cdc.Change) error
}

func newMemoryLog(visit func(*cdc.Change) error) *memoryLog {
	return &memoryLog{verifier: cdc.NewVerifier(cdc.Position{}), tail: cdc.Tail{Next: 1}, visit: visit}
}

func (m *memoryLog) Append(rec []byte, h cdc.Head, b *cdc.Boundary) error {
	r, err := m.verifier.Verify(append([]byte(nil), rec...), true)
	if err != nil {
		return err
	}
	m.tail.Next, m.tail.Chain = h.LSN+1, m.verifier.Chain()
	if b != nil {
		m.tail.Position, m.tail.Boundary = m.verifier.Position(), *b
	}
	return m.decoder.Decode(r, m.visit)
}

func (m *memoryLog) Sync() error {
	m.synced = m.tail.Next - 1
	if m.sync != nil {
		return m.sync()
	}
	return nil
}

func (m *memoryLog) Tail() cdc.Tail { return m.tail }

// A ledger follows the counters of the hostile schema and notes every change
// that does not follow from the one before.
type ledger struct {
	seq   map[string]int64 // "table/rowid" -> last value
	moves int
	gaps  []string
}

func newLedger() *ledger { return &ledger{seq: map[string]int64{}} }

func (l *ledger) visit(c *cdc.Change) error {
	if c.Op != cdc.OpUpdate || c.Table.Name != "w" && c.Table.Name != "big" {
		return nil
	}
	before, err := counter(c.Old)
	if err != nil {
		return err
	}
	after, err := counter(c.New)
	if err != nil {
		return err
	}
	key := fmt.Sprintf("%s/%d", c.Table.Name, c.Rowid)
	if before != l.seq[key] || after != before+1 {
		l.gaps = append(l.gaps, fmt.Sprintf("%s: %d, then %d to %d", key, l.seq[key], before, after))
	}
	l.seq[key] = after
	l.moves++
	return nil
}

func counter(record []byte) (int64, error) {
	v, err := sqlitefile.Record(nil, record)
	if err != nil {
		return 0, err
	}
	return v[1].Int, nil
}

// compare checks that the source holds what the ledger followed.
func (l *ledger) compare(t *testing.T, path string) {
	t.Helper()
	c, err := sqlite.Open(path, sqlite.Options{ReadOnly: true, BusyTimeout: 10 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	rows := 0
	err = c.Query("SELECT 'w/'||id, seq FROM w UNION ALL SELECT 'big/'||id, seq FROM big", nil, func(r sqlite.Row) error {
		rows++
		if got := l.seq[r.Text(0)]; got != r.Int(1) {
			l.gaps = append(l.gaps, fmt.Sprintf("%s is %d, captured %d", r.Text(0), r.Int(1), got))
		}
		return nil
	})
	if err != nil || rows == 0 {
		t.Fatalf("%d rows compared: %v", rows, err)
	}
}

func makeSource(t *testing.T, sql string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "app.db")
	c, err := sqlite.Open(path, sqlite.Options{Plain: true, Create: true})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Exec(sql); err != nil {
		t.Fatal(err)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	return path
}

func testCaptureOptions() CaptureOptions {
	return CaptureOptions{MaxSQLiteWAL: 1 << 30, TurnoverBytes: 256 << 10, RepinFrames: 40, MaxStall: 20 * time.Millisecond, SpillBytes: 1 << 20}
}

func startCapture(t *testing.T, path string, log changeLog, o CaptureOptions) *capture {
	t.Helper()
	src, err := openSource(path)
	if err != nil {
		t.Fatal(err)
	}
	c, err := newCapture(context.Background(), src, log, captureSetup{dir: t.TempDir(), options: o, clock: time.Now, logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(errors.Join(err, src.close()))
	}
	t.Cleanup(func() {
		if err := errors.Join(c.close(), src.close()); err != nil {
			t.Error(err)
		}
	})
	return c
}

// TestNothingLostToHostilePrograms runs the pin protocol against programs that
// checkpoint in every mode, reconnect, spill, roll back, get killed and read for
// long. Every counter must be followed from each value to the next.
func TestNothingLostToHostilePrograms(t *testing.T) {
	for name, roles := range map[string]string{
		"mixed":  "writer reconnecting bigwriter checkpointer checkpointer opener reader",
		"spread": "spread spread writer checkpointer reader",
		"killed": "killer killer spread checkpointer",
	} {
		t.Run(name, func(t *testing.T) {
			path := makeSource(t, hostileSchema)
			book := newLedger()
			c := startCapture(t, path, newMemoryLog(book.visit), testCaptureOptions())
			tr := enlist(t, path, strings.Fields(roles)...)
			for c.follower.stats.Generations < *hostileGenerations {
				n, err := c.poll()
				if err != nil {
					t.Fatal(err)
				}
				if err := c.maintain(n, false); err != nil {
					t.Fatal(err)
				}
				// Far more often than maintain would, and with no pause after a failure.
				if c.follower.position().Frame >= 30 {
					if err := c.follower.turnover(c.follower.stats.Repins%2 == 0, uint32(c.follower.stats.Repins%3)<<12); err != nil {
						t.Fatal(err)
					}
				}
			}
			poll := func() error { _, err := c.poll(); return err }
			counts := tr.dismiss(poll)
			if err := poll(); err != nil {
				t.Fatal(err)
			}
			if err := c.decoder.check(c.follower.view, c.follower.view.pages); err != nil {
				t.Error(err)
			}
			book.compare(t, path)
			for i, role := range strings.Fields(roles) {
				if key := "w/" + strconv.Itoa(i+1); role != "spread" && role != "killer" && book.seq[key] != int64(counts[i]) {
					t.Errorf("%s %s: committed %d, captured %d", role, key, counts[i], book.seq[key])
				}
			}
			if len(book.gaps) > 0 {
				t.Errorf("%d gaps, first: %s", len(book.gaps), book.gaps[0])
			}
			t.Logf("%d changes, %+v", book.moves, c.follower.stats)
		})
	}
}

// TestLossIsSeenWithoutTheProtocol is the control of the test above: the same
// programs and the same checks, but one rule of the pin protocol is left out. If
// it finds no loss, the test above proves nothing.
func TestLossIsSeenWithoutTheProtocol(t *testing.T) {
	for name, step := range map[string]func(f *follower) error{
		"no pin": func(f *follower) error {
			if err := f.release(); err != nil {
				return err
			}
			_, err := f.poll()
			nap(time.Millisecond)
			return err
		},
		"checkpoint before decode": func(f *follower) error {
			next := 1 - f.pinned
			if err := f.src.pins[next].OpenRead(); err != nil {
				return err
			}
			if err := f.src.pins[f.pinned].Rollback(); err != nil {
				return err
			}
			f.pinned = next
			if _, err := f.src.control.Checkpoint(sqlite.Passive); err != nil {
				return err
			}
			_, err := f.poll()
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			path := makeSource(t, hostileSchema)
			book := newLedger()
			c := startCapture(t, path, newMemoryLog(book.visit), testCaptureOptions())
			tr := enlist(t, path, strings.Fields("writer reconnecting checkpointer checkpointer opener")...)
			var lost error
			for n := 0; lost == nil && len(book.gaps) == 0 && n < 100_000; n++ {
				lost = step(c.follower)
			}
			tr.dismiss(func() error { return nil })
			if lost == nil && len(book.gaps) == 0 {
				t.Fatalf("no loss in %d generations", c.follower.stats.Generations)
			}
			t.Logf("after %d generations: %v, gaps %v", c.follower.stats.Generations, lost, book.gaps)
		})
	}
}
