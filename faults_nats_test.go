package replicator_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/sqlite-replicator/replicator/cdc"
	"github.com/sqlite-replicator/replicator/primary"
	"github.com/sqlite-replicator/replicator/replica"
	"github.com/sqlite-replicator/replicator/snapshot"
	"github.com/sqlite-replicator/replicator/stream"
)

// TestNATSAway: the application goes on, both sides say that they are cut off,
// and go on by themselves when NATS is back, whatever is left of it.
func TestNATSAway(t *testing.T) {
	for _, c := range []struct {
		name string
		wipe bool
	}{{"killed", false}, {"wiped", true}} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			p := newPlant(t, 101)
			p.tuning.changeLog = tight().changeLog // it no longer begins with record 1
			f := p.begin()
			p.killNATS()
			p.primaryIs(primary.StateOffline)
			f.is(replica.Offline)
			if !c.wipe { // it takes five seconds
				f.lagUnknown()
			}
			before := p.pipeline.Status().LSN
			p.app.do(30)
			p.soon("the capture goes on", patience, func() bool { return p.pipeline.Status().LSN.Durable > before.Durable })
			if after := p.pipeline.Status().LSN; after.Published != before.Published {
				p.fail("published %d, then %d, with NATS away", before.Published, after.Published)
			}
			if c.wipe {
				p.must(os.RemoveAll(p.store))
			}
			p.startNATS()
			p.clock.advance(longAgo) // what failed meanwhile is tried again
			p.healed(f)
		})
	}
}

// TestStreamTampered: somebody else does to the stream what operators can do.
// What is lost there is published again or bridged by a snapshot.
func TestStreamTampered(t *testing.T) {
	for _, c := range []struct {
		name   string
		tamper func(p *plant, s *stream.Stream) error
	}{
		{"deleted", func(p *plant, s *stream.Stream) error { return s.Delete(p.ctx) }},
		{"purged", func(p *plant, s *stream.Stream) error { return purgeByHand(p, s.Name()) }},
		{"created again, lower", func(p *plant, s *stream.Stream) error {
			return errors.Join(s.Delete(p.ctx), s.Create(p.ctx, 1))
		}},
		{"created again, empty", func(p *plant, s *stream.Stream) error {
			i, err := s.Info(p.ctx)
			return errors.Join(err, s.Delete(p.ctx), s.Create(p.ctx, i.Last+1))
		}},
	} {
		for _, away := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, replica away %t", c.name, away), func(t *testing.T) {
				t.Parallel()
				p := newPlant(t, 102)
				p.tuning.changeLog = tight().changeLog
				f := p.begin()
				if away {
					f.stop()
					p.app.do(40)
					_, err := p.pipeline.Sync(p.ctx)
					p.must(err)
				}
				p.must(c.tamper(p, p.connect("foreigner", p.url).Stream("app", p.stream)))
				p.clock.advance(longAgo) // the newest snapshot is not from a moment ago
				p.app.do(20)
				if away {
					f.start()
				}
				p.healed(f)
			})
		}
	}
}

// purgeByHand does what `nats stream purge` does, which asks nobody whose the stream is.
func purgeByHand(p *plant, name string) error {
	c, err := (&net.Dialer{}).DialContext(p.ctx, "tcp", strings.TrimPrefix(p.url, "nats://"))
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }()
	if _, err := fmt.Fprintf(c, "CONNECT {}\r\nSUB answer 1\r\nPUB $JS.API.STREAM.PURGE.%s answer 0\r\n\r\n", name); err != nil {
		return err
	}
	for lines := bufio.NewScanner(c); lines.Scan(); {
		if strings.Contains(lines.Text(), `"success":true`) {
			return nil
		}
	}
	return fmt.Errorf("%s was not purged", name)
}

