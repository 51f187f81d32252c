-- auto_vacuum FULL moves pages; payloads of one and of many overflow pages.
PRAGMA page_size=1024; PRAGMA auto_vacuum=1;
CREATE TABLE a(x); CREATE TABLE b(id INTEGER PRIMARY KEY, data BLOB);
INSERT INTO a SELECT zeroblob(3000) FROM (VALUES(1),(2),(3));
WITH n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<12) INSERT INTO b SELECT i, CAST(printf('%.*c', i*400, 'b') AS BLOB) FROM n;
-- work
UPDATE b SET data=CAST(printf('%.*c', 4000, 'c') AS BLOB) WHERE id=4;
UPDATE b SET data=substr(data,1,length(data)-1)||x'00' WHERE id=9;
BEGIN; DROP TABLE a; DELETE FROM b WHERE id<3; COMMIT;
CREATE TABLE c AS SELECT id, length(data) n FROM b;
