package config

import (
	_ "embed"
	"fmt"
	"time"
)

// The roles of a node.
const (
	RolePrimary = "primary"
	RoleReplica = "replica"
	RoleEither  = "primary or a replica" // what [Check] says of a file that fits both
)

var (
	//go:embed defaults/primary.yaml
	primaryYAML string
	//go:embed defaults/replica.yaml
	replicaYAML string
)

// Defaults returns a commented file with every key of the role. Loaded, it is
// the role's default and the node and the database of an example, as these two
// have no default. It returns an error for anything but RolePrimary and RoleReplica.
func Defaults(role string) (string, error) {
	switch role {
	case RolePrimary:
		return primaryYAML, nil
	case RoleReplica:
		return replicaYAML, nil
	}
	return "", fmt.Errorf("%w: role %q, want %s or %s", ErrInvalid, role, RolePrimary, RoleReplica)
}

// DefaultPrimary is a primary without node and databases: they have no default.
func DefaultPrimary() Primary {
	return Primary{
		Log:  Log{Level: "info", Format: "text"},
		HTTP: HTTP{Listen: "127.0.0.1:8080"},
		NATS: PrimaryNATS{
			Embedded: EmbeddedServer{
				Listen:       "127.0.0.1:4222",
				MaxPayload:   1 * MiB,
				SyncInterval: 10 * time.Second,
			},
			Replicas: 1,
		},
		Stream: Stream{Compression: "none"},
		ChangeLog: ChangeLog{
			SegmentSize: 64 * MiB,
			RetainAge:   10 * time.Minute,
			Fsync:       true,
			Compression: "s2",
		},
		Snapshot: PrimarySnapshot{
			Interval:    24 * time.Hour,
			AfterBytes:  1 * GiB,
			Keep:        2,
			ChunkSize:   4 * MiB,
			MaxMemory:   36 * MiB,
			Compression: "s2",
			Store:       StoreNATS,
		},
		Capture: Capture{
			TurnoverSize: 16 * MiB,
			RepinFrames:  2000,
			MaxStall:     20 * time.Millisecond,
			PollInterval: 500 * time.Millisecond,
		},
	}
}

// DefaultReplica is a replica without node and databases: they have no default.
func DefaultReplica() Replica {
	return Replica{
		Log:  Log{Level: "info", Format: "text"},
		HTTP: HTTP{Listen: "127.0.0.1:8081"},
		NATS: ReplicaNATS{URL: "nats://127.0.0.1:4222"},
		Apply: Apply{
			GroupMaxRecords: 1000,
			GroupMaxBytes:   8 * MiB,
			CacheSize:       24 * MiB,
			CheckpointSize:  40 * MiB,
			HoldWriteLock:   true,
			OnDivergence:    OnDivergenceReseed,
		},
		Snapshot:       ReplicaSnapshot{Store: StoreNATS, MaxMemory: 36 * MiB},
		ReportInterval: time.Second,
	}
}
