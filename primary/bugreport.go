package primary

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"time"

	"github.com/sqlite-replicator/replicator/cdc"
	"github.com/sqlite-replicator/replicator/internal/sqlitefile"
)

// Kinds of failed self-checks, each with a report of its own.
const (
	reportFallback    = "fallback"    // a table was compared whole
	reportUndecodable = "undecodable" // a transaction cannot be decoded
	reportPageMap     = "page-map"    // an inspection found the map of the pages wrong
	reportRowSums     = "row-sums"    // an audit or inspection found the hash of a table wrong
	reportSQLiteWAL   = "sqlite-wal"  // frames that were not decoded are gone, which the pin should prevent
)

const aboutReport = "A self-check of replicator failed, and this is what it saw; replicator went on in a way that does not trust what failed. " +
	"It holds names of tables, and sizes and numbers of pages: no value of a row, no rowid, and no text of the schema. " +
	"Please send it to the project. Damage of the database file can be the cause, too: run PRAGMA integrity_check."

// A bugReport is what a self-check that failed leaves for those who look for the defect.
// Its size is bounded whatever the database holds.
type bugReport struct {
	About      string    `json:"about"`
	Kind       string    `json:"kind"`
	What       string    `json:"what"`
	Table      string    `json:"table,omitempty"`
	Time       time.Time `json:"time"`
	Replicator string    `json:"replicator"`
	SQLite     string    `json:"sqlite"`

	LSN    cdc.LSN     `json:"lsn"` // of the last transaction captured before
	Epoch  cdc.Epoch   `json:"epoch"`
	Source sourceFacts `json:"source"`

	Transaction *transactionFacts `json:"transaction,omitempty"`
	Sums        []sumFacts        `json:"row_set_hashes,omitempty"`
	Frames      []string          `json:"frames,omitempty"`
	evidence
}

// sourceFacts describe the source as it was decoded last.
type sourceFacts struct {
	PageSize int    `json:"page_size"`
	Usable   int    `json:"usable"` // bytes of a page
	Encoding string `json:"encoding"`
	Pages    uint32 `json:"pages"`
	Tables   int    `json:"tables"`
	Frame    uint32 `json:"frame"` // of the SQLite WAL, the last decoded
	Pin      uint32 `json:"pin"`   // frame decoded when the pin was opened
	Settled  bool   `json:"settled"`
}

// transactionFacts describe the transaction in hand.
type transactionFacts struct {
	First   uint32   `json:"first_frame"`
	Last    uint32   `json:"last_frame"`
	Pages   uint32   `json:"pages"`   // of the database after it
	Written []uint32 `json:"written"` // pages, in order
	More    int      `json:"written_left_out,omitempty"`
}

// sumFacts are the two hashes of a table.
type sumFacts struct {
	Table string `json:"table"`
	Root  uint32 `json:"root_page"`
	Have  string `json:"added_up"`
	Want  string `json:"of_its_rows"`
}

// evidence is what is known of pages before and after the transaction in hand.
type evidence struct {
	Map    []string      `json:"map,omitempty"` // what the decoder takes each page for
	Before []pageOutline `json:"before,omitempty"`
	After  []pageOutline `json:"after,omitempty"`
}

const (
	textTold    = 2 << 10 // bytes of an error
	writtenTold = 1000    // pages that a transaction wrote
	framesTold  = 12      // around a place in the SQLite WAL
)

// namedPages finds the pages in the text of an error: errors about damage name them so.
var namedPages = regexp.MustCompile(`pages? ([0-9]{1,10})(?: (?:and|to) ([0-9]{1,10}))?`)

// involved are the pages that an error names and what the map says is above them, then
// others, each once and no more than can be told.
func (d *decoder) involved(because error, others []uint32) (list []uint32) {
	add := func(n uint32) {
		if n != 0 && len(list) < pagesTold && !slices.Contains(list, n) {
			list = append(list, n)
		}
	}
	for _, m := range namedPages.FindAllStringSubmatch(because.Error(), pagesTold) {
		for _, digits := range m[1:] {
			n, _ := strconv.ParseUint(digits, 10, 32) // 0 is none
			add(uint32(n))
		}
	}
	for i := 0; i < len(list); i++ {
		_, parent := d.pages.at(list[i])
		add(parent)
	}
	for _, n := range others {
		add(n)
	}
	return list
}

// evidence tells what is known of the pages that are involved in an error. Either state
// may be nil.
func (d *decoder) evidence(before, after *side, because error, others []uint32) (e evidence) {
	key := make([]byte, 32)
	_, _ = rand.Read(key) // never fails
	for _, n := range d.involved(because, others) {
		kind, parent := d.pages.at(n)
		e.Map = append(e.Map, fmt.Sprintf("page %d: %v of page %d", n, kind, parent))
		if before != nil {
			e.Before = append(e.Before, (&outliner{*before, key}).outline(n))
		}
		if after != nil {
			e.After = append(e.After, (&outliner{*after, key}).outline(n))
		}
	}
	return e
}

