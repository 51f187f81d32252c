package config

import (
	"log/slog"
	"time"
)

// Replica is the configuration of a replica.
type Replica struct {
	Node           string            `mapstructure:"node"`     // unique among the nodes of one NATS account
	DataDir        string            `mapstructure:"data_dir"` // empty until Resolve: ./data/<node>
	Log            Log               `mapstructure:"log"`
	HTTP           HTTP              `mapstructure:"http"`
	NATS           ReplicaNATS       `mapstructure:"nats"`
	Apply          Apply             `mapstructure:"apply"`
	Snapshot       ReplicaSnapshot   `mapstructure:"snapshot"`
	ReportInterval time.Duration     `mapstructure:"report_interval"` // between two reports of position to the primary
	Databases      []ReplicaDatabase `mapstructure:"databases"`
}

// ReplicaNATS says where changes come from.
type ReplicaNATS struct {
	URL         string      `mapstructure:"url"` // one or more, separated by commas
	Credentials Credentials `mapstructure:",squash"`
	TLS         TLS         `mapstructure:"tls"`
}

// Values of the key apply.on_divergence.
const (
	OnDivergenceReseed = "reseed" // fetch a snapshot and make the file equal to it
	OnDivergenceStop   = "stop"   // keep the file as it is for someone to look at
)

// Apply tunes how changes are written to a replica's file.
type Apply struct {
	GroupMaxRecords int    `mapstructure:"group_max_records"` // most records in one SQLite transaction under backlog
	GroupMaxBytes   Size   `mapstructure:"group_max_bytes"`   // the same in bytes
	CacheSize       Size   `mapstructure:"cache_size"`        // SQLite's page cache of a database; several share about as much
	CheckpointSize  Size   `mapstructure:"checkpoint_size"`   // of the replica's SQLite WAL at which it is checkpointed
	HoldWriteLock   bool   `mapstructure:"hold_write_lock"`   // keep other writers out between applies
	OnDivergence    string `mapstructure:"on_divergence"`     // OnDivergenceReseed or OnDivergenceStop
}

// ReplicaSnapshot says where the primary's snapshots are found.
type ReplicaSnapshot struct {
	Store     string `mapstructure:"store"`      // StoreNATS or StoreDir, as on the primary
	Dir       string `mapstructure:"dir"`        // for StoreDir: the primary's folder, as seen from here
	MaxMemory Size   `mapstructure:"max_memory"` // of buffers, for all snapshots restored at a time
}

// ReplicaDatabase is a copy of the source database with the same name.
type ReplicaDatabase struct {
	Name string `mapstructure:"name"` // [a-zA-Z0-9_-]{1,64}; also unique when case is ignored
	Path string `mapstructure:"path"` // made by the replica
}

// Resolve returns r with every path absolute, relative ones taken from wd, and
// with the data directory filled in. wd must be absolute.
func (r Replica) Resolve(wd string) Replica {
	abs := resolver(wd)
	r.DataDir = abs(r.dataDir())
	r.NATS.Credentials.resolve(abs)
	r.NATS.TLS.resolve(abs)
	r.HTTP.TokenFile = abs(r.HTTP.TokenFile)
	r.Snapshot.Dir = abs(r.Snapshot.Dir)
	databases := make([]ReplicaDatabase, len(r.Databases)) // the caller's slice stays as it is
	for i, d := range r.Databases {
		d.Path = abs(d.Path)
		databases[i] = d
	}
	r.Databases = databases
	return r
}

// Summary is what the log says at start: who, where, and which files.
func (r Replica) Summary() []slog.Attr {
	paths := make([]any, len(r.Databases))
	for i, d := range r.Databases {
		paths[i] = slog.String(d.Name, d.Path)
	}
	return []slog.Attr{
		slog.String("node", r.Node), slog.String("data_dir", r.dataDir()),
		slog.String("nats", redactURL(r.NATS.URL)), slog.String("http", r.HTTP.Listen),
		slog.Group("databases", paths...),
	}
}

func (r Replica) dataDir() string { return orDefault(r.DataDir, dataDirOf(r.Node)) }

func (r *Replica) secrets() []secretSource {
	return append(r.NATS.Credentials.secrets(), r.HTTP.secret())
}