// TestStreamTaken: a foreign record in the stream is left alone, and said.
func TestStreamTaken(t *testing.T) {
	t.Parallel()
	p := newPlant(t, 103)
	f := p.begin()
	foreigner := p.connect("foreigner", p.url).Stream("app", p.stream)
	i, err := foreigner.Info(p.ctx)
	p.must(err)
	ctx, cancel := context.WithCancel(p.ctx)
	defer cancel()
	err = foreigner.Publish(ctx, i.Last, func(ctx context.Context) ([]byte, cdc.LSN, error) {
		if i.Last++; ctx.Err() == nil && i.Last == f.Status().Applied.LSN+1 {
			return []byte("what is this?"), i.Last, nil
		}
		return nil, 0, io.EOF
	}, func(cdc.LSN) {})
	if !errors.Is(err, io.EOF) {
		p.fail("the foreigner cannot publish: %v", err)
	}
	if err := p.fate(p.running); !errors.Is(err, primary.ErrFenced) || !strings.Contains(err.Error(), "nats stream rm") {
		p.fail("the primary ended with %v", err)
	}
	p.primaryIs(primary.StateFenced)
	p.app.do(20) // does not wait for us
	if got, err := foreigner.Get(p.ctx, i.Last-1); err != nil || string(got) != "what is this?" {
		p.fail("the foreign record is %q, %v", got, err)
	}
	// What the error says resolves it.
	p.must(foreigner.Delete(p.ctx))
	p.startPrimary()
	p.clock.advance(longAgo)
	p.healed(f)
}

// A tampering sits between NATS and a replica and changes what is delivered.
type tampering struct {
	replica.Stream
	change func(lsn cdc.LSN, rec []byte, handle func([]byte, cdc.LSN) error) error
}

func (s tampering) Consume(ctx context.Context, from cdc.LSN, handle func([]byte, cdc.LSN, uint64) error) error {
	return s.Stream.Consume(ctx, from, func(rec []byte, lsn cdc.LSN, pending uint64) error {
		return s.change(lsn, rec, func(rec []byte, lsn cdc.LSN) error { return handle(rec, lsn, pending) })
	})
}

// TestDeliveries: whatever arrives in place of the records, no row of it stays.
func TestDeliveries(t *testing.T) {
	flipped := func(rec []byte) []byte {
		rec = bytes.Clone(rec)
		rec[len(rec)/2] ^= 0x10
		return rec
	}
	for _, c := range []struct {
		name    string
		reseeds bool
		change  func(once *sync.Once, rec []byte, lsn cdc.LSN, handle func([]byte, cdc.LSN) error) error
	}{
		{"damaged on the way", false, func(once *sync.Once, rec []byte, lsn cdc.LSN, handle func([]byte, cdc.LSN) error) error {
			once.Do(func() { rec = flipped(rec) })
			return handle(rec, lsn)
		}},
		{"damaged for good", true, func(_ *sync.Once, rec []byte, lsn cdc.LSN, handle func([]byte, cdc.LSN) error) error {
			return handle(flipped(rec), lsn)
		}},
		{"cut short", true, func(_ *sync.Once, rec []byte, lsn cdc.LSN, handle func([]byte, cdc.LSN) error) error {
			return handle(rec[:len(rec)-1], lsn)
		}},
		{"missing", true, func(*sync.Once, []byte, cdc.LSN, func([]byte, cdc.LSN) error) error { return nil }},
		{"twice", true, func(once *sync.Once, rec []byte, lsn cdc.LSN, handle func([]byte, cdc.LSN) error) (err error) {
			once.Do(func() { err = handle(rec, lsn) })
			return errors.Join(err, handle(rec, lsn))
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			p := newPlant(t, 104)
			var armed atomic.Uint64 // the record that is concerned
			var once sync.Once
			p.consuming = func(s replica.Stream) replica.Stream {
				return tampering{s, func(lsn cdc.LSN, rec []byte, handle func([]byte, cdc.LSN) error) error {
					if at := armed.Load(); at == 0 || lsn != cdc.LSN(at) {
						return handle(rec, lsn)
					}
					return c.change(&once, rec, lsn, handle)
				}}
			}
			f := p.begin()
			p.consuming = func(s replica.Stream) replica.Stream { return s } // of the one that comes later
			armed.Store(uint64(p.pipeline.Status().LSN.Published) + 1)
			p.app.do(20)
			p.clock.advance(longAgo)
			p.healed(f)
			if n := f.Status().Counters.Reseeds; (n > 0) != c.reseeds {
				p.fail("seeded again %d times, want some: %t", n, c.reseeds)
			}
		})
	}
}

