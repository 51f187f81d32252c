package primary

import (
	"log/slog"
	"time"

	"github.com/sqlite-replicator/replicator/snapshot"
)

// progressEvery is the time between two log lines about a piece of work.
const progressEvery = 10 * time.Second

// A progressLog says now and then how far a snapshot is made or read back. It is
// used by one goroutine at a time.
type progressLog struct {
	what   string
	clock  func() time.Time
	logger *slog.Logger
	told   time.Time
}

func (l *progressLog) note(p snapshot.Progress) {
	now := l.clock()
	if l.told.Before(p.Started) {
		l.told = p.Started
	}
	if now.Sub(l.told) < progressEvery {
		return
	}
	l.told = now
	args := []any{"unit", "bytes", "done", p.Bytes, "total", p.Total, "percent", int(p.Percent()), "per_second", int64(p.Rate(now))}
	if left, known := p.ETA(now); known {
		args = append(args, "eta", left.Round(time.Second))
	}
	l.logger.Info(l.what, args...)
}
