package replica

import "testing"

// TestForkWithoutARecord: the primary has another record where the replica is, and
// nothing follows that would not fit.
func TestForkWithoutARecord(t *testing.T) {
	g := newRig(t, "CREATE TABLE t(a)")
	seeded := make(chan struct{}, 1)
	g.on("replica file seeded again", func() { seeded <- struct{}{} })
	g.start()
	g.step("INSERT INTO t VALUES(1)")
	g.equal()
	g.r.Heard(Heartbeat{Position: g.mark().Position, Published: g.mark().LSN, SentAt: testTime})
	g.step("INSERT INTO t VALUES(2)")
	g.equal()
	select {
	case <-seeded:
		t.Fatal("seeded again, and the histories are the same")
	default:
	}
	g.snaps.add(g.snapshot())
	at := g.mark().Position
	at.Hash[0] ^= 1
	g.r.Heard(Heartbeat{Position: at, Published: at.LSN, SentAt: testTime})
	g.until(seeded)
	g.r.Heard(Heartbeat{Position: g.mark().Position, Published: at.LSN, SentAt: testTime})
	g.step("INSERT INTO t VALUES(3)")
	g.snaps.add(g.snapshot())
	g.equal()
}
