-- UTF-16, auto_vacuum INCREMENTAL, names and values beyond ASCII.
PRAGMA encoding='UTF-16be'; PRAGMA auto_vacuum=2;
CREATE TABLE "größe"(id INTEGER PRIMARY KEY, "名" TEXT, b BLOB);
INSERT INTO "größe" VALUES(1,'é',x'00ff'),(2,'日本語',NULL),(3,'𝄞',zeroblob(20000));
-- work
UPDATE "größe" SET "名"='ü'||"名" WHERE id<3;
DELETE FROM "größe" WHERE id=3;
PRAGMA incremental_vacuum(3);
ALTER TABLE "größe" RENAME COLUMN "名" TO nombre;
ALTER TABLE "größe" ADD COLUMN later DEFAULT 'später';
INSERT INTO "größe" VALUES(4,'neu',1,2);
