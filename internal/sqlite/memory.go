package sqlite

// #include <stdlib.h>
// #include "conn.h"
import "C"

import "unsafe"

// ShareMemory bounds, in bytes, about what all connections of the process take
// together; 0: not at all. Past it a page cache uses its own pages again, the longest
// unused first, instead of growing to its own bound, and writes changed ones out early.
// Nothing fails: what must be had is had. It counts for connections that are open, too.
func ShareMemory(bytes int64) { C.sqlite3_soft_heap_limit64(C.int64_t(bytes)) }

// MemoryUsed is what all connections take at the moment, in bytes.
func MemoryUsed() int64 { return int64(C.sqlite3_memory_used()) }

// MemoryPeak is the most that they took since the last call, in bytes.
func MemoryPeak() int64 { return int64(C.sqlite3_memory_highwater(1)) }

// TempDir says where all connections of the process keep, in files without a name, what
// does not fit into their caches: what is sorted for an index, above all. "" leaves it to
// SQLite, which takes $SQLITE_TMPDIR, $TMPDIR, /var/tmp or /tmp. No connection may be open.
func TempDir(dir string) {
	text := C.CString(dir)
	defer C.free(unsafe.Pointer(text))
	C.rq_temp_dir(text)
}
