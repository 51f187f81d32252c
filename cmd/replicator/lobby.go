package main

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/sqlite-replicator/replicator/web"
)

// stateStarting is the state of a database whose node is not there yet.
const stateStarting = "starting"

// A lobby answers HTTP requests for a node from the first moment on: until the
// node is there, its databases are starting, and the reason is what the node
// waits for.
type lobby struct {
	databases []web.Database // by name and path alone

	mu    sync.Mutex
	node  web.Source // nil until it is there
	waits string
	since time.Time
}

// say tells what the node waits for.
func (l *lobby) say(waits string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.waits = waits
}

// open lets requests through.
func (l *lobby) open(node web.Source) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.node = node
}

// Databases implements web.Source.
func (l *lobby) Databases() []web.Database {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.node != nil {
		return l.node.Databases()
	}
	all := make([]web.Database, len(l.databases))
	for i, d := range l.databases {
		d.State, d.Since, d.Error, d.Lag.Since = stateStarting, l.since, l.waits, &l.since
		all[i] = d
	}
	return all
}

// source is the node, if it is there and has the database.
func (l *lobby) source(db string) (web.Source, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.node != nil {
		return l.node, nil
	}
	for _, d := range l.databases {
		if d.Name == db {
			return nil, fmt.Errorf("%w: the node is starting: %s", web.ErrUnavailable, l.waits)
		}
	}
	return nil, unknown(db)
}

// Sync implements web.Source.
func (l *lobby) Sync(ctx context.Context, db string, replicas int) (web.Position, error) {
	s, err := l.source(db)
	if err != nil {
		return web.Position{}, err
	}
	return s.Sync(ctx, db, replicas)
}

// Wait implements web.Source.
func (l *lobby) Wait(ctx context.Context, db string, at web.Position) (web.Position, error) {
	s, err := l.source(db)
	if err != nil {
		return web.Position{}, err
	}
	return s.Wait(ctx, db, at)
}

// Verify implements web.Source.
func (l *lobby) Verify(ctx context.Context, db string) (web.Verification, error) {
	s, err := l.source(db)
	if err != nil {
		return web.Verification{}, err
	}
	return s.Verify(ctx, db)
}

// Repair implements web.Source.
func (l *lobby) Repair(ctx context.Context, db string) (web.Position, error) {
	s, err := l.source(db)
	if err != nil {
		return web.Position{}, err
	}
	return s.Repair(ctx, db)
}

// Snapshot implements web.Source.
func (l *lobby) Snapshot(ctx context.Context, db string) (web.Snapshot, error) {
	s, err := l.source(db)
	if err != nil {
		return web.Snapshot{}, err
	}
	return s.Snapshot(ctx, db)
}
