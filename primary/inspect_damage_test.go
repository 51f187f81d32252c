package primary

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// TestInspectionOfADamagedRow: a row that rots after its table was hashed, and that no
// transaction comes by, is found by the inspection that reads it.
func TestInspectionOfADamagedRow(t *testing.T) {
	b := newBench(t, "CREATE TABLE t(a); INSERT INTO t VALUES('some text')")
	noError(t, b.app.Close()) // it checkpoints
	content, err := os.ReadFile(b.path)
	noError(t, err)
	at := strings.Index(string(content), "some text")
	b.connect()
	b.start()
	b.sync()
	b.known()
	noError(t, b.p.summer.inspect(b.ctx))
	b.exec("CREATE TABLE other(a)") // another inspection is due
	b.sync()
	// By another process: to close the file in this one would take its locks.
	rot := fmt.Sprintf(`printf '\177' | dd of='%s' bs=1 seek=%d conv=notrunc`, b.path, at-1)
	if out, err := exec.Command("sh", "-c", rot).CombinedOutput(); err != nil {
		t.Fatal(string(out), err)
	}
	if err := b.p.summer.inspect(b.ctx); err != nil {
		b.p.summer.uninspected(err)
	}
	if s := b.p.Status(); !strings.Contains(s.Error, "table t") || s.Sums.Damage == "" {
		t.Errorf("nobody can read a row of t, and all that is said is %q", s.Error)
	}
}

// TestInspectionGoesOnWhereItWasCut: a source of which one inspection has time for a table
// is inspected as a whole, also when nothing is written to it meanwhile.
func TestInspectionGoesOnWhereItWasCut(t *testing.T) {
	b := newBench(t, sumTables)
	b.start()
	b.sync()
	b.known()
	tables := 0
	noError(t, b.p.ask(b.ctx, func(c *capture) error {
		for _, table := range c.sums.tables {
			table.sum[1]-- // each is wrong
			tables++
		}
		return nil
	}))
	s := &b.p.summer
	s.hold = -1
	found := func() int { return int(b.p.Status().Sums.Mismatches) }
	for before := -1; found() > before; {
		before = found()
		noError(t, s.inspect(b.ctx))
	}
	if found() != tables {
		t.Errorf("%d of %d wrong hashes were found", found(), tables)
	}
}
