package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sqlite-replicator/replicator/cdc"
	"github.com/sqlite-replicator/replicator/internal/config"
	"github.com/sqlite-replicator/replicator/primary"
	"github.com/sqlite-replicator/replicator/replica"
	"github.com/sqlite-replicator/replicator/snapshot"
	"github.com/sqlite-replicator/replicator/stream"
	"github.com/sqlite-replicator/replicator/web"
)

// A wired is what comes of a configuration: the options of all packages.
type wired struct {
	log       config.Log
	web       web.Options
	nats      stream.Options // to servers of your own
	primary   primary.Options
	server    stream.ServerOptions
	stream    stream.StreamConfig
	snapshots string // where they are stored: nats or the folder
	records   cdc.Codec
	replica   replica.Options
	turns     *snapshot.Turns
}

// A wire says that a key, with others that it needs, arrives somewhere.
type wire struct {
	set  string // key=value, and further ones that go with it
	want any
	got  func(wired) any
}

// commonWires are the keys of both roles.
var commonWires = []wire{
	{"log.level=debug", true, func(w wired) any {
		return newLogger(&environment{stderr: &bytes.Buffer{}}, w.log).Enabled(context.Background(), slog.LevelDebug)
	}},
	{"log.format=json", `"msg":"hello"`, func(w wired) any {
		var b bytes.Buffer
		newLogger(&environment{stderr: &b}, w.log).Info("hello")
		_, text, _ := strings.Cut(strings.TrimRight(b.String(), "}\n"), "\"INFO\",")
		return text
	}},
	{"http.listen=127.0.0.1:7", "127.0.0.1:7", func(w wired) any { return w.web.Listen }},
	{"http.token=sesame", "sesame", func(w wired) any { return w.web.Token }},
	{"http.token_file=secret", "from-a-file", func(w wired) any { return w.web.Token }},
	{"http.pprof=true", true, func(w wired) any { return w.web.Pprof }},
	{"http.allow_insecure=true http.listen=0.0.0.0:7", "0.0.0.0:7", func(w wired) any { return w.web.Listen }}, // else refused
	{"nats.creds_file=f nats.url=nats://far:1", "/wd/f", func(w wired) any { return w.nats.Credentials.CredsFile }},
	{"nats.nkey_file=f nats.url=nats://far:1", "/wd/f", func(w wired) any { return w.nats.Credentials.NKeyFile }},
	{"nats.user=u nats.password=p nats.url=nats://far:1", "u", func(w wired) any { return w.nats.Credentials.User }},
	{"nats.password=p nats.user=u nats.url=nats://far:1", "p", func(w wired) any { return w.nats.Credentials.Password }},
	{"nats.password_file=secret nats.user=u nats.url=nats://far:1", "from-a-file", func(w wired) any { return w.nats.Credentials.Password }},
	{"nats.token=t nats.url=nats://far:1", "t", func(w wired) any { return w.nats.Credentials.Token }},
	{"nats.token_file=secret nats.url=nats://far:1", "from-a-file", func(w wired) any { return w.nats.Credentials.Token }},
	{"nats.url=nats://far:1,nats://away:2", "nats://far:1,nats://away:2", func(w wired) any { return w.nats.URL }},
	{"nats.tls.ca_file=f nats.url=nats://far:1", "/wd/f", func(w wired) any { return w.nats.TLS.CA }},
	{"nats.tls.cert_file=f nats.tls.key_file=g nats.url=nats://far:1", "/wd/f", func(w wired) any { return w.nats.TLS.Cert }},
	{"nats.tls.key_file=g nats.tls.cert_file=f nats.url=nats://far:1", "/wd/g", func(w wired) any { return w.nats.TLS.Key }},
	{"nats.tls.insecure_skip_verify=true nats.url=nats://far:1", true, func(w wired) any { return w.nats.TLS.Insecure }},
	{"snapshot.store=dir snapshot.dir=s", "/wd/s", func(w wired) any { return w.snapshots }},
	{"snapshot.dir=s snapshot.store=dir", "/wd/s", func(w wired) any { return w.snapshots }},
	{"snapshot.max_memory=9MiB", int64(9 << 20), func(w wired) any { return w.turns.Bytes() }},
}

