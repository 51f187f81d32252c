-- FTS5 and R*Tree keep their rows in shadow tables; AUTOINCREMENT; generated columns.
CREATE VIRTUAL TABLE box USING rtree(id, x0, x1, y0, y1);
CREATE VIRTUAL TABLE note USING fts5(body);
CREATE TABLE auto(id INTEGER PRIMARY KEY AUTOINCREMENT, a INT, twice GENERATED ALWAYS AS (a*2) VIRTUAL, thrice GENERATED ALWAYS AS (a*3) STORED);
INSERT INTO auto(a) VALUES(1),(2),(3);
INSERT INTO note VALUES('some words'),('more words');
INSERT INTO box VALUES(1,0,1,0,1),(2,5,6,5,6);
-- work
INSERT INTO auto(a) VALUES(40);
UPDATE auto SET a=20 WHERE id=2;
DELETE FROM auto WHERE id=4;
UPDATE box SET x1=9 WHERE id=2;
INSERT INTO note VALUES('a third note');
CREATE VIEW v AS SELECT a FROM auto;
CREATE TRIGGER tr AFTER INSERT ON auto BEGIN DELETE FROM box WHERE id=new.id; END;
