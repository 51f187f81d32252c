package primary

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"path/filepath"
	"slices"
	"sync"

	"github.com/sqlite-replicator/replicator/cdc"
	"github.com/sqlite-replicator/replicator/internal/durable"
)

const (
	termsFile  = "terms.json"
	termsLimit = 1 << 20 // bytes that such a file may have
	termsKept  = 1000    // the last ones; what a stream holds is of few
)

// Terms are those that this node began in this data directory. A record of one
// of them is ours wherever it is found, even if the change log has lost it. A
// copy of the directory knows no term that began after it was made, and none at
// all under another node's name. Safe for concurrent use.
type terms struct {
	path string

	mu   sync.Mutex
	book termBook
}

// A termBook is the content of the file.
type termBook struct {
	Node  string    `json:"node"`
	Terms []ownTerm `json:"terms"` // oldest first; no later one is left out
}

// An ownTerm is a term that this node began.
type ownTerm struct {
	ID    cdc.ID    `json:"id"`
	Epoch cdc.Epoch `json:"epoch"` // of its records
}

// openTerms reads the terms in dir. A file that cannot be understood is as good
// as none: what it would prove to be ours is then foreign.
func openTerms(dir, node string, logger *slog.Logger) (*terms, error) {
	t := &terms{path: filepath.Join(dir, termsFile), book: termBook{Node: node}}
	b, err := durable.ReadFile(durable.OS{}, t.path, termsLimit)
	if errors.Is(err, fs.ErrNotExist) {
		return t, nil
	}
	if err != nil && !errors.Is(err, durable.ErrTooLong) {
		return nil, fmt.Errorf("%w; if it cannot be read again, remove it: records that only the stream still has are then taken for another primary's", err)
	}
	var book termBook
	if err == nil {
		err = json.Unmarshal(b, &book)
	}
	switch {
	case err != nil:
		logger.Warn("the list of this node's terms cannot be read and is begun anew", "file", t.path, "err", err)
	case book.Node != node:
		logger.Warn("the data directory is of another node, whose records in the stream are not ours", "node", node, "was", book.Node)
	default:
		t.book = book
	}
	return t, nil
}

// begin notes a term, durably, before there is a record of it.
func (t *terms) begin(term cdc.ID, epoch cdc.Epoch) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	book := t.book
	book.Terms = append(slices.Clone(book.Terms), ownTerm{term, epoch})
	if n := len(book.Terms) - termsKept; n > 0 {
		book.Terms = book.Terms[n:]
	}
	b, err := json.Marshal(book)
	if err != nil {
		return err
	}
	if err := durable.WriteFile(durable.OS{}, t.path, b); err != nil {
		return fmt.Errorf("note a new term: %w", err)
	}
	t.book = book
	return nil
}

// has reports whether a term began here.
func (t *terms) has(term cdc.ID) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.holds(term)
}

func (t *terms) holds(term cdc.ID) bool {
	return slices.ContainsFunc(t.book.Terms, func(own ownTerm) bool { return own.ID == term })
}

// strange reports whether a term is known to be another primary's: the list goes back
// to its epoch and does not have it. Of what is older than the list nothing is known.
func (t *terms) strange(term cdc.ID, epoch cdc.Epoch) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.book.Terms) > 0 && epoch >= t.book.Terms[0].Epoch && !t.holds(term)
}
