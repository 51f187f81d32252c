package primary

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/sqlite-replicator/replicator/internal/durable"
	"github.com/sqlite-replicator/replicator/internal/sqlite"
	"github.com/sqlite-replicator/replicator/internal/tick"
)

// Bounds of the reports of failed self-checks of one database.
const (
	reportsKept  = 8
	reportMost   = 512 << 10        // bytes of one
	reportPause  = 10 * time.Minute // between two of a kind: a check that fails once may fail at each transaction
	reportQueue  = 4                // that wait to be written
	reportLook   = time.Minute      // between two looks at which are there: people move them
	reportFormat = "20060102T150405.000Z"
)

// reportName are the names of reports, and of what a failed write has left of one. In
// their order they are in the order of time.
var reportName = regexp.MustCompile(`^[0-9]{8}T[0-9]{6}\.[0-9]{3}Z-[a-z-]+\.json(\.tmp)?$`)

// A ReportStatus tells of self-checks that failed.
type ReportStatus struct {
	Failed uint64 `json:"failed"` // self-checks, since the start of the process
	Kept   int    `json:"kept"`   // reports in the data directory
	Newest string `json:"newest,omitempty"`
}

// Reports write what self-checks that failed have seen into files of a folder, from a
// goroutine of their own. That no report can be written, or not in time, is said and
// stops nobody. A nil *reports takes none. Safe for concurrent use.
type reports struct {
	dir     string
	stamp   bugReport // what all have in common
	fs      durable.FS
	room    func(bytes int64) error // that the disk has it
	clock   func() time.Time
	logger  *slog.Logger
	written func() // told after each
	queue   chan *bugReport

	mu     sync.Mutex
	last   map[string]time.Time // by kind
	status ReportStatus
}

// newReports makes those of the database whose files are in dir. It touches nothing.
func newReports(dir, version string, clock func() time.Time, logger *slog.Logger, written func()) *reports {
	return &reports{
		dir: filepath.Join(dir, "reports"), stamp: bugReport{Replicator: version, SQLite: sqlite.Version()}, fs: durable.OS{},
		room:  func(bytes int64) error { return roomFor(dir, leastRoom+bytes) },
		clock: clock, logger: logger, written: written, queue: make(chan *bugReport, reportQueue), last: map[string]time.Time{},
	}
}

// failed counts a self-check that failed and says whether it is worth a report.
func (r *reports) failed(kind string) bool {
	if r == nil {
		return false
	}
	now := r.clock()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.status.Failed++
	if last, ok := r.last[kind]; ok && now.Sub(last) < reportPause {
		return false
	}
	r.last[kind] = now
	return true
}

// offer takes a report to be written. It never waits: where too many do, it is dropped.
func (r *reports) offer(b *bugReport) {
	b.Time, b.Replicator, b.SQLite = r.clock().UTC(), r.stamp.Replicator, r.stamp.SQLite
	select {
	case r.queue <- b:
	default:
		r.logger.Warn("a report of a failed self-check is dropped: too many wait to be written", "kind", b.Kind)
	}
}

// Run writes until ctx ends, and then what waits.
func (r *reports) Run(ctx context.Context) error {
	ticks := tick.NewTicker(reportLook)
	defer ticks.Stop()
	r.look()
	for {
		select {
		case b := <-r.queue:
			r.keep(b)
		case <-ticks.C:
			ticks.Next()
			r.look()
		case <-ctx.Done():
			for len(r.queue) > 0 {
				r.keep(<-r.queue)
			}
			return context.Cause(ctx)
		}
	}
}

// keep writes a report and says where it is.
func (r *reports) keep(b *bugReport) {
	path, err := r.write(b)
	if err != nil {
		r.logger.Warn("a report of a failed self-check could not be written", "kind", b.Kind, "err", err)
	} else {
		r.logger.Error("a self-check failed; the report of it holds no row values, please send it", "kind", b.Kind, "report", path)
	}
	r.look()
	r.written()
}

func (r *reports) write(b *bugReport) (path string, err error) {
	text, err := json.MarshalIndent(b, "", " ")
	if err != nil {
		return "", err
	}
	if len(text) > reportMost {
		return "", fmt.Errorf("it has %d bytes, more than %d", len(text), reportMost)
	}
	if err := r.room(int64(len(text))); err != nil {
		return "", err
	}
	if err := r.fs.MkdirAll(r.dir); err != nil {
		return "", err
	}
	if err := r.makeRoom(); err != nil {
		return "", err
	}
	path = filepath.Join(r.dir, b.Time.Format(reportFormat)+"-"+b.Kind+".json")
	return path, durable.WriteFile(r.fs, path, append(text, '\n'))
}

// makeRoom removes the oldest reports, and what failed writes have left.
func (r *reports) makeRoom() error {
	names, err := r.names()
	if err != nil {
		return err
	}
	whole := slices.DeleteFunc(slices.Clone(names), partly)
	old := whole[:max(0, len(whole)-reportsKept+1)]
	for _, name := range names {
		if partly(name) || slices.Contains(old, name) {
			if err := r.fs.Remove(filepath.Join(r.dir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
	}
	return nil
}

func partly(name string) bool { return strings.HasSuffix(name, ".tmp") }

// names are those of the reports, the oldest first.
func (r *reports) names() ([]string, error) {
	names, err := r.fs.ReadDir(r.dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	return slices.DeleteFunc(names, func(name string) bool { return !reportName.MatchString(name) }), err
}

// look notes which reports there are.
func (r *reports) look() {
	names, err := r.names()
	if err != nil {
		r.logger.Debug("reports of failed self-checks cannot be listed", "err", err)
		return
	}
	names = slices.DeleteFunc(names, partly)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.status.Kept, r.status.Newest = len(names), ""
	if len(names) > 0 {
		r.status.Newest = filepath.Join(r.dir, names[len(names)-1])
	}
}

func (r *reports) state() ReportStatus {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.status
}