// report begins a report of the present term; nil: it is too soon after the last.
func (c *capture) report(kind string, because error) *bugReport {
	if !c.reports.failed(kind) {
		return nil
	}
	what := because.Error()
	r := &bugReport{About: aboutReport, Kind: kind, What: what[:min(len(what), textTold)]}
	if c.encoder != nil {
		r.LSN, r.Epoch = c.encoder.Position().LSN, c.encoder.Position().Epoch
	}
	r.Source = sourceFacts{
		PageSize: c.decoder.head.PageSize, Usable: c.decoder.head.Usable, Encoding: c.decoder.head.Encoding.String(), Pages: c.decoder.head.PageCount,
		Tables: len(c.decoder.schema.trees) - 1, Frame: c.follower.position().Frame, Pin: c.follower.pinFrame, Settled: c.follower.settled,
	}
	return r
}

// reportFallback is called where a table is about to be compared whole.
func (c *capture) reportFallback(p treePair, because error) {
	r := c.report(reportFallback, because)
	if r == nil {
		return
	}
	d := c.decoder
	r.Table = p.new.table.Name
	others := []uint32{p.new.root}
	if p.old != nil {
		others = append(others, p.old.root)
		if dirty := d.dirt.byRoot[p.old.root]; dirty != nil {
			others = slices.Concat(others, dirty.pages, dirty.touched)
		}
	}
	r.evidence = d.evidence(&d.rows.old, &d.rows.new, because, others)
	c.reports.offer(r)
}

// reportUndecodable is called with both states of a transaction that is given up.
func (c *capture) reportUndecodable(before, after sqlitefile.Pages, tx sqlitefile.WALTransaction, written []uint32, because error) {
	r := c.report(reportUndecodable, because)
	if r == nil {
		return
	}
	d := c.decoder
	told := written[:min(len(written), writtenTold)]
	r.Transaction = &transactionFacts{First: tx.First, Last: tx.Last, Pages: tx.DBSize, Written: slices.Clone(told), More: len(written) - len(told)}
	old, next := newSide(before, d.head, d.head.PageCount), newSide(after, d.head, tx.DBSize)
	r.evidence = d.evidence(&old, &next, because, written)
	c.reports.offer(r)
}

// reportMap is called when the map was found to be wrong, of a state that has gone on a
// little meanwhile.
func (c *capture) reportMap(because error) {
	if r := c.report(reportPageMap, because); r != nil {
		now := newSide(c.follower.view, c.decoder.head, c.decoder.head.PageCount)
		r.evidence = c.decoder.evidence(nil, &now, because, nil)
		c.reports.offer(r)
	}
}

// reportSums is called when row-set hashes as of at were found to be wrong.
func (c *capture) reportSums(at cdc.Position, wrong []sumFacts) {
	because := fmt.Errorf("the row-set hashes of %d tables at LSN %d are not those of their rows", len(wrong), at.LSN)
	r := c.report(reportRowSums, because)
	if r == nil {
		return
	}
	roots := map[string]uint32{}
	for root, tree := range c.decoder.schema.trees {
		roots[tree.table.Name] = root
	}
	var pages []uint32
	for _, w := range wrong[:min(len(wrong), pagesTold)] {
		w.Root = roots[w.Table]
		r.Sums, pages = append(r.Sums, w), append(pages, w.Root)
	}
	now := newSide(c.follower.view, c.decoder.head, c.decoder.head.PageCount)
	r.evidence = c.decoder.evidence(nil, &now, because, pages)
	c.reports.offer(r)
}

// reportLost is called with what ended the term: frames that are gone under the pin are
// a defect, of us or of another program; those that were given up are none.
func (c *capture) reportLost(because error) {
	if !errors.Is(because, errLost) || errors.Is(because, errSpace) || errors.Is(because, errReplaced) {
		return
	}
	r := c.report(reportSQLiteWAL, because)
	if r == nil {
		return
	}
	r.Frames = c.framesAround(c.follower.position())
	c.reports.offer(r)
}

// framesAround tells of the SQLite WAL around a position: of each frame which page it
// has and whether it is of the same generation.
func (c *capture) framesAround(at sqlitefile.WALPosition) (list []string) {
	if m, err := c.src.marks(); err == nil {
		list = append(list, fmt.Sprintf("wal-index: %d frames, %d checkpointed", m.Frames, m.Backfilled))
	}
	o := outliner{side: newSide(c.follower.view, c.decoder.head, c.decoder.head.PageCount)}
	same := func(salt [2]uint32) string {
		if salt == at.Salt {
			return "of this generation"
		}
		return "of another generation"
	}
	if h, err := sqlitefile.NewWALReader(c.src.log).Header(); err == nil {
		list = append(list, "header: "+same(h.Salt))
	} else {
		list = append(list, "header: unreadable")
	}
	b := make([]byte, sqlitefile.FrameHeaderSize)
	for n := max(at.Frame, framesTold/3) - framesTold/3 + 1; n <= at.Frame+framesTold; n++ {
		if err := readFull(c.src.log, b, sqlitefile.FrameOffset(n, c.follower.view.pageSize)); err != nil {
			return append(list, fmt.Sprintf("frame %d: not there", n))
		}
		page, size := binary.BigEndian.Uint32(b), binary.BigEndian.Uint32(b[4:])
		salt := [2]uint32{binary.BigEndian.Uint32(b[8:]), binary.BigEndian.Uint32(b[12:])}
		commit := ""
		if size != 0 {
			commit = ", ends a transaction that leaves pages up to " + o.pageNumber(size)
		}
		list = append(list, fmt.Sprintf("frame %d: page %s, %s%s", n, o.pageNumber(page), same(salt), commit))
	}
	return list
}
