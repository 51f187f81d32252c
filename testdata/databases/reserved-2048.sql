-- 24 reserved bytes at the end of each page, as extensions ask for.
.filectrl reserve_bytes 24
PRAGMA page_size=2048;
CREATE TABLE t(id INTEGER PRIMARY KEY, v);
WITH n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<80) INSERT INTO t SELECT i, printf('%.*c', i*11%700, 'r') FROM n;
-- work
UPDATE t SET v=v||'!' WHERE id%9=0;
INSERT INTO t SELECT id+1000, zeroblob(6000) FROM t WHERE id<3;
DELETE FROM t WHERE id BETWEEN 30 AND 50;
