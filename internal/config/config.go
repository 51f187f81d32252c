// Package config reads the YAML configuration of a primary or a replica.
//
// A configuration is built in three layers, each over the one before: the
// defaults ([DefaultPrimary], [DefaultReplica]), the file, and REPLICATOR_*
// variables. A variable is named after its key: nats.tls.ca_file is
// REPLICATOR_NATS_TLS_CA_FILE. Elements of a list (databases) have no variable.
// An empty variable, and a key without a value, count as not set.
//
// Reading is strict. An unknown key or variable, a key given twice, a value of
// the wrong type, out of range or in conflict with another is a mistake, and
// one read reports all of them (the first hundred in full), each with its place,
// its full key, the bad value and what is wanted. Only YAML that cannot be parsed
// hides the rest.
// Anchors, aliases and tags are refused: in practice they are passwords that
// someone forgot to quote.
//
// A secret may be given in place or as the name of a file that holds it
// (token, token_file). No secret ever appears in an error, a log line or
// printed text: see [Secret].
//
// Paths stay as written until Resolve makes them absolute and fills in those
// that follow from others. Call it, then Validate once more: two spellings of
// one path are seen as one only then.
//
// The package reads the named files and nothing else: no environment of its
// own, no search path, no global state. It does not look at databases, sockets
// or free space. It is safe for concurrent use.
package config

import "log/slog"

// Log selects what is written to standard error.
type Log struct {
	Level  string `mapstructure:"level"`  // debug, info, warn or error
	Format string `mapstructure:"format"` // text or json
}

// SlogLevel is Level for a slog handler. An invalid level is LevelInfo.
func (l Log) SlogLevel() slog.Level {
	var level slog.Level
	if err := level.UnmarshalText([]byte(l.Level)); err != nil {
		return slog.LevelInfo
	}
	return level
}

// HTTP is the listener for status, metrics and health.
type HTTP struct {
	Listen        string `mapstructure:"listen"`         // host:port; port 0 takes a free one
	Token         Secret `mapstructure:"token"`          // bearer token that every request must carry; empty: none
	TokenFile     string `mapstructure:"token_file"`     // where Token was read from
	Pprof         bool   `mapstructure:"pprof"`          // serve /debug/pprof
	AllowInsecure bool   `mapstructure:"allow_insecure"` // allow a listener beyond loopback without Token
}

// Credentials authenticate to NATS. At most one kind is set. With the embedded
// server, user and password or the token are what clients must present.
type Credentials struct {
	CredsFile    string `mapstructure:"creds_file"`    // .creds file: JWT and seed
	NKeyFile     string `mapstructure:"nkey_file"`     // seed of an nkey
	User         string `mapstructure:"user"`          // with Password
	Password     Secret `mapstructure:"password"`      // with User
	PasswordFile string `mapstructure:"password_file"` // where Password was read from
	Token        Secret `mapstructure:"token"`
	TokenFile    string `mapstructure:"token_file"` // where Token was read from
}

// TLS secures the connection to NATS. With the embedded server, CertFile and
// KeyFile are the server's own and the other two stay unset.
type TLS struct {
	CAFile             string `mapstructure:"ca_file"`   // PEM; empty: the system's roots
	CertFile           string `mapstructure:"cert_file"` // PEM, with KeyFile
	KeyFile            string `mapstructure:"key_file"`  // PEM, with CertFile
	InsecureSkipVerify bool   `mapstructure:"insecure_skip_verify"`
}

// Where snapshots are kept: values of the key snapshot.store.
const (
	StoreNATS = "nats" // JetStream's object store
	StoreDir  = "dir"  // a folder that the primary and its replicas share
)
