package primary

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"path/filepath"
	"sort"

	"github.com/sqlite-replicator/replicator/cdc"
	"github.com/sqlite-replicator/replicator/snapshot"
	"github.com/sqlite-replicator/replicator/wal"
)

// errBehind means that the stream holds records that this node wrote and its
// change log has lost. They are taken back when the log is opened again.
var errBehind = errors.New("the change log has lost records that the stream still has")

// errGaveWay: where the stream's records go on is older than what was captured, of which a
// part may be in no frame: the difference that a doubt has led to.
var errGaveWay = errors.New("captured records gave way to those of the stream")

// A recovery takes back from the stream what the change log has lost: its tail,
// or all of it. Records are ours if every one of them is of a term that this
// node began; one that is not makes the whole of them foreign.
//
// It runs before a term begins, since the first record of a term takes the
// number of a lost one. Where NATS did not answer then, the shipper finds out
// later (errBehind), and what was captured meanwhile gives way: no record of it
// was published, and the resync that follows finds its effect in the source.
type recovery struct {
	stream    Stream
	snapshots snapshot.Store
	terms     *terms
	logger    *slog.Logger
}

// A loss is what the change log lacks of the stream's records.
type loss struct {
	keep cdc.LSN  // records of the change log up to here are the stream's
	last cdc.LSN  // up to here the stream goes on, with records of ours
	base cdc.Tail // to go on from where keep is 0 and the stream does not begin at 1
	cut  bool     // the change log ends above keep
}

// find compares log with the stream. It gives nil when nothing is lost, or when
// the stream holds something foreign: that is for the shipper to say.
func (r *recovery) find(ctx context.Context, log *wal.Log, state StreamState) (*loss, error) {
	if !state.Exists || state.Messages == 0 || state.Last < log.First() {
		return nil, nil
	}
	agree, err := r.agree(ctx, log, state)
	if err != nil || agree >= state.Last {
		return nil, err
	}
	l := &loss{keep: agree, last: state.Last, cut: log.Last() > agree}
	from, own := agree+1, r.terms.has(log.Tail().Boundary.Term)
	if agree == 0 && state.First > 1 { // nothing to continue: begin where the stream does
		if l.base, err = r.base(ctx, state); err != nil || l.base.Next == 0 {
			return nil, err
		}
		if from, own = l.base.Next, r.terms.has(l.base.Boundary.Term); !own {
			return nil, nil
		}
	}
	ours, err := r.ours(ctx, own, state, from)
	if err != nil || !ours {
		return nil, err
	}
	return l, nil
}

// agree is the last record that the change log and the stream have in common, 0
// if there is none. A history that agrees in one record agrees in all before it.
func (r *recovery) agree(ctx context.Context, log *wal.Log, state StreamState) (cdc.LSN, error) {
	first, last := log.First(), log.Durable()
	if first == 0 || last+1 < state.First || state.Last < first {
		return 0, nil
	}
	if last+1 == state.First {
		next, err := r.boundary(ctx, state, state.First)
		if err != nil || next != nil && next.Kind != cdc.Break && next.Boundary.Prev != log.Tail().Position.Hash {
			return 0, err
		}
		return last, nil // a break does not say what was before, but nor does anything else
	}
	low, high := max(first, state.First), min(last, state.Last)
	var failed error
	same := func(lsn cdc.LSN) bool {
		ours, err := log.Record(lsn)
		if err == nil {
			var theirs []byte
			if theirs, err = recordAt(ctx, r.stream, state, lsn); err == nil {
				return bytes.Equal(ours, theirs)
			}
		}
		failed = err
		return false
	}
	if same(high) { // as ever
		return high, nil
	}
	n := sort.Search(int(high-low), func(i int) bool { return failed != nil || !same(low+cdc.LSN(i)) })
	switch {
	case failed != nil:
		return 0, failed
	case n == 0:
		return 0, nil
	}
	return low + cdc.LSN(n) - 1, nil
}

