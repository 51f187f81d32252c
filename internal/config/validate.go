package config

import (
	"fmt"
	"strings"
	"time"
	"unicode"
)

// Validate reports every mistake in p, not the first. It looks at values only:
// no file, socket or database is touched.
func (p Primary) Validate() error {
	r := newReport("")
	p.check(r)
	return r.err()
}

// Validate reports every mistake in r, not the first. It looks at values only:
// no file, socket or database is touched.
func (r Replica) Validate() error {
	report := newReport("")
	r.check(report)
	return report.err()
}

func (p Primary) check(r *report) {
	r.checkNode(p.Node, RolePrimary+"-1")
	p.Log.check(r)
	p.HTTP.check(r)
	p.NATS.check(r)
	p.checkLimits(r)
	p.Snapshot.check(r)
	p.Capture.check(r)
	if n := p.NATS; n.IsEmbedded() && n.Embedded.Listen == p.HTTP.Listen && !strings.HasSuffix(p.HTTP.Listen, ":0") {
		r.bad("http.listen", quote(p.HTTP.Listen), "an address other than nats.listen")
	}
	databases := make([]database, len(p.Databases))
	for i, d := range p.Databases {
		databases[i] = database{d.Name, d.Path}
		at := elementKey("databases", i)
		atLeast(r, join(at, "max_sqlite_wal"), d.MaxSQLiteWAL, 2*p.Capture.TurnoverSize, "0 for capture.max_sqlite_wal")
		atLeast(r, join(at, "snapshot_interval"), d.SnapshotInterval, time.Second, "0 for snapshot.interval")
	}
	r.checkDatabases(databases, p.dataDir(), p.storeDir(), p.snapshotDir())
}

func (r Replica) check(report *report) {
	report.checkNode(r.Node, RoleReplica+"-1")
	r.Log.check(report)
	r.HTTP.check(report)
	if r.NATS.URL == "" {
		report.add("nats.url", "not set, want the primary's nats.listen or your NATS server, such as nats://127.0.0.1:4222")
	} else {
		report.checkURL(r.NATS.URL)
	}
	r.NATS.Credentials.check(report)
	r.NATS.TLS.check(report)
	r.Apply.check(report)
	r.Snapshot.check(report)
	within(report, "report_interval", r.ReportInterval, 100*time.Millisecond, mostReportInterval)
	databases := make([]database, len(r.Databases))
	for i, d := range r.Databases {
		databases[i] = database{d.Name, d.Path}
	}
	report.checkDatabases(databases, r.dataDir(), r.Snapshot.Dir)
}

// mostReportInterval leaves a report in time where a quiet replica leaves out every second
// one: after five seconds of silence the primary holds it for gone.
const mostReportInterval = 2 * time.Second

// checkLimits looks at the sizes that bound the primary's disk.
func (p Primary) checkLimits(r *report) {
	const auto = "0 for a limit by free space"
	atLeast(r, "stream.max_bytes", p.Stream.MaxBytes, 1*MiB, auto)
	atLeast(r, "stream.max_age", p.Stream.MaxAge, time.Minute, "0 for no limit")
	oneOf(r, "stream.compression", p.Stream.Compression, "none", "s2")
	p.checkStore(r)
	within(r, "change_log.segment_size", p.ChangeLog.SegmentSize, 1*MiB, 1*GiB)
	atLeast(r, "change_log.max_size", p.ChangeLog.MaxSize, 2*p.ChangeLog.SegmentSize, auto)
	oneOf(r, "change_log.compression", p.ChangeLog.Compression, "s2", "zstd")
	if p.ChangeLog.RetainAge < 10*time.Minute {
		r.bad("change_log.retain_age", FormatDuration(p.ChangeLog.RetainAge),
			"at least 10m: until then NATS may lose at a power failure what it acknowledged")
	}
}

// LeastAuto is the least of a size that is chosen by free space: below it nothing works.
const LeastAuto = 16 * MiB

