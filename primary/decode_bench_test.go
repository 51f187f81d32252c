package primary

import (
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/sqlite-replicator/replicator/cdc"
	"github.com/sqlite-replicator/replicator/internal/sqlite"
	"github.com/sqlite-replicator/replicator/internal/sqlitefile"
)

// A pageArray is a state of a database by page number.
type pageArray [][]byte

func (a pageArray) Page(n uint32) ([]byte, error) {
	if n == 0 || int(n) >= len(a) || a[n] == nil {
		return nil, fmt.Errorf("%w: page %d of %d", sqlitefile.ErrCorrupt, n, len(a))
	}
	return a[n], nil
}

// A recordedTx is a transaction of a SQLite WAL.
type recordedTx struct {
	written []uint32
	pages   [][]byte
	count   uint32
}

// record runs setup, then each of the transactions, and returns the state between
// them and the pages that each of them wrote.
func record(b *testing.B, setup string, transactions []string) (pageArray, []recordedTx) {
	b.Helper()
	path := filepath.Join(b.TempDir(), "app.db")
	conn, err := sqlite.Open(path, sqlite.Options{Create: true})
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	exec := func(sql string) {
		if err := conn.Exec(sql); err != nil {
			b.Fatalf("%.100s: %v", sql, err)
		}
	}
	exec("PRAGMA journal_mode=DELETE; " + setup + "; PRAGMA journal_mode=WAL; PRAGMA cache_size=-100000")
	data, err := os.ReadFile(path)
	if err != nil {
		b.Fatal(err)
	}
	base := newImage(data)
	for _, sql := range transactions {
		exec(sql)
	}
	wal, err := os.ReadFile(path + "-wal")
	if err != nil {
		b.Fatal(err)
	}
	state := pageArray{nil}
	for n := uint32(1); n <= base.count(); n++ {
		p, _ := base.Page(n)
		state = append(state, p)
	}
	var list []recordedTx
	var tx recordedTx
	const walHeader, frameHeader = 32, 24
	for rest := wal[walHeader:]; len(rest) >= frameHeader+base.pageSize; rest = rest[frameHeader+base.pageSize:] {
		tx.written = append(tx.written, binary.BigEndian.Uint32(rest))
		tx.pages = append(tx.pages, rest[frameHeader:frameHeader+base.pageSize])
		if tx.count = binary.BigEndian.Uint32(rest[4:]); tx.count != 0 {
			list = append(list, tx)
			tx = recordedTx{}
		}
	}
	if len(list) != len(transactions) {
		b.Fatalf("%d transactions in the SQLite WAL, want %d", len(list), len(transactions))
	}
	return state, list
}

func benchmarkDecode(b *testing.B, rowsPerTx int, setup string, transactions []string) {
	base, list := record(b, setup, transactions)
	d := newTestDecoder(b)
	s := newSorter(b.TempDir(), 16<<20)
	var before, after pageArray
	rows, at := 0, len(list)
	count := func(op []byte) error {
		if k := cdc.Op(op[0]); k == cdc.OpInsert || k == cdc.OpUpdate || k == cdc.OpDelete {
			rows++
		}
		return nil
	}
	b.ReportAllocs()
	b.ResetTimer()
	for range b.N {
		if at == len(list) {
			b.StopTimer()
			at = 0
			before, after = append(pageArray(nil), base...), append(pageArray(nil), base...)
			if err := d.load(before, uint32(len(before)-1)); err != nil {
				b.Fatal(err)
			}
			b.StartTimer()
		}
		tx := &list[at]
		at++
		for int(tx.count) >= len(after) {
			after = append(after, nil)
		}
		for i, n := range tx.written {
			after[n] = tx.pages[i]
		}
		s.reset()
		if err := d.transaction(before, after, tx.written, tx.count, s); err != nil {
			b.Fatal(err)
		}
		if err := s.drain(opFunc(count)); err != nil {
			b.Fatal(err)
		}
		for len(before) < len(after) {
			before = append(before, nil)
		}
		for i, n := range tx.written {
			before[n] = tx.pages[i]
		}
	}
	if rows < b.N*rowsPerTx {
		b.Fatalf("%d rows in %d transactions", rows, b.N)
	}
	b.ReportMetric(float64(rows)/b.Elapsed().Seconds(), "rows/s")
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "tx/s")
}