// ours reports whether every record of the stream from an LSN on is of a term that
// began here. Parts are of the term of the boundary before them, of which own says it:
// another primary begins with an epoch record.
func (r *recovery) ours(ctx context.Context, own bool, state StreamState, from cdc.LSN) (bool, error) {
	var epoch cdc.Epoch // of the last boundary seen
	for lsn := from; lsn <= state.Last; lsn++ {
		rec, err := r.record(ctx, state, lsn)
		if err != nil || rec == nil {
			return false, err
		}
		switch {
		case rec.Boundary != nil && !r.terms.has(rec.Boundary.Term):
			return false, nil
		case rec.Boundary != nil:
			epoch, own = rec.Epoch, true
		case epoch != 0 && rec.Epoch != epoch:
			return false, nil
		}
	}
	return own, nil
}

// record reads one record of the stream; nil is one that nobody of us wrote.
func (r *recovery) record(ctx context.Context, state StreamState, lsn cdc.LSN) (*cdc.Record, error) {
	b, err := recordAt(ctx, r.stream, state, lsn)
	if err != nil || b == nil {
		return nil, err
	}
	rec, err := cdc.DecodeBoundary(b)
	if err != nil || rec.LSN != lsn {
		return nil, nil
	}
	return &rec, nil
}

// boundary is the first boundary record of the stream from an LSN on; nil if there is none
// above what nobody of us wrote.
func (r *recovery) boundary(ctx context.Context, state StreamState, from cdc.LSN) (*cdc.Record, error) {
	for lsn := from; lsn <= state.Last; lsn++ {
		if rec, err := r.record(ctx, state, lsn); err != nil || rec == nil || rec.Boundary != nil {
			return rec, err
		}
	}
	return nil, nil
}

// base is the end of a history that a change log without a record can go on
// from: the first boundary in the stream. Its hash is in the boundary after it,
// if that is no break, or, as the stream begins where a snapshot is, in that. A
// zero base means that neither is there.
func (r *recovery) base(ctx context.Context, state StreamState) (cdc.Tail, error) {
	first, err := r.boundary(ctx, state, state.First)
	if err != nil || first == nil {
		return cdc.Tail{}, err
	}
	t := cdc.Tail{
		Position: cdc.Position{Lineage: first.Boundary.Lineage, Epoch: first.Epoch, LSN: first.LSN},
		Boundary: *first.Boundary, Next: first.LSN + 1,
	}
	next, err := r.boundary(ctx, state, t.Next)
	if err != nil {
		return cdc.Tail{}, err
	}
	if next != nil && next.Kind != cdc.Break {
		return withHash(t, next.Boundary.Prev), nil
	}
	list, err := snapshot.List(ctx, r.snapshots)
	if err != nil && list == nil {
		return cdc.Tail{}, err
	}
	for _, m := range list {
		if p := m.Position; p.LSN == t.Position.LSN && p.Lineage == t.Position.Lineage && p.Epoch == t.Position.Epoch &&
			(m.Term == t.Boundary.Term || m.Term == (cdc.ID{})) {
			return withHash(t, p.Hash), nil
		}
	}
	return cdc.Tail{}, nil
}

func withHash(t cdc.Tail, h cdc.Hash) cdc.Tail {
	t.Position.Hash, t.Chain = h, cdc.ChainAt(h)
	return t
}

// take appends what l says is lost. It is durable when take returns.
func (r *recovery) take(ctx context.Context, log *wal.Log, l *loss) error {
	if l.base.Next != 0 {
		if err := log.Adopt(l.base); err != nil {
			return err
		}
	}
	for lsn := log.Last() + 1; lsn <= l.last; lsn++ {
		b, err := r.stream.Get(ctx, lsn)
		if err != nil {
			return err
		}
		rec, err := cdc.DecodeBoundary(b)
		if err != nil {
			return err
		}
		if err := log.Append(b, rec.Head, rec.Boundary); err != nil {
			return err
		}
	}
	return log.Sync()
}