// TestDeliveriesOutOfOrder exchanges two records.
func TestDeliveriesOutOfOrder(t *testing.T) {
	t.Parallel()
	p := newPlant(t, 105)
	var armed atomic.Bool
	var held []byte
	p.consuming = func(s replica.Stream) replica.Stream {
		return tampering{s, func(lsn cdc.LSN, rec []byte, handle func([]byte, cdc.LSN) error) error {
			if held != nil {
				first := held
				held = nil
				return errors.Join(handle(rec, lsn), handle(first, lsn-1))
			}
			if armed.CompareAndSwap(true, false) {
				held = bytes.Clone(rec)
				return nil
			}
			return handle(rec, lsn)
		}}
	}
	f := p.begin()
	p.consuming = func(s replica.Stream) replica.Stream { return s } // of the one that comes later
	armed.Store(true)
	p.app.do(20)
	p.clock.advance(longAgo)
	p.healed(f)
	if n := f.Status().Counters.Reseeds; n == 0 {
		p.fail("the exchange was not noticed")
	}
}

// TestSlowLink: a replica that cannot keep up says how far it is behind.
func TestSlowLink(t *testing.T) {
	t.Parallel()
	p := newPlant(t, 106)
	slow := make(chan struct{})
	var once sync.Once
	var on atomic.Bool
	p.consuming = func(s replica.Stream) replica.Stream {
		return tampering{s, func(lsn cdc.LSN, rec []byte, handle func([]byte, cdc.LSN) error) error {
			if on.Load() {
				<-slow
			}
			return handle(rec, lsn)
		}}
	}
	release := func() { once.Do(func() { close(slow) }) }
	t.Cleanup(release)
	f := p.begin()
	on.Store(true)
	p.app.do(30)
	_, err := p.pipeline.Sync(p.ctx)
	p.must(err)
	p.soon("the lag is known", promptly, func() bool {
		l := f.Status().Lag
		return l.Transactions > 20 && l.Seconds != nil && *l.Seconds > 0
	})
	release()
	p.healed(f)
	if n := f.Status().Counters.Reseeds; n != 0 {
		p.fail("seeded again %d times because of a slow link", n)
	}
}

// Losses are of every second request or, when it happened, of the answer.
type losses struct {
	happened bool
	mu       sync.Mutex
	calls    map[string]int // of each kind
}

func (l *losses) try(kind string, do func() error) error {
	l.mu.Lock()
	l.calls[kind]++
	lost := l.calls[kind]%2 == 1
	l.mu.Unlock()
	if !lost {
		return do()
	}
	if l.happened {
		if err := do(); err != nil {
			return err
		}
	}
	return fmt.Errorf("lost on purpose: %w", stream.ErrUnavailable)
}

// A lossyStore stands between a primary and its snapshots.
type lossyStore struct {
	*losses
	snapshot.Store
}

func (s lossyStore) Put(ctx context.Context, name string, data []byte) error {
	return s.try("put", func() error { return s.Store.Put(ctx, name, data) })
}

// A lossy stands between a primary and its stream.
type lossy struct {
	*losses
	primary.Stream
}

func (s lossy) State(ctx context.Context) (i primary.StreamState, err error) {
	err = s.try("state", func() error { i, err = s.Stream.State(ctx); return err })
	return i, err
}

func (s lossy) Create(ctx context.Context, first cdc.LSN) error {
	return s.try("create", func() error { return s.Stream.Create(ctx, first) })
}

func (s lossy) PurgeBelow(ctx context.Context, lsn cdc.LSN) error {
	return s.try("purge", func() error { return s.Stream.PurgeBelow(ctx, lsn) })
}

func (s lossy) PurgeThrough(ctx context.Context, after, lsn cdc.LSN) error {
	return s.try("purge", func() error { return s.Stream.PurgeThrough(ctx, after, lsn) })
}

// Publish breaks after a few records. When they happened, their acknowledgements
// are lost.
func (s lossy) Publish(ctx context.Context, after cdc.LSN, next func(context.Context) ([]byte, cdc.LSN, error), acked func(cdc.LSN)) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	n := 0
	return s.Stream.Publish(ctx, after, next, func(lsn cdc.LSN) {
		if n++; s.happened || n == 3 {
			cancel(fmt.Errorf("lost on purpose: %w", stream.ErrUnavailable))
		} else {
			acked(lsn)
		}
	})
}

