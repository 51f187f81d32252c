package replica

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sqlite-replicator/replicator/cdc"
	"github.com/sqlite-replicator/replicator/internal/sqlite"
)

// TestUnreadablePosition: nothing can be concluded from it, and it does not heal.
func TestUnreadablePosition(t *testing.T) {
	g := newRig(t, "CREATE TABLE t(a)")
	g.snaps.add(g.snapshot())
	c, err := sqlite.Open(g.o.Path, sqlite.Options{Create: true})
	must(t, err)
	must(t, errors.Join(createTables(c), c.Exec("INSERT INTO _replicator_position VALUES(1,'',1,1,'none',0,0,'','')"), c.Close()))
	r, err := New(g.o)
	must(t, err)
	if err := r.Run(g.ctx); !errors.Is(err, errUnreadable) || !strings.Contains(err.Error(), "remove the file") {
		t.Errorf("Run: %v", err)
	}
	if s := r.Status().State; s != Failed {
		t.Errorf("it is %s", s)
	}
}

// TestPositionMovesFromWhereItWas: a second writer that has moved it, or taken it away,
// does not go unnoticed.
func TestPositionMovesFromWhereItWas(t *testing.T) {
	c, err := sqlite.Open(filepath.Join(t.TempDir(), "replica.db"), sqlite.Options{Create: true})
	must(t, err)
	defer func() { must(t, c.Close()) }()
	mark := func(lsn cdc.LSN, hash byte) Mark {
		return Mark{Position: cdc.Position{Lineage: cdc.ID{1}, Epoch: 1, LSN: lsn, Hash: cdc.Hash{hash}}}
	}
	must(t, errors.Join(createTables(c), setPosition(c, mark(5, 5), testTime)))
	for _, from := range []Mark{mark(4, 5), mark(5, 4)} {
		if err := advance(c, from, mark(6, 6), testTime); !errors.Is(err, errMoved) {
			t.Errorf("from %v: %v", from.Position, err)
		}
	}
	must(t, advance(c, mark(5, 5), mark(6, 6), testTime))
	must(t, c.Exec("DELETE FROM _replicator_position"))
	if err := advance(c, mark(6, 6), mark(7, 7), testTime); !errors.Is(err, errMoved) {
		t.Errorf("from nowhere: %v", err)
	}
}
