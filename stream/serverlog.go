package stream

import (
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
)

// A serverLog is the embedded server's logger. Its notices are our debug lines:
// what matters to a user we say ourselves.
type serverLog struct {
	log    *slog.Logger
	fatal  chan error  // the first fatal error; the server goes on regardless
	broken atomic.Bool // a stream's store refuses to be written to
}

func newServerLog(log *slog.Logger) *serverLog {
	return &serverLog{log: log.With("component", "nats-server"), fatal: make(chan error, 1)}
}

// failure takes the fatal error, if there is one.
func (l *serverLog) failure() error {
	select {
	case err := <-l.fatal:
		return err
	default:
		return nil
	}
}

func (l *serverLog) Noticef(format string, v ...any) { l.log.Debug(line(format, v)) }
func (l *serverLog) Warnf(format string, v ...any)   { l.log.Warn(line(format, v)) }
func (l *serverLog) Debugf(format string, v ...any)  { l.log.Debug(line(format, v)) }
func (l *serverLog) Tracef(string, ...any)           {}

// Errorf is the only place where a store that cannot be written to shows.
func (l *serverLog) Errorf(format string, v ...any) {
	text := line(format, v)
	if strings.Contains(text, "ritical write error") {
		l.broken.Store(true)
	}
	l.log.Warn(text)
}

func (l *serverLog) Fatalf(format string, v ...any) {
	select {
	case l.fatal <- errors.New(line(format, v)):
	default:
	}
}

func line(format string, v []any) string {
	return strings.TrimSpace(fmt.Sprintf(format, v...))
}
