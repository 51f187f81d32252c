package primary

import (
	"testing"
	"time"

	"github.com/sqlite-replicator/replicator/snapshot"
)

// TestAStateBeginsWhenItBegins: not when somebody looks first, and anew where it was
// another in between that nobody saw.
func TestAStateBeginsWhenItBegins(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	b := newBench(t, oneTable)
	b.edit = func(o *Options) { o.Clock = func() time.Time { return now } }
	b.store = snapshot.NewDir(t.TempDir())
	p, err := New(b.options())
	noError(t, err)
	p.status.trouble(troubleShip, ErrFenced)
	began := now
	now = now.Add(8 * time.Hour) // nobody looks over night
	if s := p.Status(); s.State != StateFenced || !s.Since.Equal(began) {
		t.Errorf("%s since %v, began %v", s.State, s.Since, began)
	}
	p.status.trouble(troubleShip, nil)
	now = now.Add(time.Hour)
	p.status.trouble(troubleShip, ErrFenced)
	if s := p.Status(); !s.Since.Equal(now) {
		t.Errorf("%s since %v; it was well in between, and is so since %v", s.State, s.Since, now)
	}
}
