package config

import (
	"log/slog"
	"path/filepath"
	"time"
)

// Primary is the configuration of a primary. The zero value of a size that
// says "auto" leaves the choice to the primary, from the free disk space.
type Primary struct {
	Node      string            `mapstructure:"node"`     // unique among the nodes of one NATS account
	DataDir   string            `mapstructure:"data_dir"` // empty until Resolve: ./data/<node>
	Log       Log               `mapstructure:"log"`
	HTTP      HTTP              `mapstructure:"http"`
	NATS      PrimaryNATS       `mapstructure:"nats"`
	Stream    Stream            `mapstructure:"stream"`
	ChangeLog ChangeLog         `mapstructure:"change_log"`
	Snapshot  PrimarySnapshot   `mapstructure:"snapshot"`
	Capture   Capture           `mapstructure:"capture"`
	Databases []PrimaryDatabase `mapstructure:"databases"`
}

// PrimaryNATS says where changes are published.
type PrimaryNATS struct {
	URL         string         `mapstructure:"url"`      // one or more, separated by commas; empty: embedded server
	Embedded    EmbeddedServer `mapstructure:",squash"`  // ignored unless URL is empty
	Replicas    int            `mapstructure:"replicas"` // copies that JetStream keeps (R); 1 when embedded
	Credentials Credentials    `mapstructure:",squash"`
	TLS         TLS            `mapstructure:"tls"`
}

// IsEmbedded reports whether the primary runs the NATS server itself.
func (n PrimaryNATS) IsEmbedded() bool { return n.URL == "" }

// EmbeddedServer is the NATS server inside the primary. Its keys stand directly
// below nats.
type EmbeddedServer struct {
	Listen       string        `mapstructure:"listen"`        // host:port for replicas
	StoreDir     string        `mapstructure:"store_dir"`     // empty until Resolve: data_dir/nats
	MaxStore     Size          `mapstructure:"max_store"`     // of all streams and snapshots; 0: auto
	MaxPayload   Size          `mapstructure:"max_payload"`   // of one message; a record needs 1MiB
	SyncInterval time.Duration `mapstructure:"sync_interval"` // between fsyncs of the store; at most 10s, as change_log.retain_age counts on it
	SyncAlways   bool          `mapstructure:"sync_always"`   // fsync before each acknowledgement
}

// Stream bounds the JetStream stream of each database.
type Stream struct {
	MaxBytes    Size          `mapstructure:"max_bytes"`   // 0: auto
	MaxAge      time.Duration `mapstructure:"max_age"`     // of records that no kept snapshot needs; 0: no limit
	Compression string        `mapstructure:"compression"` // none or s2
}

// ChangeLog bounds the change log of each database.
type ChangeLog struct {
	SegmentSize Size          `mapstructure:"segment_size"`
	MaxSize     Size          `mapstructure:"max_size"`    // 0: auto, the less of 4GiB and 10 % of free space
	RetainAge   time.Duration `mapstructure:"retain_age"`  // kept at least this long after NATS acknowledged it
	Fsync       bool          `mapstructure:"fsync"`       // false: a power failure may take the last records
	Compression string        `mapstructure:"compression"` // of records, here and in the stream: s2 or zstd
}

// PrimarySnapshot says when snapshots are made, how, and where they go.
type PrimarySnapshot struct {
	Interval    time.Duration `mapstructure:"interval"`    // 0: not by time
	AfterBytes  Size          `mapstructure:"after_bytes"` // of change log since the last one; 0: not by size
	Keep        int           `mapstructure:"keep"`        // per database
	MaxHeld     Size          `mapstructure:"max_held"`    // for replicas that still need it, beyond Keep; 0: auto, the less of 4GiB and 10 % of free space
	ChunkSize   Size          `mapstructure:"chunk_size"`
	MaxMemory   Size          `mapstructure:"max_memory"`  // of buffers, for all snapshots worked on at a time
	Compression string        `mapstructure:"compression"` // s2, zstd or none
	Store       string        `mapstructure:"store"`       // StoreNATS or StoreDir
	Dir         string        `mapstructure:"dir"`         // for StoreDir; empty until Resolve: data_dir/snapshots
}

