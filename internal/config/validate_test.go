package config

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const exposedHTTP = `http.listen: %q can be reached from other machines and asks for no token; add to the file
  http:
    token_file: ./http.token
or, where the network is trusted,
  http:
    allow_insecure: true
or set http.listen: 127.0.0.1:8080`

const exposedNATS = `nats.listen: %q can be reached from other machines and asks for no credentials; add to the file
  nats:
    user: replicator
    password_file: ./nats.password
and the same on each replica, or set nats.listen: 127.0.0.1:4222`

func primary(change func(*Primary)) Primary {
	p := DefaultPrimary()
	p.Node = "n"
	p.Databases = []PrimaryDatabase{{Name: "app", Path: "./app.db"}}
	change(&p)
	return p
}

func replica(change func(*Replica)) Replica {
	r := DefaultReplica()
	r.Node = "n"
	r.Databases = []ReplicaDatabase{{Name: "app", Path: "./app.db"}}
	change(&r)
	return r
}

// said compares an error with lines, without their "config: ".
func said(t *testing.T, err error, want ...string) {
	t.Helper()
	got := ""
	if err != nil {
		got = strings.ReplaceAll("\n"+err.Error(), "\nconfig: ", "\n")[1:]
	}
	if strings.Contains(got, "hunter2") {
		t.Errorf("a secret shows in: %s", got)
	}
	if diff := cmp.Diff(strings.Join(want, "\n"), got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestValidatePrimary(t *testing.T) {
	const wantListen = "want host:port such as 127.0.0.1:8080"
	for _, c := range []struct {
		name   string
		change func(*Primary)
		want   string // empty: valid
	}{
		{"as it is", func(*Primary) {}, ""},
		{"no node", func(p *Primary) { p.Node = "" }, "node: not set, want a name of its own for each node, such as primary-1"},
		{"http everywhere", func(p *Primary) { p.HTTP.Listen = ":8080" }, strings.ReplaceAll(exposedHTTP, "%q", `":8080"`)},
		{"http on an address", func(p *Primary) { p.HTTP.Listen = "10.0.0.1:8080" }, strings.ReplaceAll(exposedHTTP, "%q", `"10.0.0.1:8080"`)},
		{"http on a name", func(p *Primary) { p.HTTP.Listen = "db1:8080" }, strings.ReplaceAll(exposedHTTP, "%q", `"db1:8080"`)},
		{"http with token", func(p *Primary) { p.HTTP = HTTP{Listen: "[::]:80", Token: "hunter2"} }, ""},
		{"http allowed", func(p *Primary) { p.HTTP = HTTP{Listen: "0.0.0.0:80", AllowInsecure: true} }, ""},
		{"http on loopback 6", func(p *Primary) { p.HTTP.Listen = "[::1]:0" }, ""},
		{"http on localhost", func(p *Primary) { p.HTTP.Listen = "localhost:8080" }, ""},
		{"http, no port", func(p *Primary) { p.HTTP.Listen = "127.0.0.1" }, `http.listen: is "127.0.0.1", ` + wantListen},
		{"http, large port", func(p *Primary) { p.HTTP.Listen = "127.0.0.1:65536" }, `http.listen: is "127.0.0.1:65536", ` + wantListen},
		{"http, nothing", func(p *Primary) { p.HTTP.Listen = "" }, `http.listen: is "", ` + wantListen},
		{"token with space", func(p *Primary) { p.HTTP.Token = "hunter2 x" }, "http.token: holds spaces or characters beyond ASCII, which an HTTP header cannot carry"},
		{"one address", func(p *Primary) { p.HTTP.Listen = "127.0.0.1:4222" }, `http.listen: is "127.0.0.1:4222", want an address other than nats.listen`},
		{"nats everywhere", func(p *Primary) { p.NATS.Embedded.Listen = "0.0.0.0:4222" }, strings.ReplaceAll(exposedNATS, "%q", `"0.0.0.0:4222"`)},
		{"nats with token", func(p *Primary) { p.NATS.Embedded.Listen, p.NATS.Credentials.Token = "0.0.0.0:4222", "hunter2" }, ""},
		{"nats with user", func(p *Primary) {
			p.NATS.Embedded.Listen = ":4222"
			p.NATS.Credentials.User, p.NATS.Credentials.Password = "u", "hunter2"
		}, ""},
		{"nats elsewhere", func(p *Primary) { p.NATS.URL, p.NATS.Embedded.Listen = "nats://h:1, tls://h", "0.0.0.0:4222" }, ""},
		{"no password", func(p *Primary) { p.NATS.Credentials.User = "u" }, "nats.password: not set, but nats.user is; want nats.password or nats.password_file"},
		{"no user", func(p *Primary) { p.NATS.Credentials.Password = "hunter2" }, "nats.user: not set, but a password is; want both"},
		{"two kinds", func(p *Primary) {
			p.NATS.URL, p.NATS.Credentials = "nats://h", Credentials{CredsFile: "f", Token: "hunter2"}
		},
			"nats.token: set together with nats.creds_file, want one kind of credentials"},
		{"creds, embedded", func(p *Primary) { p.NATS.Credentials.CredsFile = "f" },
			"nats.creds_file: set, but nats.url is empty: it is for connecting to a server, not for the embedded one"},
		{"password in url", func(p *Primary) { p.NATS.URL = "nats://u:hunter2,hunter2@h:4222" },
			`nats.url: "nats://***@h:4222" holds credentials; move them to nats.user and nats.password_file, or nats.token_file, where they are not printed`},
		{"url without scheme", func(p *Primary) { p.NATS.URL = "nats://a,h:4222" },
			`nats.url: is "h:4222", want nats://, tls://, ws:// or wss:// with host and port, such as nats://127.0.0.1:4222`},
		{"key without certificate", func(p *Primary) { p.NATS.TLS.KeyFile = "k" }, "nats.tls.cert_file: not set, but nats.tls.key_file is; want both"},
		{"certificate without key", func(p *Primary) { p.NATS.TLS.CertFile = "c" }, "nats.tls.key_file: not set, but nats.tls.cert_file is; want both"},
		{"copies, embedded", func(p *Primary) { p.NATS.Replicas = 3 }, "nats.replicas: is 3, want 1, as the embedded server is alone; more copies need a cluster in nats.url"},
		{"copies", func(p *Primary) { p.NATS.URL, p.NATS.Replicas = "nats://h", 6 }, "nats.replicas: is 6, want 1 to 5"},
		{"payload", func(p *Primary) { p.NATS.Embedded.MaxPayload = 64 * MiB }, "nats.max_payload: is 64MiB, want 1MiB to 8MiB"},
		{"sync interval", func(p *Primary) { p.NATS.Embedded.SyncInterval = day }, "nats.sync_interval: is 1d, want 10ms to 10s"},
		{"stream beyond store", func(p *Primary) { p.NATS.Embedded.MaxStore, p.Stream.MaxBytes = GiB, TiB },
			"stream.max_bytes: is 1TiB, want at most nats.max_store, which is 1GiB"},
		{"streams beyond store", func(p *Primary) {
			p.NATS.Embedded.MaxStore, p.Stream.MaxBytes = 2*GiB, GiB
			p.Databases = append(p.Databases, PrimaryDatabase{Name: "b", Path: "b"}, PrimaryDatabase{Name: "c", Path: "c"})
		}, "stream.max_bytes: is 1GiB, want at most 1/3 of nats.max_store, which is 2GiB"},
		{"streams that fill the store", func(p *Primary) {
			p.NATS.Embedded.MaxStore, p.Stream.MaxBytes = 2*GiB, GiB
			p.Databases = append(p.Databases, PrimaryDatabase{Name: "b", Path: "b"})
		}, ""},
		{"store without room", func(p *Primary) {
			p.NATS.Embedded.MaxStore = 20 * MiB
			p.Databases = append(p.Databases, PrimaryDatabase{Name: "b", Path: "b"})
		}, "nats.max_store: is 20MiB, want at least 32MiB, which is 16MiB for each stream, or stream.max_bytes"},
		{"small store for a small stream", func(p *Primary) { p.NATS.Embedded.MaxStore, p.Stream.MaxBytes = 8*MiB, MiB }, ""},
		{"store elsewhere", func(p *Primary) { p.NATS.URL, p.NATS.Embedded.MaxStore = "nats://h", 8*MiB }, ""},
		{"small stream", func(p *Primary) { p.Stream.MaxBytes = 1000 }, "stream.max_bytes: is 1KB, want at least 1MiB, or 0 for a limit by free space"},
		{"small log", func(p *Primary) { p.ChangeLog.MaxSize = 64 * MiB }, "change_log.max_size: is 64MiB, want at least 128MiB, or 0 for a limit by free space"},
		{"segment", func(p *Primary) { p.ChangeLog.SegmentSize = 0 }, "change_log.segment_size: is 0, want 1MiB to 1GiB"},
		{"retain", func(p *Primary) { p.ChangeLog.RetainAge = 0 }, "change_log.retain_age: is 0s, want at least 10m: until then NATS may lose at a power failure what it acknowledged"},
		{"no snapshots", func(p *Primary) { p.Snapshot.Interval, p.Snapshot.AfterBytes = 0, 0 },
			"snapshot.interval: 0 like snapshot.after_bytes: the change log would never shrink; want one of them"},
		{"record compression", func(p *Primary) { p.ChangeLog.Compression = "none" }, `change_log.compression: is "none", want s2 or zstd`},
		{"compression", func(p *Primary) { p.Snapshot.Compression = "gzip" }, `snapshot.compression: is "gzip", want s2 or zstd or none`},
		{"store", func(p *Primary) { p.Snapshot.Store = "s3" }, `snapshot.store: is "s3", want nats or dir`},
		{"dir for nats", func(p *Primary) { p.Snapshot.Dir = "d" }, `snapshot.dir: is "d", want nothing, or snapshot.store: dir`},
		{"dir", func(p *Primary) { p.Snapshot.Store = StoreDir }, ""},
		{"stall", func(p *Primary) { p.Capture.MaxStall = 0 }, "capture.max_stall: is 0s, want 1ms to 10s"},
		{"small SQLite WAL", func(p *Primary) { p.Capture.MaxSQLiteWAL = MiB }, "capture.max_sqlite_wal: is 1MiB, want at least 32MiB, or 0 for a limit by free space"},
		{"small SQLite WAL of one", func(p *Primary) { p.Databases[0].MaxSQLiteWAL = MiB },
			"databases[0].max_sqlite_wal: is 1MiB, want at least 32MiB, or 0 for capture.max_sqlite_wal"},
		{"often", func(p *Primary) { p.Databases[0].SnapshotInterval = 1 }, "databases[0].snapshot_interval: is 1ns, want at least 1s, or 0 for snapshot.interval"},
	} {
		t.Run(c.name, func(t *testing.T) { said(t, primary(c.change).Validate(), c.want) })
	}
}

func TestValidateDatabases(t *testing.T) {
	type list = []PrimaryDatabase
	for _, c := range []struct {
		name      string
		databases list
		want      string // empty: valid
	}{
		{"none", nil, "databases: none, want at least one; add to the file\n  databases:\n    - name: app\n      path: ./app.db"},
		{"no name", list{{Path: "a.db"}}, "databases[0].name: not set, want a name such as app, the same on the primary and its replicas"},
		{"no path", list{{Name: "a"}}, "databases[0].path: not set, want the path of an SQLite file such as ./app.db"},
		{"bad name", list{{Name: "a.b", Path: "a.db"}}, `databases[0].name: is "a.b", want 1 to 64 of the characters a-z A-Z 0-9 _ -`},
		{"name of our own", list{{Name: "Lock", Path: "a.db"}}, `databases[0].name: is "Lock", want another name: data_dir has a file or folder of that name already`},
		{"long name", list{{Name: strings.Repeat("a", 64), Path: "a.db"}}, ""},
		{"same name", list{{Name: "a", Path: "a.db"}, {Name: "A", Path: "b.db"}},
			`databases[1].name: is "A", want a name that differs from databases[0].name by more than case`},
		{"same path", list{{Name: "a", Path: "a.db"}, {Name: "b", Path: "x/../a.db"}},
			`databases[1].path: is "x/../a.db", want a file other than that of databases[0].path`},
		{"uri", list{{Name: "a", Path: "file:a.db?mode=ro"}}, `databases[0].path: is "file:a.db?mode=ro", want the path of a file, not SQLite's URI or :memory:`},
		{"home", list{{Name: "a", Path: "~/a.db"}}, `databases[0].path: is "~/a.db", want the path written out; only a shell knows ~`},
		{"folder", list{{Name: "a", Path: "data/"}}, `databases[0].path: is "data/", want a file, not a folder`},
		{"sidecar", list{{Name: "a", Path: "a.db-wal"}}, `databases[0].path: is "a.db-wal", want the database, not the -wal file that SQLite keeps beside it`},
		{"in the data directory", list{{Name: "a", Path: "data/n/a.db"}}, ""},
		{"data directory", list{{Name: "a", Path: "./data/n"}},
			`databases[0].path: is "./data/n", want a path that is neither "data/n/nats" nor above it: that is a folder of this node`},
		{"folder of a database", list{{Name: "a", Path: "a.db"}, {Name: "b", Path: "data/n/a"}},
			`databases[1].path: is "data/n/a", want a path that is neither "data/n/a" nor above it: that is a folder of this node`},
	} {
		t.Run(c.name, func(t *testing.T) {
			said(t, primary(func(p *Primary) { p.Databases = c.databases }).Validate(), c.want)
		})
	}
}

func TestValidateReplica(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*Replica)
		want   string // empty: valid
	}{
		{"as it is", func(*Replica) {}, ""},
		{"no node", func(r *Replica) { r.Node = "" }, "node: not set, want a name of its own for each node, such as replica-1"},
		{"no url", func(r *Replica) { r.NATS.URL = "" }, "nats.url: not set, want the primary's nats.listen or your NATS server, such as nats://127.0.0.1:4222"},
		{"creds", func(r *Replica) { r.NATS.Credentials.CredsFile, r.NATS.TLS.InsecureSkipVerify = "f", true }, ""},
		{"http everywhere", func(r *Replica) { r.HTTP.Listen = "0.0.0.0:1" }, strings.ReplaceAll(exposedHTTP, "%q", `"0.0.0.0:1"`)},
		{"level", func(r *Replica) { r.Log.Level = "trace" }, `log.level: is "trace", want debug or info or warn or error`},
		{"group", func(r *Replica) { r.Apply.GroupMaxRecords = 0 }, "apply.group_max_records: is 0, want 1 to 1000000"},
		{"cache", func(r *Replica) { r.Apply.CacheSize = 1 }, "apply.cache_size: is 1, want 1MiB to 4GiB"},
		{"snapshot memory", func(r *Replica) { r.Snapshot.MaxMemory = 0 }, "snapshot.max_memory: is 0, want 1MiB to 64GiB"},
		{"divergence", func(r *Replica) { r.Apply.OnDivergence = "" }, `apply.on_divergence: is "", want reseed or stop`},
		{"report", func(r *Replica) { r.ReportInterval = 0 }, "report_interval: is 0s, want 100ms to 2s"},
		{"no dir", func(r *Replica) { r.Snapshot.Store = StoreDir },
			"snapshot.dir: not set, but snapshot.store is dir; want the folder where the primary puts its snapshots"},
		{"snapshots", func(r *Replica) { r.Snapshot.Store, r.Snapshot.Dir = StoreDir, "/s/x"; r.Databases[0].Path = "/s" },
			`databases[0].path: is "/s", want a path that is neither "/s/x" nor above it: that is a folder of this node`},
	} {
		t.Run(c.name, func(t *testing.T) { said(t, replica(c.change).Validate(), c.want) })
	}
}