// checkStore looks at what the streams of all databases may take of nats.max_store.
func (p Primary) checkStore(r *report) {
	store, n := p.NATS.Embedded.MaxStore, len(p.Databases)
	if !p.NATS.IsEmbedded() || store == 0 || n == 0 {
		return
	}
	each, of := store/Size(n), "nats.max_store, which is "+store.String()
	if n > 1 {
		of = fmt.Sprintf("1/%d of %s", n, of)
	}
	switch {
	case p.Stream.MaxBytes > each:
		r.bad("stream.max_bytes", show(p.Stream.MaxBytes), "at most "+of)
	case p.Stream.MaxBytes == 0 && each < LeastAuto:
		r.bad("nats.max_store", show(store), "at least "+show(LeastAuto*Size(n))+", which is "+show(LeastAuto)+" for each stream, or stream.max_bytes")
	}
}

func (n PrimaryNATS) check(r *report) {
	n.Credentials.check(r)
	n.TLS.check(r)
	within(r, "nats.replicas", n.Replicas, 1, 5)
	if !n.IsEmbedded() {
		r.checkURL(n.URL)
		return
	}
	if n.Replicas > 1 {
		r.bad("nats.replicas", show(n.Replicas), "1, as the embedded server is alone; more copies need a cluster in nats.url")
	}
	for _, o := range []struct {
		key string
		set bool
	}{
		{"nats.creds_file", n.Credentials.CredsFile != ""},
		{"nats.nkey_file", n.Credentials.NKeyFile != ""},
		{"nats.tls.ca_file", n.TLS.CAFile != ""},
		{"nats.tls.insecure_skip_verify", n.TLS.InsecureSkipVerify},
	} {
		if o.set {
			r.add(o.key, "set, but nats.url is empty: it is for connecting to a server, not for the embedded one")
		}
	}
	n.Embedded.check(r)
	if r.checkListen("nats.listen", n.Embedded.Listen) && !n.Credentials.isSet() {
		r.add("nats.listen", "%s can be reached from other machines and asks for no credentials; add to the file\n"+
			"  nats:\n    user: replicator\n    password_file: ./nats.password\n"+
			"and the same on each replica, or set nats.listen: 127.0.0.1:4222", quote(n.Embedded.Listen))
	}
}

func (s EmbeddedServer) check(r *report) {
	within(r, "nats.max_payload", s.MaxPayload, 1*MiB, 8*MiB)
	within(r, "nats.sync_interval", s.SyncInterval, 10*time.Millisecond, 10*time.Second)
	atLeast(r, "nats.max_store", s.MaxStore, 1*MiB, "0 for a limit by free space")
}

// isSet reports whether a client of the embedded server must present something.
func (c Credentials) isSet() bool { return c.User != "" || c.Token.IsSet() || c.TokenFile != "" }

func (c Credentials) check(r *report) {
	var set []string
	for _, o := range []struct {
		key string
		set bool
	}{
		{"creds_file", c.CredsFile != ""},
		{"nkey_file", c.NKeyFile != ""},
		{"user", c.User != ""},
		{"token", c.Token.IsSet()},
	} {
		if o.set {
			set = append(set, o.key)
		}
	}
	if len(set) > 1 {
		r.add("nats."+set[1], "set together with nats.%s, want one kind of credentials", set[0])
	}
	if c.User != "" && !c.Password.IsSet() {
		r.add("nats.password", "not set, but nats.user is; want nats.password or nats.password_file")
	}
	if c.User == "" && c.Password.IsSet() {
		r.add("nats.user", "not set, but a password is; want both")
	}
}

func (t TLS) check(r *report) {
	if t.CertFile != "" && t.KeyFile == "" {
		r.add("nats.tls.key_file", "not set, but nats.tls.cert_file is; want both")
	}
	if t.CertFile == "" && t.KeyFile != "" {
		r.add("nats.tls.cert_file", "not set, but nats.tls.key_file is; want both")
	}
}