const benchRows = "WITH n(i) AS (SELECT %d UNION ALL SELECT i+1 FROM n WHERE i<%d) INSERT INTO t SELECT i, 'name of row ' || i, i*7919 %% 100003, printf('%%.*c', 40 + i%%40, 'x') FROM n"

func BenchmarkDecode(b *testing.B) {
	const table = "CREATE TABLE t(id INTEGER PRIMARY KEY, name TEXT, n INT, v)"
	fill := table + "; " + fmt.Sprintf(benchRows, 1, 100000)
	many := func(n int, f func(i int) string) []string {
		list := make([]string, n)
		for i := range list {
			list[i] = f(i)
		}
		return list
	}
	insert := func(per int) func(int) string {
		return func(i int) string { return fmt.Sprintf(benchRows, 1000000+i*per, 1000000+i*per+per-1) }
	}
	update := func(i int) string { return fmt.Sprintf("UPDATE t SET n=n+1 WHERE id=%d", 1+i*7919%100000) }
	b.Run("insert=1", func(b *testing.B) { benchmarkDecode(b, 1, fill, many(4000, insert(1))) })
	b.Run("insert=1/index", func(b *testing.B) {
		benchmarkDecode(b, 1, fill+"; CREATE INDEX tn ON t(n)", many(4000, insert(1)))
	})
	b.Run("update=1", func(b *testing.B) { benchmarkDecode(b, 1, fill, many(4000, update)) })
	b.Run("insert=100", func(b *testing.B) { benchmarkDecode(b, 100, fill, many(1000, insert(100))) })
	b.Run("insert=100000", func(b *testing.B) { benchmarkDecode(b, 100000, fill, many(3, insert(100000))) })
	b.Run("delete=100000", func(b *testing.B) { benchmarkDecode(b, 100000, fill, []string{"DELETE FROM t"}) })
	b.Run("update=100000", func(b *testing.B) { benchmarkDecode(b, 100000, fill, []string{"UPDATE t SET n=n+1"}) })
	b.Run("vacuum", func(b *testing.B) { benchmarkDecode(b, 0, fill+"; DELETE FROM t WHERE id%10=0", []string{"VACUUM"}) })
	keyed := fill + "; ALTER TABLE t RENAME TO u; CREATE TABLE t(id INT PRIMARY KEY, name TEXT, n INT, v) WITHOUT ROWID; INSERT INTO t SELECT * FROM u; DROP TABLE u"
	b.Run("keyed/insert=1", func(b *testing.B) { benchmarkDecode(b, 1, keyed, many(4000, insert(1))) })
	b.Run("keyed/update=1", func(b *testing.B) { benchmarkDecode(b, 1, keyed, many(4000, update)) })
	b.Run("keyed/insert=100", func(b *testing.B) { benchmarkDecode(b, 100, keyed, many(1000, insert(100))) })
	b.Run("keyed/vacuum", func(b *testing.B) { benchmarkDecode(b, 0, keyed, []string{"VACUUM"}) })
}

func BenchmarkLoad(b *testing.B) {
	base, _ := record(b, "CREATE TABLE t(id INTEGER PRIMARY KEY, name TEXT, n INT, v); "+fmt.Sprintf(benchRows, 1, 300000), []string{"PRAGMA user_version=1"})
	d := newTestDecoder(b)
	b.SetBytes(int64(len(base)-1) * int64(len(base[1])))
	b.ReportAllocs()
	b.ResetTimer()
	for range b.N {
		if err := d.load(base, uint32(len(base)-1)); err != nil {
			b.Fatal(err)
		}
	}
}
