-- Pages of 512 bytes, a rowid table with an index, plain and deep changes.
PRAGMA page_size=512;
CREATE TABLE t(id INTEGER PRIMARY KEY, v TEXT, r REAL);
CREATE INDEX tv ON t(v);
WITH n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<200) INSERT INTO t SELECT i, 'value '||i, i/8.0 FROM n;
-- work
INSERT INTO t VALUES(500,'five hundred',-0.5),(501,NULL,1e300);
UPDATE t SET v='changed', r=7 WHERE id IN (3,77,150);
BEGIN; DELETE FROM t WHERE id BETWEEN 20 AND 60; INSERT INTO t(v) VALUES('behind'); COMMIT;
BEGIN; DELETE FROM t WHERE id=1; ROLLBACK;
PRAGMA user_version=-7; PRAGMA application_id=1234567;
