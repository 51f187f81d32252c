package primary

import (
	"errors"
	"fmt"
	"io/fs"

	"github.com/sqlite-replicator/replicator/internal/sqlite"
	"github.com/sqlite-replicator/replicator/internal/sqlitefile"
)

// errUnfit wraps what Run ends with at the start, where Options.Only is set.
var errUnfit = errors.New("cannot be captured as it is")

// unfit wraps err, met before the first term, in errUnfit if it is wrong by
// itself: to wait for it to pass would only hide it. Otherwise it gives nil. A
// missing file, a full disk and a writer that takes long do pass. One that keeps
// everybody out had lockPatience.
func unfit(err error) error {
	switch {
	case errors.Is(err, errAbsent), errors.Is(err, errReplaced):
		return nil
	case errors.Is(err, sqlitefile.ErrCorrupt), errors.Is(err, errInconsistent), sqlite.IsCorrupt(err):
		return fmt.Errorf("%w: %w; it is damaged or encrypted: look at it with PRAGMA integrity_check, or set path to another", errUnfit, err)
	case errors.Is(err, ErrNotDatabase), errors.Is(err, errExclusive), errors.Is(err, errReservedName), errors.Is(err, errNotWAL),
		errors.Is(err, fs.ErrPermission), sqlite.IsCantOpen(err), sqlite.IsReadOnly(err):
		return fmt.Errorf("%w: %w", errUnfit, err)
	}
	return nil
}

// Worked reports whether the pipeline has been in order since it was made: the
// database was captured, and the stream taken up.
func (p *Pipeline) Worked() bool { return p.captured.Load() && p.shipped.Load() }

// named is what an operator calls the stream, after a space; "" where it has no
// name.
func named(s Stream) string {
	if n, ok := s.(interface{ Name() string }); ok {
		return " " + n.Name()
	}
	return ""
}