var primaryWires = append([]wire{
	{"node=n", "n", func(w wired) any { return w.primary.Node }},
	{"data_dir=d", "/wd/d/app", func(w wired) any { return w.primary.Dir }},
	{"databases.name", "app", func(w wired) any { return w.primary.Name }},
	{"databases.path", "/wd/app.db", func(w wired) any { return w.primary.Path }},
	{"databases.max_sqlite_wal", int64(200 << 20), func(w wired) any { return w.primary.Capture.MaxSQLiteWAL }},
	{"databases.snapshot_interval", 2 * time.Hour, func(w wired) any { return w.primary.Snapshot.Interval }},

	{"nats.listen=127.0.0.1:9", "127.0.0.1:9", func(w wired) any { return w.server.Listen }},
	{"nats.store_dir=s", "/wd/s", func(w wired) any { return w.server.Dir }},
	{"nats.max_store=3GiB", int64(3 << 30), func(w wired) any { return w.server.MaxStore }},
	{"nats.max_payload=4MiB", 4 << 20, func(w wired) any { return w.server.MaxPayload }},
	{"nats.sync_interval=3s", 3 * time.Second, func(w wired) any { return w.server.SyncInterval }},
	{"nats.sync_always=true", true, func(w wired) any { return w.server.SyncAlways }},
	{"nats.replicas=3 nats.url=nats://far:1", 3, func(w wired) any { return w.stream.Replicas }},
	{"nats.user=u nats.password=p", stream.ServerAuth{User: "u", Password: "p"}, func(w wired) any { return w.server.Auth }},
	{"nats.token=t", stream.ServerAuth{Token: "t"}, func(w wired) any { return w.server.Auth }},
	{"nats.tls.cert_file=f nats.tls.key_file=g", stream.TLS{Cert: "/wd/f", Key: "/wd/g"}, func(w wired) any { return w.server.TLS }},

	{"stream.max_bytes=5MiB", int64(5 << 20), func(w wired) any { return w.stream.MaxBytes }},
	{"stream.max_age=2h", 2 * time.Hour, func(w wired) any { return w.primary.Snapshot.StreamAge }},
	{"stream.compression=s2", true, func(w wired) any { return w.stream.Compress }},

	{"change_log.segment_size=2MiB", int64(2 << 20), func(w wired) any { return w.primary.ChangeLog.SegmentBytes }},
	{"change_log.max_size=300MiB", int64(300 << 20), func(w wired) any { return w.primary.ChangeLog.MaxBytes }},
	{"change_log.retain_age=11m", 11 * time.Minute, func(w wired) any { return w.primary.ChangeLog.RetainFor }},
	{"change_log.compression=zstd", cdc.Zstd, func(w wired) any { return w.records }},
	{"change_log.fsync=false", true, func(w wired) any { return w.primary.ChangeLog.NoSync }},

	{"snapshot.interval=2h", 2 * time.Hour, func(w wired) any { return w.primary.Snapshot.Interval }},
	{"snapshot.interval=0", time.Duration(unreached), func(w wired) any { return w.primary.Snapshot.Interval }},
	{"snapshot.after_bytes=7MiB", int64(7 << 20), func(w wired) any { return w.primary.Snapshot.AfterBytes }},
	{"snapshot.after_bytes=0", int64(unreached), func(w wired) any { return w.primary.Snapshot.AfterBytes }},
	{"snapshot.keep=5", 5, func(w wired) any { return w.primary.Snapshot.Keep }},
	{"snapshot.max_held=6MiB", int64(6 << 20), func(w wired) any { return w.primary.Snapshot.MaxHeld }},
	{"snapshot.chunk_size=1MiB", 1 << 20, func(w wired) any { return w.primary.Snapshot.ChunkBytes }},
	{"snapshot.compression=zstd", snapshot.Zstd, func(w wired) any { return w.primary.Snapshot.Codec }},

	{"capture.max_sqlite_wal=100MiB", int64(100 << 20), func(w wired) any { return w.primary.Capture.MaxSQLiteWAL }},
	{"capture.turnover_size=2MiB", int64(2 << 20), func(w wired) any { return w.primary.Capture.TurnoverBytes }},
	{"capture.repin_frames=77", uint32(77), func(w wired) any { return w.primary.Capture.RepinFrames }},
	{"capture.max_stall=7ms", 7 * time.Millisecond, func(w wired) any { return w.primary.Capture.MaxStall }},
	{"capture.poll_interval=70ms", 70 * time.Millisecond, func(w wired) any { return w.primary.Capture.PollInterval }},
	{"capture.sync_source=true", true, func(w wired) any { return w.primary.Capture.SyncSource }},
}, commonWires...)

var replicaWires = append([]wire{
	{"node=n", "n", func(w wired) any { return w.nats.Name }},
	{"data_dir=d", "/wd/d/app", func(w wired) any { return w.replica.SpoolDir }},
	{"databases.name", "app", func(w wired) any { return w.replica.Database }},
	{"databases.path", "/wd/app.db", func(w wired) any { return w.replica.Path }},
	{"apply.group_max_records=77", 77, func(w wired) any { return w.replica.Apply.GroupMaxRecords }},
	{"apply.group_max_bytes=1MiB", int64(1 << 20), func(w wired) any { return w.replica.Apply.GroupMaxBytes }},
	{"apply.cache_size=5MiB", int64(5 << 20), func(w wired) any { return w.replica.Apply.CacheBytes }},
	{"apply.checkpoint_size=9MiB", int64(9 << 20), func(w wired) any { return w.replica.Apply.CheckpointBytes }},
	{"apply.hold_write_lock=false", false, func(w wired) any { return w.replica.Apply.HoldWriteLock }},
	{"apply.on_divergence=stop", replica.Stop, func(w wired) any { return w.replica.Apply.OnDivergence }},
	{"report_interval=2s", 2 * time.Second, func(w wired) any { return w.replica.ReportInterval }},
}, commonWires...)

