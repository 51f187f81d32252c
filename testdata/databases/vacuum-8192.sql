-- VACUUM writes every page and gives new rowids where there is no INTEGER PRIMARY KEY.
PRAGMA page_size=8192;
CREATE TABLE t(id INTEGER PRIMARY KEY, v); CREATE TABLE plain(a);
WITH n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<60) INSERT INTO t SELECT i, zeroblob(i*8) FROM n;
INSERT INTO plain VALUES('one'),('two'),('three');
-- work
DELETE FROM plain WHERE a='one';
VACUUM;
DELETE FROM t WHERE id<5;