// TestAnswersLost: a request that failed and one that only seems to have are
// made good alike.
func TestAnswersLost(t *testing.T) {
	for _, happened := range []bool{false, true} {
		t.Run(fmt.Sprintf("happened %t", happened), func(t *testing.T) {
			t.Parallel()
			p := newPlant(t, 107)
			l := &losses{happened: happened, calls: map[string]int{}}
			p.publishing = func(s primary.Stream) primary.Stream { return lossy{l, s} }
			p.objects = func(s snapshot.Store) snapshot.Store { return lossyStore{l, s} }
			f := p.begin()
			p.clock.advance(longAgo)
			p.healed(f)
		})
	}
}

// TestSnapshotDamaged: what is wrong with the only snapshot is no matter of the
// replicas that run, and new ones get another one.
func TestSnapshotDamaged(t *testing.T) {
	for _, c := range []struct {
		name, object string
		damage       func(p *plant, o *stream.Objects, name string) error
	}{
		{"chunk missing", "chunk-000001", func(p *plant, o *stream.Objects, name string) error { return o.Delete(p.ctx, name) }},
		{"chunk damaged", "chunk-000001", func(p *plant, o *stream.Objects, name string) error {
			b, err := o.Get(p.ctx, name)
			if err != nil {
				return err
			}
			b[len(b)/2] ^= 1
			return o.Put(p.ctx, name, b)
		}},
		{"manifest missing", "manifest.json", func(p *plant, o *stream.Objects, name string) error { return o.Delete(p.ctx, name) }},
		{"manifest damaged", "manifest.json", func(p *plant, o *stream.Objects, name string) error { return o.Put(p.ctx, name, []byte("{}")) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			p := newPlant(t, 110)
			f := p.begin()
			o := p.connect("foreigner", p.url).Objects("app", 1)
			names, err := o.List(p.ctx, "")
			p.must(err)
			done := 0
			for _, name := range names {
				if strings.HasSuffix(name, c.object) {
					p.must(c.damage(p, o, name))
					done++
				}
			}
			if done == 0 {
				p.fail("no %s among %q", c.object, names)
			}
			p.clock.advance(longAgo)
			p.healed(f)
		})
	}
}

// TestPrimaryBeforeNATS: that a primary is started a moment before its NATS, as
// at a start of the machine, costs no replica a snapshot, and the application
// nothing.
func TestPrimaryBeforeNATS(t *testing.T) {
	t.Parallel()
	dir := folder(t)
	listen, store, source := address(t), filepath.Join(dir, "nats"), filepath.Join(dir, "app.db")
	section := "  url: nats://" + listen + "\n"
	primary := newNode(t, "primary", "primary-1", dir, section, database{"app", source})
	replica := newNode(t, "replica", "replica-1", dir, section, database{"app", filepath.Join(dir, "replica.db")})
	nats := startNATS(t, listen, store)
	shell(t, source, setUp)
	primary.start()
	replica.start()
	insertRows(t, source, "first", 100)
	converge(t, "app", "at first", primary, replica)
	replica.ready()
	primary.ready() // the snapshot is there
	primary.stop()
	if err := nats.kill(); err == nil {
		t.Fatal("NATS had ended by itself")
	}
	insertRows(t, source, "missed", 10) // and takes the SQLite WAL along: nothing can be proved
	primary.start()
	primary.reaches("app", "offline", "")
	insertRows(t, source, "meanwhile", 10)
	if got := shell(t, source, "PRAGMA wal_checkpoint(TRUNCATE)"); !strings.HasPrefix(got, "0|") {
		t.Errorf("the application's checkpoint gave %s", got)
	}
	startNATS(t, listen, store)
	insertRows(t, source, "later", 10)
	converge(t, "app", "NATS is there", primary, replica)
	if log := primary.p.stderr.String(); strings.Contains(log, "history broken") || !strings.Contains(log, "what was missed is captured") {
		t.Errorf("the primary did not find out what was missed:\n%s", log)
	}
}
