package main

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/sqlite-replicator/replicator/cdc"
	"github.com/sqlite-replicator/replicator/internal/sqlite"
	"github.com/sqlite-replicator/replicator/primary"
	"github.com/sqlite-replicator/replicator/stream"
)

// Methods that a primary serves to its replicas, besides stream.MethodClock.
const (
	methodSync       = "sync"         // nothing -> cdc.Position
	methodAuditBegin = "audit.begin"  // nothing -> auditBegun
	methodAudit      = "audit.result" // auditRequest -> primary.Audit
)

type auditBegun struct {
	ID cdc.ID       `json:"id"`
	At cdc.Position `json:"at"`
}

type auditRequest struct {
	ID cdc.ID `json:"id"`
}

// serveRPC answers the replicas of one database until ctx ends.
func serveRPC(ctx context.Context, conn *stream.Conn, db string, p *primary.Pipeline, clock stream.Handler) error {
	handlers := map[string]stream.Handler{
		stream.MethodClock: clock,
		methodSync: handler(func(ctx context.Context, _ struct{}) (cdc.Position, error) {
			return p.Sync(ctx)
		}),
		methodAuditBegin: handler(func(ctx context.Context, _ struct{}) (auditBegun, error) {
			id, at, err := p.BeginAudit(ctx)
			return auditBegun{id, at}, err
		}),
		methodAudit: handler(func(ctx context.Context, r auditRequest) (primary.Audit, error) {
			return p.Audit(ctx, r.ID)
		}),
	}
	var ended []<-chan struct{}
	for method, h := range handlers {
		done, err := conn.Serve(ctx, db, method, h)
		if err != nil {
			return err
		}
		ended = append(ended, done)
	}
	for _, done := range ended {
		<-done
	}
	return context.Cause(ctx)
}

// handler speaks JSON. An empty request is the zero value.
func handler[Q, A any](f func(context.Context, Q) (A, error)) stream.Handler {
	return func(ctx context.Context, req []byte) ([]byte, error) {
		var q Q
		if len(req) > 0 {
			if err := json.Unmarshal(req, &q); err != nil {
				return nil, fmt.Errorf("request of %d bytes: %w", len(req), err)
			}
		}
		a, err := f(ctx, q)
		if err != nil {
			return nil, err
		}
		return json.Marshal(a)
	}
}

// ask sends a request to the primary of db and decodes its answer.
func ask[A any](ctx context.Context, conn *stream.Conn, db, method string, q any) (a A, err error) {
	var req []byte
	if q != nil {
		if req, err = json.Marshal(q); err != nil {
			return a, err
		}
	}
	if err := conn.Err(); err != nil { // else the request would only wait
		return a, err
	}
	res, err := conn.Request(ctx, db, method, req)
	if err != nil {
		return a, err
	}
	if err := json.Unmarshal(res, &a); err != nil {
		return a, fmt.Errorf("answer to %s of %s: %w", method, db, err)
	}
	return a, nil
}

// differences compares the tables of a replica with those of its primary, both
// sorted by name, one line for each that is not equal.
func differences(here, there []sqlite.TableSum) (lines []string) {
	byName := func(a sqlite.TableSum, name string) int {
		switch {
		case a.Name < name:
			return -1
		case a.Name > name:
			return 1
		}
		return 0
	}
	for _, t := range there {
		i, found := slices.BinarySearchFunc(here, t.Name, byName)
		switch {
		case !found:
			lines = append(lines, fmt.Sprintf("table %s is missing here; the primary has %s in it", t.Name, count(int(t.Rows), "row")))
		case here[i].Rows != t.Rows:
			lines = append(lines, fmt.Sprintf("table %s has %s here and %s on the primary", t.Name, count(int(here[i].Rows), "row"), number(t.Rows)))
		case here[i].Sum != t.Sum:
			lines = append(lines, fmt.Sprintf("table %s has %s on both, but not the same", t.Name, count(int(t.Rows), "row")))
		}
	}
	for _, h := range here {
		if _, found := slices.BinarySearchFunc(there, h.Name, byName); !found {
			lines = append(lines, fmt.Sprintf("table %s is not on the primary; it has %s here", h.Name, count(int(h.Rows), "row")))
		}
	}
	return lines
}
