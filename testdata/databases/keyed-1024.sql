-- WITHOUT ROWID, with rows on interior pages and overflow chains, and a compound key.
PRAGMA page_size=1024;
CREATE TABLE w(k TEXT PRIMARY KEY, v, big BLOB) WITHOUT ROWID;
CREATE TABLE c(a INT, b TEXT COLLATE NOCASE, v, PRIMARY KEY(b DESC, a)) WITHOUT ROWID;
WITH n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<90) INSERT INTO w SELECT 'key '||i, i, zeroblob(i%7*200) FROM n;
WITH n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<60) INSERT INTO c SELECT i, 'B'||(i%5), i FROM n;
-- work
UPDATE w SET v=-v WHERE v%10=0;
DELETE FROM w WHERE v BETWEEN 11 AND 39;
UPDATE w SET k='renamed '||v WHERE v=50 OR v=-50;
INSERT OR REPLACE INTO c VALUES(1,'b1','replaced'),(1000,'z','new');
UPDATE w SET big=zeroblob(5000) WHERE v=41;
