package stream

import (
	"errors"
	"fmt"
	"log/slog"
	"strings"
)

// A serverLog is the embedded server's logger. Its notices are our debug lines:
// what matters to a user we say ourselves.
type serverLog struct {
	log   *slog.Logger
	fatal chan error // the first fatal error; the server goes on regardless
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
func (l *serverLog) Errorf(format string, v ...any)  { l.log.Warn(line(format, v)) }
func (l *serverLog) Debugf(format string, v ...any)  { l.log.Debug(line(format, v)) }
func (l *serverLog) Tracef(string, ...any)           {}

func (l *serverLog) Fatalf(format string, v ...any) {
	select {
	case l.fatal <- errors.New(line(format, v)):
	default:
	}
}

func line(format string, v []any) string {
	return strings.TrimSpace(fmt.Sprintf(format, v...))
}
