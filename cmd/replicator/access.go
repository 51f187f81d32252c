package main

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/sqlite-replicator/replicator/internal/config"
	"github.com/sqlite-replicator/replicator/snapshot"
	"github.com/sqlite-replicator/replicator/stream"
)

// connectTimeout is how long a command that is not a daemon waits for NATS.
const connectTimeout = 10 * time.Second

// commandName is how a server lists the connection of a command.
const commandName = "replicator command"

// An access is the way to what a node, running or not, keeps outside of itself:
// snapshots and streams.
type access struct {
	role      string
	databases []string
	dataDir   string
	storeKind string
	storeDir  string
	nats      stream.Options
	patience  time.Duration
	conn      *stream.Conn // nil until it is needed
}

// A place names one database in what nodes keep outside of themselves.
type place struct{ config, db string }

func (p *place) flags(cmd *cobra.Command) {
	cmd.Flags().StringVar(&p.config, "config", "", "configuration of the primary or a replica (required)")
	cmd.Flags().StringVar(&p.db, "db", "", "name of the database; not needed when there is one")
	require(cmd, "config")
}

// visit finds the database and the store of its snapshots.
func (p *place) visit(ctx context.Context, e *environment, do func(a *access, db string, store snapshot.Store) error) error {
	a, err := openAccess(e, p.config)
	if err != nil {
		return err
	}
	defer a.close()
	db, err := a.database(p.db)
	if err != nil {
		return err
	}
	store, err := a.store(ctx, db)
	if err != nil {
		return err
	}
	return do(a, db, store)
}

// openAccess reads a configuration of either role. Close it.
func openAccess(e *environment, file string) (*access, error) {
	role, err := config.Check(file, e.environ)
	if err != nil {
		return nil, err
	}
	a := &access{role: role, patience: connectTimeout}
	if role == config.RoleReplica {
		err = a.ofReplica(e, file)
	} else {
		err = a.ofPrimary(e, file)
	}
	a.nats.Logger = slog.New(slog.NewTextHandler(e.stderr, &slog.HandlerOptions{Level: slog.LevelError}))
	return a, err
}

func (a *access) ofPrimary(e *environment, file string) error {
	p, err := loadPrimary(e, file)
	if err != nil {
		return err
	}
	a.dataDir, a.storeKind, a.storeDir = p.DataDir, p.Snapshot.Store, p.Snapshot.Dir
	a.nats = natsOptions(commandName, p.NATS.URL, p.NATS.Credentials, p.NATS.TLS)
	for _, d := range p.Databases {
		a.databases = append(a.databases, d.Name)
	}
	if p.NATS.IsEmbedded() {
		a.nats.URL, a.nats.TLS, err = embeddedURL(p.NATS)
	}
	return err
}

func (a *access) ofReplica(e *environment, file string) error {
	r, err := loadReplica(e, file)
	if err != nil {
		return err
	}
	a.dataDir, a.storeKind, a.storeDir = r.DataDir, r.Snapshot.Store, r.Snapshot.Dir
	a.nats = natsOptions(commandName, r.NATS.URL, r.NATS.Credentials, r.NATS.TLS)
	for _, d := range r.Databases {
		a.databases = append(a.databases, d.Name)
	}
	return nil
}

// embeddedURL is where the embedded server of a running primary listens. Its
// certificate is the one that is trusted.
func embeddedURL(n config.PrimaryNATS) (string, stream.TLS, error) {
	address, ok := onThisMachine(n.Embedded.Listen)
	switch {
	case !ok:
		return "", stream.TLS{}, usagef("nats.listen is %q, which does not say where the server is; use the configuration of a replica", n.Embedded.Listen)
	case n.TLS.CertFile == "":
		return "nats://" + address, stream.TLS{}, nil
	}
	return "tls://" + address, stream.TLS{CA: n.TLS.CertFile}, nil
}

// database checks name, which may be empty when there is only one.
func (a *access) database(name string) (string, error) {
	if name == "" && len(a.databases) == 1 {
		return a.databases[0], nil
	}
	if name == "" {
		return "", usagef("--db is needed, one of %s", strings.Join(a.databases, ", "))
	}
	if !slices.Contains(a.databases, name) {
		return "", usagef("--db is %q, want one of %s", name, strings.Join(a.databases, ", "))
	}
	return name, nil
}

// connect connects to NATS, once.
func (a *access) connect(ctx context.Context) (*stream.Conn, error) {
	if a.conn != nil {
		return a.conn, nil
	}
	conn, err := stream.Connect(ctx, a.nats)
	if err != nil {
		return nil, err
	}
	bounded, cancel := context.WithTimeout(ctx, a.patience)
	defer cancel()
	if err := conn.WaitConnected(bounded); err != nil {
		if why := conn.Err(); why != nil { // more than that time is up
			err = why
		}
		conn.Close()
		return nil, fmt.Errorf("NATS is not reachable at %s; is it, or the primary that it is embedded in, running? %w", a.nats.URL, err)
	}
	a.conn = conn
	return conn, nil
}

// store is the snapshot store of one database.
func (a *access) store(ctx context.Context, db string) (snapshot.Store, error) {
	if a.storeKind == config.StoreDir {
		return dirStore(a.storeDir, db), nil
	}
	conn, err := a.connect(ctx)
	if err != nil {
		return nil, err
	}
	return conn.Objects(db, 1), nil
}

func (a *access) close() {
	if a.conn != nil {
		a.conn.Close()
	}
}
