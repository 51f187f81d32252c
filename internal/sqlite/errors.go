package sqlite

// #include "conn.h"
import "C"

import (
	"errors"
	"fmt"
	"regexp"
)

// ErrClosed is returned by every method of a closed connection.
var ErrClosed = errors.New("sqlite: connection is closed")

// ErrNoTransaction is wrapped when a write met no open transaction: see OnlyCommit.
var ErrNoTransaction = errors.New("no transaction is open: an error before this one has ended it")

// Primary result codes that callers branch on (https://www.sqlite.org/rescode.html).
const (
	codeError      = 1
	codeBusy       = 5
	codeLocked     = 6
	codeNoMem      = 7
	codeReadOnly   = 8
	codeInterrupt  = 9
	codeIO         = 10
	codeCorrupt    = 11
	codeFull       = 13
	codeCantOpen   = 14
	codeProtocol   = 15
	codeConstraint = 19
	codeNotADB     = 26

	codeConstraintCommit     = codeConstraint | 2<<8 // a commit hook refused
	codeConstraintPrimaryKey = codeConstraint | 6<<8
	codeConstraintUnique     = codeConstraint | 8<<8
	codeConstraintRowid      = codeConstraint | 10<<8
)

// An Error is a result code of SQLite with the connection's message. It never
// holds SQL arguments or row values.
type Error struct {
	Op       string // what this package was doing: "open", "exec", "apply"
	Code     int    // primary result code
	Extended int    // extended result code
	Message  string // SQLite's own words
}

func (e *Error) Error() string {
	return fmt.Sprintf("sqlite: %s: %s (code %d)", e.Op, e.Message, e.Extended)
}

// IsBusy reports whether another connection held a lock for longer than
// Options.BusyTimeout (SQLITE_BUSY), or this connection's own transaction or
// shared cache stood in the way (SQLITE_LOCKED).
func IsBusy(err error) bool { return hasCode(err, codeBusy, codeLocked) }

// IsNotADatabase reports whether the file is not a SQLite database.
func IsNotADatabase(err error) bool { return hasCode(err, codeNotADB) }

// IsCorrupt reports whether SQLite found the file malformed.
func IsCorrupt(err error) bool { return hasCode(err, codeCorrupt) }

// IsCantOpen reports whether the file is missing or may not be opened.
func IsCantOpen(err error) bool { return hasCode(err, codeCantOpen) }

// IsFull reports whether the disk, or the database's own page limit, is full.
func IsFull(err error) bool { return hasCode(err, codeFull) }

// IsReadOnly reports whether the connection, file or file system forbids writing.
func IsReadOnly(err error) bool { return hasCode(err, codeReadOnly) }

// Passes reports whether the same call may succeed later: another connection, the
// disk, its file system or the memory stood in the way, and not what the file holds.
func Passes(err error) bool {
	return hasCode(err, codeBusy, codeLocked, codeNoMem, codeReadOnly, codeIO, codeFull, codeCantOpen, codeProtocol)
}

// IsInterrupted reports whether Conn.Interrupt or a context ended the call.
func IsInterrupted(err error) bool { return hasCode(err, codeInterrupt) }

// IsConstraint reports whether any constraint stopped a write.
func IsConstraint(err error) bool { return hasCode(err, codeConstraint) }

// IsUnique reports whether a UNIQUE or PRIMARY KEY constraint or a rowid that
// is already taken stopped a write.
func IsUnique(err error) bool {
	var e *Error
	if !errors.As(err, &e) {
		return false
	}
	switch e.Extended {
	case codeConstraintPrimaryKey, codeConstraintUnique, codeConstraintRowid:
		return true
	}
	return false
}

func hasCode(err error, codes ...int) bool {
	var e *Error
	if !errors.As(err, &e) {
		return false
	}
	for _, c := range codes {
		if e.Code == c {
			return true
		}
	}
	return false
}

// fail turns a result code of c's last call into an error.
func (c *Conn) fail(op string, rc C.int) error {
	if rc == C.SQLITE_OK {
		return nil
	}
	if rc == codeConstraintCommit {
		return fmt.Errorf("sqlite: %s: %w", op, ErrNoTransaction)
	}
	e := &Error{Op: op, Code: int(rc) & 0xff, Extended: int(rc), Message: C.GoString(C.sqlite3_errstr(rc))}
	// The connection's message belongs to rc only while its own code says so.
	if c.db != nil && int(C.sqlite3_errcode(c.db))&0xff == e.Code {
		e.Extended = int(C.sqlite3_extended_errcode(c.db))
		e.Message = C.GoString(C.sqlite3_errmsg(c.db))
	}
	if e.Code == codeCorrupt {
		e.Message = fromSchema.ReplaceAllString(e.Message, "…")
	}
	return e
}

// fromSchema is what SQLite quotes from a schema that makes no sense. In a damaged file it
// may be a row of some table.
var fromSchema = regexp.MustCompile(`(?s)\(.*\)|".*"`)