// Capture tunes how the SQLite WAL of a source database is followed.
type Capture struct {
	MaxSQLiteWAL Size          `mapstructure:"max_sqlite_wal"` // beyond it the pin is released; 0: auto, the less of 1GiB and 10 % of free space
	TurnoverSize Size          `mapstructure:"turnover_size"`  // of the SQLite WAL at which it is made to start over
	RepinFrames  int           `mapstructure:"repin_frames"`   // frames between two moves of the pin
	MaxStall     time.Duration `mapstructure:"max_stall"`      // longest time that a turnover may hold up writers
	PollInterval time.Duration `mapstructure:"poll_interval"`  // longest pause between two looks at the SQLite WAL when no notice comes
	SyncSource   bool          `mapstructure:"sync_source"`    // fsync the SQLite WAL before publishing
}

// PrimaryDatabase is a source database. Zero values inherit.
type PrimaryDatabase struct {
	Name             string        `mapstructure:"name"` // [a-zA-Z0-9_-]{1,64}; also unique when case is ignored
	Path             string        `mapstructure:"path"` // may not exist yet
	MaxSQLiteWAL     Size          `mapstructure:"max_sqlite_wal"`
	SnapshotInterval time.Duration `mapstructure:"snapshot_interval"`
}

// Resolve returns p with every path absolute, relative ones taken from wd, and
// with the folders that have no value filled in. wd must be absolute.
func (p Primary) Resolve(wd string) Primary {
	abs := resolver(wd)
	p.DataDir = abs(p.dataDir())
	p.NATS.Embedded.StoreDir = abs(p.storeDir())
	p.NATS.Credentials.resolve(abs)
	p.NATS.TLS.resolve(abs)
	p.HTTP.TokenFile = abs(p.HTTP.TokenFile)
	p.Snapshot.Dir = abs(p.snapshotDir())
	databases := make([]PrimaryDatabase, len(p.Databases)) // the caller's slice stays as it is
	for i, d := range p.Databases {
		d.Path = abs(d.Path)
		databases[i] = d
	}
	p.Databases = databases
	return p
}

// WithInherited returns database i with the values that it does not override.
func (p Primary) WithInherited(i int) PrimaryDatabase {
	d := p.Databases[i]
	if d.MaxSQLiteWAL == 0 {
		d.MaxSQLiteWAL = p.Capture.MaxSQLiteWAL
	}
	if d.SnapshotInterval == 0 {
		d.SnapshotInterval = p.Snapshot.Interval
	}
	return d
}

// Summary is what the log says at start: who, where, and which files.
func (p Primary) Summary() []slog.Attr {
	nats := slog.String("nats", redactURL(p.NATS.URL))
	if p.NATS.IsEmbedded() {
		nats = slog.String("nats", "embedded on "+p.NATS.Embedded.Listen)
	}
	paths := make([]any, len(p.Databases))
	for i, d := range p.Databases {
		paths[i] = slog.String(d.Name, d.Path)
	}
	return []slog.Attr{
		slog.String("node", p.Node), slog.String("data_dir", p.dataDir()),
		nats, slog.String("http", p.HTTP.Listen), slog.Group("databases", paths...),
	}
}

func (p Primary) dataDir() string { return orDefault(p.DataDir, dataDirOf(p.Node)) }

func (p Primary) storeDir() string {
	return orDefault(p.NATS.Embedded.StoreDir, filepath.Join(p.dataDir(), "nats"))
}

// snapshotDir is empty when snapshots go to NATS.
func (p Primary) snapshotDir() string {
	if p.Snapshot.Store != StoreDir {
		return p.Snapshot.Dir
	}
	return orDefault(p.Snapshot.Dir, filepath.Join(p.dataDir(), "snapshots"))
}

func (p *Primary) secrets() []secretSource {
	return append(p.NATS.Credentials.secrets(), p.HTTP.secret())
}