// TestSettingsArrive: each key that `config defaults` prints reaches the option of
// the package that acts by it, and none is left out here.
func TestSettingsArrive(t *testing.T) {
	for role, wires := range map[string][]wire{config.RolePrimary: primaryWires, config.RoleReplica: replicaWires} {
		seen := map[string]bool{}
		for _, w := range wires {
			key, _, _ := strings.Cut(strings.Fields(w.set)[0], "=")
			seen[key] = true
			t.Run(role+"/"+w.set, func(t *testing.T) {
				if got := w.got(wireUp(t, role, w.set)); got != w.want {
					t.Errorf("%v (%T) arrives, want %v (%T)", got, got, w.want, w.want)
				}
			})
		}
		for _, key := range defaultKeys(t, role) {
			if !seen[key] {
				t.Errorf("%s of a %s: nothing shows that it is used", key, role)
			}
		}
	}
}

// wireUp loads a configuration with some settings, given as variables, and derives
// everything from it.
func wireUp(t *testing.T, role, settings string) (w wired) {
	t.Helper()
	file := filepath.Join(t.TempDir(), role+".yaml")
	secret := filepath.Join(filepath.Dir(file), "secret")
	text := "node: x\nnats: {listen: '127.0.0.1:4222'}\ndatabases: [{name: app, path: app.db}]\n"
	switch {
	case role == config.RoleReplica:
		text = "node: x\nnats: {url: 'nats://127.0.0.1:4222'}\ndatabases: [{name: app, path: app.db}]\n"
	case strings.HasPrefix(settings, "databases."):
		text = strings.Replace(text, "app.db}", "app.db, max_sqlite_wal: 200MiB, snapshot_interval: 2h}", 1)
	}
	for path, content := range map[string]string{file: text, secret: "from-a-file\n"} {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	e := &environment{wd: "/wd"}
	for _, s := range strings.Fields(settings) {
		key, value, _ := strings.Cut(s, "=")
		if value == "secret" {
			value = secret
		}
		if !strings.HasPrefix(key, "databases.") {
			e.environ = append(e.environ, fmt.Sprintf("REPLICATOR_%s=%s", strings.ToUpper(strings.ReplaceAll(key, ".", "_")), value))
		}
	}
	if role == config.RoleReplica {
		c, err := loadReplica(e, file)
		if err != nil {
			t.Fatal(err)
		}
		return wired{
			log: c.Log, web: webOptions(c.HTTP), nats: natsOptions(c.Node, c.NATS.URL, c.NATS.Credentials, c.NATS.TLS),
			replica: replicaOptions(c, c.Databases[0]), turns: snapshotTurns(c.Snapshot.MaxMemory), snapshots: storedAt(c.Snapshot.Store, c.Snapshot.Dir),
		}
	}
	c, err := loadPrimary(e, file)
	if err != nil {
		t.Fatal(err)
	}
	return wired{
		log: c.Log, web: webOptions(c.HTTP), nats: natsOptions(c.Node, c.NATS.URL, c.NATS.Credentials, c.NATS.TLS),
		records: recordCodec(c),
		primary: pipelineOptions(c, 0), server: serverOptions(c), stream: streamConfig(c), turns: snapshotTurns(c.Snapshot.MaxMemory), snapshots: storedAt(c.Snapshot.Store, c.Snapshot.Dir),
	}
}

// storedAt is where snapshots go, without a connection.
func storedAt(store, dir string) string {
	if store == config.StoreDir {
		return dir
	}
	return store
}

// defaultKeys are the full keys that `config defaults` prints, elements of lists
// without their number.
func defaultKeys(t *testing.T, role string) (keys []string) {
	t.Helper()
	text, err := config.Defaults(role)
	if err != nil {
		t.Fatal(err)
	}
	type section struct {
		indent int
		key    string
	}
	var in []section
	for lines := bufio.NewScanner(strings.NewReader(text)); lines.Scan(); {
		line := strings.Replace(lines.Text(), "- ", "  ", 1)
		line, _, _ = strings.Cut(line, "#")
		key, value, is := strings.Cut(strings.TrimSpace(line), ":")
		if !is {
			continue
		}
		indent := len(line) - len(strings.TrimLeft(line, " "))
		in = slices.DeleteFunc(in, func(s section) bool { return s.indent >= indent })
		if len(in) > 0 {
			key = in[len(in)-1].key + "." + key
		}
		if strings.TrimSpace(value) == "" {
			in = append(in, section{indent, key})
			continue
		}
		keys = append(keys, key)
	}
	return keys
}
