package primary

import "testing"

// TestTablesTakePlaces: a table that is dropped leaves pages and chains to others in
// the same transaction. Its tree is too large to be read for that: only the map
// tells what was of it.
func TestTablesTakePlaces(t *testing.T) {
	small := "PRAGMA page_size=512; "
	for _, steps := range []string{
		"DROP TABLE t; ALTER TABLE u RENAME TO t",
		"DROP TABLE t; ALTER TABLE u RENAME TO t; ALTER TABLE t ADD COLUMN z DEFAULT 5",
		"DROP TABLE t; ALTER TABLE u RENAME TO t; ALTER TABLE t RENAME COLUMN v TO w",
		"DROP TABLE t; ALTER TABLE u RENAME TO t; ALTER TABLE t RENAME COLUMN v TO w; ALTER TABLE t ADD COLUMN z DEFAULT 5; ALTER TABLE t RENAME TO zz",
		"ALTER TABLE u RENAME COLUMN v TO w; ALTER TABLE u RENAME COLUMN id TO id2; ALTER TABLE u RENAME TO zz",
		"ALTER TABLE t RENAME TO s; ALTER TABLE u RENAME TO t; ALTER TABLE s RENAME TO u",
		"ALTER TABLE t RENAME TO s; ALTER TABLE u RENAME TO t; ALTER TABLE s RENAME TO u; DROP TABLE u",
		"CREATE TABLE n(id INTEGER PRIMARY KEY, v); INSERT INTO n SELECT * FROM t; DROP TABLE t; ALTER TABLE n RENAME TO t",
		"DROP TABLE t; CREATE TABLE t(id INTEGER PRIMARY KEY, v); INSERT INTO t SELECT * FROM u",
		"DROP TABLE t; DROP TABLE u; CREATE TABLE u(id INTEGER PRIMARY KEY, v); INSERT INTO u SELECT id, v FROM (WITH RECURSIVE n(id) AS (SELECT 1 UNION ALL SELECT id+1 FROM n WHERE id<120) SELECT id, printf('%.*c', 900, 'a') AS v FROM n)",
		"CREATE TEMP TABLE k AS SELECT * FROM t; DROP TABLE t; CREATE TABLE t(id INTEGER PRIMARY KEY, v); INSERT INTO t SELECT * FROM k; DROP TABLE k",
		"CREATE TEMP TABLE k AS SELECT * FROM t; DELETE FROM t; INSERT INTO t SELECT * FROM k; DROP TABLE k",
		"CREATE TEMP TABLE k AS SELECT * FROM t; DROP TABLE t; CREATE TABLE q(id INTEGER PRIMARY KEY, v); INSERT INTO q SELECT * FROM k; DROP TABLE k",
		"UPDATE t SET id=-id; UPDATE t SET id=-id",
		"UPDATE t SET v=v||'x'; UPDATE t SET v=substr(v,1,length(v)-1)",
		"INSERT OR REPLACE INTO t SELECT * FROM t",
		"DELETE FROM t WHERE id%2; INSERT INTO t SELECT id-1, v FROM t",
	} {
		for _, av := range []string{"", "PRAGMA auto_vacuum=1; "} {
			for _, kind := range []string{"", " WITHOUT ROWID"} {
				t.Run(av+kind+steps, func(t *testing.T) {
					s := newSubject(t, 1, small+av+"CREATE TABLE t(id INTEGER PRIMARY KEY, v)"+kind+"; CREATE TABLE u(id INTEGER PRIMARY KEY, v)"+kind+"; "+fill(1, 120, 900)+"; INSERT INTO u SELECT id+7, v||v FROM t")
					s.tx(steps)
				})
			}
		}
	}
}
