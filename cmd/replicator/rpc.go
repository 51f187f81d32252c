package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/sqlite-replicator/replicator/cdc"
	"github.com/sqlite-replicator/replicator/internal/sqlite"
	"github.com/sqlite-replicator/replicator/primary"
	"github.com/sqlite-replicator/replicator/stream"
)

// Methods that a primary serves to its replicas, besides stream.MethodClock.
const (
	methodSync       = "sync"        // nothing -> cdc.Position
	methodAuditBegin = "audit.begin" // nothing -> auditBegun
	methodAuditState = "audit.state" // auditRequest -> auditState, after a while or at the end
	methodAuditRows  = "audit.rows"  // auditRequest -> []sqlite.RowRun
	methodAuditEnd   = "audit.end"   // auditRequest -> nothing
)

type auditBegun struct {
	ID cdc.ID       `json:"id"`
	At cdc.Position `json:"at"`
}

type auditRequest struct {
	ID   cdc.ID            `json:"id"`
	Rows *primary.RowRange `json:"rows,omitempty"` // only of methodAuditRows
	From *int              `json:"from,omitempty"` // only of methodAuditState: tables that the asker has; nil: it takes all at once
}

// An auditState is one with as many of its tables as go into a message.
type auditState struct {
	primary.AuditState
	More bool `json:"more,omitempty"` // tables follow these
}

// auditPart is about how many bytes of tables there are in an answer: servers take at least
// 1 MiB.
const auditPart = 256 << 10

// portion cuts the tables of a complete audit to those from an index on that go into an
// answer.
func portion(s primary.AuditState, from int) auditState {
	if s.Audit == nil {
		return auditState{AuditState: s}
	}
	const each, escaped = 128, 6 // bytes beside the name, and of a byte of it at most
	all := s.Audit.Tables
	from = min(max(from, 0), len(all))
	end := from
	for room := auditPart; end < len(all) && room > 0; end++ {
		room -= each + escaped*len(all[end].Name)
	}
	cut := *s.Audit
	cut.Tables, s.Audit = all[from:end], &cut
	return auditState{s, end < len(all)}
}

// auditAnswer is how long an audit that has not come to its end is waited for.
const auditAnswer = 500 * time.Millisecond

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
		methodAuditState: handler(func(ctx context.Context, r auditRequest) (auditState, error) {
			ctx, cancel := context.WithTimeout(ctx, auditAnswer)
			defer cancel()
			s, err := p.Audit(ctx, r.ID)
			if err != nil || r.From == nil {
				return auditState{AuditState: s}, err
			}
			return portion(s, *r.From), nil
		}),
		methodAuditRows: handler(func(ctx context.Context, r auditRequest) ([]sqlite.RowRun, error) {
			if r.Rows == nil {
				return nil, errors.New("the request names no rows")
			}
			return p.AuditRows(ctx, r.ID, *r.Rows)
		}),
		methodAuditEnd: handler(func(_ context.Context, r auditRequest) (struct{}, error) {
			p.EndAudit(r.ID)
			return struct{}{}, nil
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
// sorted by name: one line for each that is not equal, and their names.
func differences(here, there []sqlite.TableSum) (lines, tables []string) {
	add := func(table, format string, a ...any) {
		tables, lines = append(tables, table), append(lines, "table "+table+" "+fmt.Sprintf(format, a...))
	}
	for _, t := range there {
		i, found := slices.BinarySearchFunc(here, t.Name, byName)
		switch {
		case !found:
			add(t.Name, "is missing here; the primary has %s in it", count(int(t.Rows), "row"))
		case here[i].Rows != t.Rows:
			add(t.Name, "has %s here and %s on the primary", count(int(here[i].Rows), "row"), number(t.Rows))
		case here[i].Sum != t.Sum:
			add(t.Name, "has %s on both, but not the same", count(int(t.Rows), "row"))
		}
	}
	for _, h := range here {
		if _, found := slices.BinarySearchFunc(there, h.Name, byName); !found {
			add(h.Name, "is not on the primary; it has %s here", count(int(h.Rows), "row"))
		}
	}
	return lines, tables
}

// unequal are the tables of the primary that the replica has, too, with other rows.
func unequal(here, there []sqlite.TableSum) (tables []sqlite.TableSum) {
	for _, t := range there {
		if i, found := slices.BinarySearchFunc(here, t.Name, byName); found && here[i] != t {
			tables = append(tables, t)
		}
	}
	return tables
}

func byName(a sqlite.TableSum, name string) int { return strings.Compare(a.Name, name) }
