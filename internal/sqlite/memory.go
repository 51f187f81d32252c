package sqlite

// #include "sqlite.h"
import "C"

// ShareMemory bounds, in bytes, about what all connections of the process take
// together; 0: not at all. Past it a page cache uses its own pages again, the longest
// unused first, instead of growing to its own bound, and writes changed ones out early.
// Nothing fails: what must be had is had. It counts for connections that are open, too.
func ShareMemory(bytes int64) { C.sqlite3_soft_heap_limit64(C.int64_t(bytes)) }

// MemoryUsed is what all connections take at the moment, in bytes.
func MemoryUsed() int64 { return int64(C.sqlite3_memory_used()) }
