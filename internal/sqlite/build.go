package sqlite

// #include <stdlib.h>
// #include "conn.h"
import "C"

import (
	"fmt"
	"strings"
	"unsafe"
)

// buildTags are the tags that every build of the project needs.
const buildTags = "sqlite_fts5 sqlite_math_functions sqlite_stat4"

// CheckBuild fails when the SQLite in this program lacks a feature that schemas in
// the field use: it would then refuse to write databases that contain it.
func CheckBuild() error {
	var missing []string
	for _, option := range []string{"ENABLE_FTS5", "ENABLE_MATH_FUNCTIONS", "ENABLE_RTREE", "ENABLE_STAT4"} {
		if !compiledWith(option) {
			missing = append(missing, option)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	return fmt.Errorf("sqlite: SQLite %s is built without %s: build with -tags %q",
		Version(), strings.Join(missing, ", "), buildTags)
}

// Version is the version of the SQLite library in this program, such as "3.53.4".
func Version() string { return C.GoString(C.sqlite3_libversion()) }

func compiledWith(option string) bool {
	name := C.CString(option)
	defer C.free(unsafe.Pointer(name))
	return C.sqlite3_compileoption_used(name) != 0
}
