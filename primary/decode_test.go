package primary

import "testing"

func TestRowidTable(t *testing.T) {
	s := newSubject(t, 1, "CREATE TABLE t(id INTEGER PRIMARY KEY, v); CREATE INDEX tv ON t(v)")
	s.tx("INSERT INTO t VALUES(1,'a'),(2,'b'),(3,'c')")
	s.want("insert t 1", "insert t 2", "insert t 3")
	s.tx("UPDATE t SET v='x' WHERE id=2; DELETE FROM t WHERE id=1; INSERT INTO t VALUES(9,'z')")
	s.want("delete t 1", "update t 2", "insert t 9")
	s.tx("UPDATE t SET v=v")
	s.want()
	s.tx("WITH n(i) AS (SELECT 100 UNION ALL SELECT i+1 FROM n WHERE i<5000) INSERT INTO t SELECT i, 'row ' || i FROM n")
	s.tx("UPDATE t SET v=v||'!' WHERE id%97=0")
	s.tx("DELETE FROM t WHERE id BETWEEN 1000 AND 4000")
	s.single("VACUUM")
	s.want()
	s.tx("DELETE FROM t")
}
