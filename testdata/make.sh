#!/bin/sh
# Makes the databases of testdata/databases with the sqlite3 shell:
#     testdata/make.sh DIRECTORY
# What comes before "-- work" in NAME.sql goes into NAME.db, the rest stays behind in
# NAME.db-wal, as if the last program had been killed.
set -eu
out=$1
from=$(dirname "$0")/databases
for sql in "$from"/*.sql; do
	db=$out/$(basename "$sql" .sql).db
	rm -f "$db" "$db-wal" "$db-shm"
	sed '/^-- work$/,$d' "$sql" | sqlite3 -batch -bail "$db"
	sqlite3 -batch -bail "$db" 'PRAGMA journal_mode=WAL' >/dev/null
	{
		echo '.dbconfig no_ckpt_on_close on'
		echo 'PRAGMA wal_autocheckpoint=0;'
		sed '1,/^-- work$/d' "$sql"
	} | sqlite3 -batch -bail "$db" >/dev/null
	rm -f "$db-shm"
done
