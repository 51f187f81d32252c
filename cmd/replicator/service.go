package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"

	"github.com/sqlite-replicator/replicator/web"
)

// A service is the work for one database, which ends by itself only when it
// cannot go on.
type service struct {
	name  string
	run   func(context.Context) error
	ended atomic.Pointer[error] // why it did
}

// called reports whether the service is that of db.
func (s *service) called(db string) bool { return s.name == db }

// err is why the service has ended, nil while it runs.
func (s *service) err() error {
	if err := s.ended.Load(); err != nil {
		return *err
	}
	return nil
}

// supervise runs services until ctx ends. One that fails leaves the others
// alone; the last one takes the node with it, as there is nothing left to serve,
// unless keep says that the state of one must stay to be seen.
func supervise(ctx context.Context, log *slog.Logger, services []*service, keep func(*service, error) bool) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	type end struct {
		s   *service
		err error
	}
	ends := make(chan end)
	for _, s := range services {
		go func() { ends <- end{s, s.run(ctx)} }()
	}
	var fatal error
	stay := false
	for left := len(services) - 1; left >= 0; left-- {
		e := <-ends
		if ctx.Err() != nil {
			continue
		}
		e.s.ended.Store(&e.err)
		stay = stay || keep(e.s, e.err)
		switch {
		case left > 0:
			log.Error("database failed; the others go on", "db", e.s.name, "err", e.err)
		case stay:
			log.Error("database failed; what is left of the node only tells its state", "db", e.s.name, "err", e.err)
		default:
			fatal = e.err
		}
	}
	if fatal != nil {
		return fatal
	}
	<-ctx.Done()
	return context.Cause(ctx)
}

// find is the database that a request is for.
func find[D interface {
	called(db string) bool
	err() error
}](databases []D, db string) (none D, err error) {
	for _, d := range databases {
		if !d.called(db) {
			continue
		}
		if err := d.err(); err != nil {
			return none, fmt.Errorf("%w: %w: %w", web.ErrUnavailable, errStopped, err)
		}
		return d, nil
	}
	return none, unknown(db)
}

var errStopped = errors.New("the database has failed")

// refused wraps what the other role does.
func refused(format string, args ...any) error {
	return fmt.Errorf("%w: %w", web.ErrConflict, fmt.Errorf(format, args...))
}

func unknown(db string) error {
	return fmt.Errorf("%w %q", web.ErrUnknown, db)
}