func (l Log) check(r *report) {
	oneOf(r, "log.level", l.Level, "debug", "info", "warn", "error")
	oneOf(r, "log.format", l.Format, "text", "json")
}

func (h HTTP) check(r *report) {
	if strings.ContainsFunc(h.Token.Reveal(), func(c rune) bool { return unicode.IsSpace(c) || c > unicode.MaxASCII }) {
		r.add("http.token", "holds spaces or characters beyond ASCII, which an HTTP header cannot carry")
	}
	if r.checkListen("http.listen", h.Listen) && !h.Token.IsSet() && !h.AllowInsecure && !r.silent["http.token"] {
		r.add("http.listen", "%s can be reached from other machines and asks for no token; add to the file\n"+
			"  http:\n    token_file: ./http.token\n"+
			"or, where the network is trusted,\n  http:\n    allow_insecure: true\n"+
			"or set http.listen: 127.0.0.1:8080", quote(h.Listen))
	}
}

func (s PrimarySnapshot) check(r *report) {
	atLeast(r, "snapshot.interval", s.Interval, time.Second, "0 for none by time")
	atLeast(r, "snapshot.after_bytes", s.AfterBytes, 64*KiB, "0 for none by size")
	if s.Interval == 0 && s.AfterBytes == 0 {
		r.add("snapshot.interval", "0 like snapshot.after_bytes: the change log would never shrink; want one of them")
	}
	within(r, "snapshot.keep", s.Keep, 1, 1000)
	atLeast(r, "snapshot.max_held", s.MaxHeld, 1*MiB, "0 for a limit by free space")
	within(r, "snapshot.chunk_size", s.ChunkSize, 64*KiB, 64*MiB)
	within(r, "snapshot.max_memory", s.MaxMemory, 1*MiB, 64*GiB)
	oneOf(r, "snapshot.compression", s.Compression, "s2", "zstd", "none")
	oneOf(r, "snapshot.store", s.Store, StoreNATS, StoreDir)
	if s.Dir != "" && s.Store == StoreNATS {
		r.bad("snapshot.dir", quote(s.Dir), "nothing, or snapshot.store: dir")
	}
}

func (s ReplicaSnapshot) check(r *report) {
	within(r, "snapshot.max_memory", s.MaxMemory, 1*MiB, 64*GiB)
	oneOf(r, "snapshot.store", s.Store, StoreNATS, StoreDir)
	if s.Dir != "" && s.Store == StoreNATS {
		r.bad("snapshot.dir", quote(s.Dir), "nothing, or snapshot.store: dir")
	}
	if s.Dir == "" && s.Store == StoreDir {
		r.add("snapshot.dir", "not set, but snapshot.store is dir; want the folder where the primary puts its snapshots")
	}
}

func (c Capture) check(r *report) {
	within(r, "capture.turnover_size", c.TurnoverSize, 64*KiB, 1*GiB)
	atLeast(r, "capture.max_sqlite_wal", c.MaxSQLiteWAL, 2*c.TurnoverSize, "0 for a limit by free space")
	within(r, "capture.repin_frames", c.RepinFrames, 1, 100_000)
	within(r, "capture.max_stall", c.MaxStall, time.Millisecond, 10*time.Second)
	within(r, "capture.poll_interval", c.PollInterval, 100*time.Microsecond, time.Second)
}

func (a Apply) check(r *report) {
	within(r, "apply.group_max_records", a.GroupMaxRecords, 1, 1_000_000)
	within(r, "apply.group_max_bytes", a.GroupMaxBytes, 64*KiB, 64*MiB)
	within(r, "apply.cache_size", a.CacheSize, 1*MiB, 4*GiB)
	within(r, "apply.checkpoint_size", a.CheckpointSize, 64*KiB, 4*GiB)
	oneOf(r, "apply.on_divergence", a.OnDivergence, OnDivergenceReseed, OnDivergenceStop)
}
