package replica

import (
	"errors"
	"strings"
	"testing"

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