// hashAt is the chain hash at a boundary record, which covers the parts before it;
// zero at what is no record of ours, no boundary, or, by fs.ErrNotExist, not there.
func hashAt(at cdc.LSN, get func(cdc.LSN) ([]byte, error)) (cdc.Hash, error) {
	first := at
	for first > 1 {
		b, err := get(first - 1)
		if errors.Is(err, fs.ErrNotExist) {
			break
		}
		if err != nil {
			return cdc.Hash{}, err
		}
		if h, err := cdc.ParseHead(b); err != nil || h.Kind.Boundary() {
			break
		}
		first--
	}
	var c cdc.Chain
	var hash cdc.Hash
	for lsn := first; lsn <= at; lsn++ {
		b, err := get(lsn)
		if errors.Is(err, fs.ErrNotExist) {
			return cdc.Hash{}, nil
		}
		if err != nil {
			return cdc.Hash{}, err
		}
		h, err := cdc.Check(b)
		if err != nil {
			return cdc.Hash{}, err
		}
		if lsn == at && !h.Kind.Boundary() {
			return cdc.Hash{}, nil
		}
		hash = c.Add(b, h.Kind)
	}
	return hash, nil
}

// strangers reports a snapshot of another history at an LSN where a stream without a
// record ends: whoever emptied it has made one there, and nothing else is left to tell
// whose it is. One of a later version of the format may be anybody's.
func (r *recovery) strangers(ctx context.Context, log *wal.Log, at cdc.LSN) (bool, error) {
	list, err := snapshot.At(ctx, r.snapshots, at)
	if list == nil || errors.Is(err, snapshot.ErrVersion) {
		return false, err
	}
	for _, m := range list {
		if strange, err := r.stranger(log, m); err != nil || strange {
			return strange, err
		}
	}
	return false, nil
}

// strangeBelow reports whether a boundary record below the change log, where no bytes are
// left to compare, is another primary's: of another lineage, of a later epoch than the
// first record that is left, or of a term that this node did not begin. An unknown term
// is zero.
//
// The end of the change log does not serve: a new term of ours may be of the same epoch.
func strangeBelow(log *wal.Log, r *recovery, lineage, term cdc.ID, epoch cdc.Epoch) (bool, error) {
	if lineage != log.Tail().Position.Lineage {
		return true, nil
	}
	rec, err := log.Record(log.First())
	if err != nil {
		return false, err
	}
	first, err := cdc.ParseHead(rec)
	if err != nil {
		return false, err
	}
	return epoch > first.Epoch || r != nil && term != (cdc.ID{}) && r.terms.strange(term, epoch), nil
}

// openLog opens the change log and takes back what only the stream still has of
// it. Where the stream cannot be asked, the shipper will: the application's
// changes do not wait for NATS.
func (p *Pipeline) openLog(ctx context.Context) (log *wal.Log, err error) {
	dir := filepath.Join(p.o.Dir, "log")
	o := wal.Options{FS: p.o.ChangeLog.FS, SegmentBytes: p.o.ChangeLog.SegmentBytes, NoSync: p.o.ChangeLog.NoSync, Logger: p.o.Logger}
	if log, err = wal.Open(dir, o); err != nil {
		return nil, fmt.Errorf("%w: %w", errLog, err)
	}
	defer func() {
		if err != nil && log != nil {
			err = errors.Join(err, log.Close())
			log = nil
		}
	}()
	r := p.recovery()
	state, err := p.o.Stream.State(ctx)
	if err != nil {
		return log, nil // the shipper says why
	}
	lost, err := r.find(ctx, log, state)
	if err != nil || lost == nil {
		if err != nil {
			p.o.Logger.Warn("the change log could not be compared with the stream yet", "err", err)
		}
		return log, nil
	}
	p.o.Logger.Warn("the change log has lost its last records; they are taken back from the stream",
		"lsn", log.Last(), "agrees_to", lost.keep, "stream_last", lost.last)
	if lost.cut {
		p.gaveWay.Add(1)
		defer p.changed.notify()
		err := p.doubts.raise(errGaveWay, nil)
		err = errors.Join(err, log.Close())
		log = nil
		if err == nil {
			err = wal.Cut(dir, lost.keep, o)
		}
		if err == nil {
			log, err = wal.Open(dir, o)
		}
		if err != nil {
			return log, fmt.Errorf("%w: %w", errLog, err)
		}
	}
	if err := r.take(ctx, log, lost); err != nil {
		return log, fmt.Errorf("take records back from the stream: %w", err)
	}
	return log, nil
}

func (p *Pipeline) recovery() *recovery {
	return &recovery{stream: p.o.Stream, snapshots: p.o.Snapshots, terms: p.terms, logger: p.o.Logger}
}
