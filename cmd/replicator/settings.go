package main

import (
	"cmp"
	"path/filepath"

	"github.com/sqlite-replicator/replicator/cdc"
	"github.com/sqlite-replicator/replicator/internal/config"
	"github.com/sqlite-replicator/replicator/primary"
	"github.com/sqlite-replicator/replicator/replica"
	"github.com/sqlite-replicator/replicator/snapshot"
	"github.com/sqlite-replicator/replicator/stream"
	"github.com/sqlite-replicator/replicator/web"
)

// The functions below say which setting goes where. A test has a line for each key.

// webOptions are those of the HTTP server.
func webOptions(c config.HTTP) web.Options {
	return web.Options{Listen: c.Listen, Token: c.Token.Reveal(), Pprof: c.Pprof}
}

// natsOptions is how a node reaches servers of your own.
func natsOptions(node, url string, c config.Credentials, t config.TLS) stream.Options {
	return stream.Options{URL: url, Name: node, Credentials: credentials(c), TLS: transport(t)}
}

// serverOptions configures the embedded server of a primary. Its credentials are
// those that replicas must present.
func serverOptions(c config.Primary) stream.ServerOptions {
	n := c.NATS
	streams := map[string]int64{}
	for _, db := range c.Databases {
		streams[db.Name] = int64(c.Stream.MaxBytes)
	}
	return stream.ServerOptions{
		Name: c.Node, Dir: n.Embedded.StoreDir, Listen: n.Embedded.Listen,
		MaxStore: int64(n.Embedded.MaxStore), Streams: streams, MaxPayload: int(n.Embedded.MaxPayload),
		SyncInterval: n.Embedded.SyncInterval, SyncAlways: n.Embedded.SyncAlways,
		Auth: stream.ServerAuth{User: n.Credentials.User, Password: n.Credentials.Password.Reveal(), Token: n.Credentials.Token.Reveal()},
		TLS:  transport(n.TLS),
	}
}

// streamConfig is that of the stream of each database.
func streamConfig(c config.Primary) stream.StreamConfig {
	return stream.StreamConfig{
		MaxBytes: int64(c.Stream.MaxBytes), Replicas: c.NATS.Replicas, Compress: c.Stream.Compression == "s2",
	}
}

// recordCodec is that of the records of all databases.
func recordCodec(c config.Primary) cdc.Codec { return cdc.Codec(c.ChangeLog.Compression) }

// pipelineOptions are those of database i, as far as the configuration says.
func pipelineOptions(c config.Primary, i int) primary.Options {
	db := c.WithInherited(i)
	return primary.Options{
		Name: db.Name, Path: db.Path, Dir: filepath.Join(c.DataDir, db.Name), Node: c.Node, Only: len(c.Databases) == 1,
		Capture: primary.CaptureOptions{
			MaxSQLiteWAL: int64(db.MaxSQLiteWAL), TurnoverBytes: int64(c.Capture.TurnoverSize),
			RepinFrames: uint32(c.Capture.RepinFrames), MaxStall: c.Capture.MaxStall,
			SpillBytes: spillBytes, SyncSource: c.Capture.SyncSource, PollInterval: c.Capture.PollInterval,
		},
		ChangeLog: primary.ChangeLogOptions{
			SegmentBytes: int64(c.ChangeLog.SegmentSize), MaxBytes: int64(c.ChangeLog.MaxSize), RetainFor: c.ChangeLog.RetainAge,
			NoSync: !c.ChangeLog.Fsync,
		},
		Snapshot: primary.SnapshotOptions{
			Interval: cmp.Or(db.SnapshotInterval, unreached), AfterBytes: cmp.Or(int64(c.Snapshot.AfterBytes), unreached), Keep: c.Snapshot.Keep,
			StreamAge: c.Stream.MaxAge, MaxHeld: int64(c.Snapshot.MaxHeld),
			ChunkBytes: int(c.Snapshot.ChunkSize), Codec: snapshot.Codec(c.Snapshot.Compression),
		},
	}
}

// snapshotTurns are those of a process.
func snapshotTurns(most config.Size) *snapshot.Turns { return snapshot.NewTurns(int64(most)) }

// spillBytes is what a transaction may take in memory before it goes to a
// temporary file.
const spillBytes = 16 << 20

// unreached is a time and a size that does not come: 0 in the configuration means
// not by time, or not by size.
const unreached = 1 << 62

// replicaOptions are those of one copy, as far as the configuration says.
func replicaOptions(c config.Replica, db config.ReplicaDatabase) replica.Options {
	a := c.Apply
	return replica.Options{
		Database: db.Name, Path: db.Path, SpoolDir: filepath.Join(c.DataDir, db.Name), Only: len(c.Databases) == 1,
		Apply: replica.Apply{
			GroupMaxRecords: a.GroupMaxRecords, GroupMaxBytes: int64(a.GroupMaxBytes), CacheBytes: int64(a.CacheSize),
			CheckpointBytes: int64(a.CheckpointSize), HoldWriteLock: a.HoldWriteLock, OnDivergence: replica.Policy(a.OnDivergence),
			VerifyRows: true,
		},
		ReportInterval: c.ReportInterval,
	}
}
