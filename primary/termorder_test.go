package primary

import (
	"testing"

	"github.com/sqlite-replicator/replicator/cdc"
)

// A notedLog checks that each term was noted on the disk before a record of it is
// appended.
type notedLog struct {
	*memoryLog
	t    *testing.T
	dir  string
	seen int
}

func (l *notedLog) Append(rec []byte, h cdc.Head, b *cdc.Boundary) error {
	noted, err := openTerms(l.dir, "node", testLogger())
	noError(l.t, err)
	if l.seen++; !noted.has(b.Term) {
		l.t.Errorf("record %d is of a term that is not noted", h.LSN)
	}
	return l.memoryLog.Append(rec, h, b)
}

// TestTermIsNotedBeforeItsRecords: a record of a term that is not noted would be taken for
// another primary's.
func TestTermIsNotedBeforeItsRecords(t *testing.T) {
	dir := t.TempDir()
	log := &notedLog{newMemoryLog(newLedger().visit), t, dir, 0}
	terms, err := openTerms(dir, "node", testLogger())
	noError(t, err)
	_, err = startWith(t, makeSource(t, "PRAGMA journal_mode=WAL; CREATE TABLE t(v)"), log, func(s *captureSetup) {
		s.terms = terms
	})
	noError(t, err)
	if log.seen == 0 {
		t.Error("nothing was appended")
	}
}
