package config

import (
	"errors"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestLayers(t *testing.T) {
	text := minimal + "http:\n  listen: 127.0.0.1:1\nnats:\n  user: 0123\n  password: 0x10\nlog:\n"
	p, err := ParsePrimary("c.yaml", []byte(text), []string{
		"PATH=/bin", "replicator_node=no", "REPLICATOR_HTTP_LISTEN=127.0.0.1:2", "REPLICATOR_NODE=",
		"REPLICATOR_NATS_MAX_STORE=1GiB", "REPLICATOR_SNAPSHOT_INTERVAL=7d", "REPLICATOR_CHANGE_LOG_FSYNC=false",
		// What Kubernetes sets beside services named replicator and replicator-primary.
		"REPLICATOR_SERVICE_HOST=10.0.0.1", "REPLICATOR_SERVICE_PORT=80", "REPLICATOR_SERVICE_PORT_HTTP=80",
		"REPLICATOR_PORT=tcp://10.0.0.1:80", "REPLICATOR_PORT_80_TCP=x", "REPLICATOR_PRIMARY_PORT_80_TCP_ADDR=10.0.0.1",
	})
	if err != nil {
		t.Fatal(err)
	}
	want := DefaultPrimary()
	want.Node = "n"                     // an empty variable is none
	want.HTTP.Listen = "127.0.0.1:2"    // variable over file
	want.NATS.Credentials.User = "0123" // as written, not YAML's 83
	want.NATS.Credentials.Password = "0x10"
	want.NATS.Embedded.MaxStore = 1 * GiB // variable over default, in a squashed struct
	want.Snapshot.Interval = 7 * day
	want.ChangeLog.Fsync = false
	want.Databases = []PrimaryDatabase{{Name: "app", Path: "./app.db"}}
	if diff := cmp.Diff(want, p); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// One variable must not mean two keys, nor be taken for one of Kubernetes'.
func TestVariableNames(t *testing.T) {
	for role, schema := range schemas() {
		taken := map[string]string{}
		eachLeaf(schema, "", func(key string, _ reflect.Type) {
			name := envName(key)
			if other := taken[name]; other != "" {
				t.Errorf("%s: %s is both %s and %s", role, name, other, key)
			}
			if serviceLinks.MatchString(name) {
				t.Errorf("%s: %s would be skipped", role, name)
			}
			taken[name] = key
		})
		if taken["REPLICATOR_NATS_TLS_CA_FILE"] != "nats.tls.ca_file" {
			t.Errorf("%s: nats.tls.ca_file has no variable", role)
		}
	}
}

func TestSecretFiles(t *testing.T) {
	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		write(t, path, text)
		return path
	}
	good, crlf := file("good", "hunter2\n"), file("crlf", "hunter2\r\n")
	empty, lines, large := file("empty", "\n"), file("lines", "a\nb"), file("large", strings.Repeat("x", maxSecretFile+1))

	p, err := ParsePrimary("c.yaml", []byte(minimal+"nats:\n  user: u\n  password_file: "+good+"\nhttp:\n  token_file: "+crlf+"\n"), nil)
	if err != nil {
		t.Fatal(err)
	}
	if p.NATS.Credentials.Password.Reveal() != "hunter2" || p.HTTP.Token.Reveal() != "hunter2" {
		t.Error("the secrets are not what the files hold")
	}
	missing := filepath.Join(dir, "missing")
	for _, c := range []errorCase{
		{name: "missing", text: "http:\n  listen: :80\n  token_file: " + missing, want: []string{
			`config: c.yaml:7: http.token_file: cannot read "` + missing + `": no such file or directory`}},
		{name: "folder", text: "nats:\n  user: u\n  password_file: " + dir, want: []string{
			`config: c.yaml:7: nats.password_file: cannot read "` + dir + `": is a directory`}},
		{name: "empty", text: "nats:\n  token_file: " + empty, want: []string{
			`config: c.yaml:6: nats.token_file: cannot read "` + empty + `": it is empty`}},
		{name: "two lines", text: "nats:\n  token_file: " + lines, want: []string{
			`config: c.yaml:6: nats.token_file: cannot read "` + lines + `": want one line of text in it`}},
		{name: "large", text: "nats:\n  token_file: " + large, want: []string{
			`config: c.yaml:6: nats.token_file: cannot read "` + large + `": it is larger than 64KiB`}},
		{name: "both", text: "nats:\n  token: hunter2\n  token_file: " + good, want: []string{
			"config: c.yaml:7: nats.token_file: set together with nats.token, want one of the two"}},
	} {
		c.text = minimal + c.text + "\n"
		t.Run(c.name, func(t *testing.T) { c.run(t, RolePrimary) })
	}
}

func TestCheck(t *testing.T) {
	for _, c := range []struct{ name, text, role, want string }{
		{"primary", minimal + "capture:\n  repin_frames: 100\n", RolePrimary, ""},
		{"replica", minimal + "apply:\n  hold_write_lock: false\n", RoleReplica, ""},
		{"fits both", minimal, RolePrimary, ""},
		{"fits both, with a server", minimal + "nats:\n  url: nats://h:4222\n", RoleEither, ""},
		{"both wrong in one thing", "data_dri: x\n" + minimal + "nats:\n  url: nats://h:4222\n", RoleEither, "data_dri"},
		{"primary with a mistake", minimal + "capture:\n  max_stall: 20\nstream:\n  max_age: 1h\n", RolePrimary, "capture.max_stall"},
		{"replica with a mistake", minimal + "apply:\n  cache_size: 1\nreport_interval: 1s\n", RoleReplica, "apply.cache_size"},
		{"no YAML", "a: b: c", "", "not valid YAML"},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "c.yaml")
			write(t, path, c.text)
			role, err := Check(path, nil)
			if role != c.role {
				t.Errorf("role %q, want %q", role, c.role)
			}
			if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, want %q", err, c.want)
			}
		})
	}
}

func TestFileOfTheOtherRole(t *testing.T) {
	for role, load := range map[string]func(string) error{
		RolePrimary: func(text string) error { _, err := ParseReplica("c.yaml", []byte(text), nil); return err },
		RoleReplica: func(text string) error { _, err := ParsePrimary("c.yaml", []byte(text), nil); return err },
	} {
		text, err := Defaults(role)
		if err != nil {
			t.Fatal(err)
		}
		want := "config: c.yaml: is the configuration of a " + role + ": start it with `replicator " + role + " --config c.yaml`"
		if err := load(text); err == nil || err.Error() != want {
			t.Errorf("%v, want %s", err, want)
		}
	}
}

func TestResolve(t *testing.T) {
	p := DefaultPrimary()
	p.Node = "n"
	p.Databases = []PrimaryDatabase{{Name: "a", Path: "a.db"}, {Name: "b", Path: "/srv/a.db", SnapshotInterval: time.Hour}}
	p.NATS.Credentials.CredsFile = "../x.creds"
	p.Snapshot.Store = StoreDir
	got := p.Resolve("/srv")
	want := p
	want.DataDir = "/srv/data/n"
	want.NATS.Embedded.StoreDir = "/srv/data/n/nats"
	want.NATS.Credentials.CredsFile = "/x.creds"
	want.Snapshot.Dir = "/srv/data/n/snapshots"
	want.Databases = []PrimaryDatabase{{Name: "a", Path: "/srv/a.db"}, {Name: "b", Path: "/srv/a.db", SnapshotInterval: time.Hour}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if p.Databases[0].Path != "a.db" {
		t.Error("Resolve changed its receiver")
	}
	const clash = `databases[1].path: is "/srv/a.db", want a file other than that of databases[0].path`
	if err := got.Validate(); err == nil || !strings.Contains(err.Error(), clash) {
		t.Errorf("two spellings of one path: %v", err)
	}
	if a, b := got.WithInherited(0), got.WithInherited(1); a.SnapshotInterval != 24*time.Hour || b.SnapshotInterval != time.Hour {
		t.Errorf("snapshot intervals %v and %v", a.SnapshotInterval, b.SnapshotInterval)
	}
}

func FuzzParse(f *testing.F) {
	for role := range schemas() {
		text, _ := Defaults(role)
		f.Add([]byte(text), "REPLICATOR_HTTP_LISTEN=:80")
	}
	f.Add([]byte(minimal+"nats:\n  token: *a\n"), "REPLICATOR_X=1")
	f.Add([]byte("a: &a [*a]\n? {b: c}\n: d\n"), "REPLICATOR_=")
	f.Fuzz(func(t *testing.T, text []byte, env string) {
		if strings.Contains(string(text)+strings.ToLower(env), "_file") {
			t.Skip("would read files")
		}
		p, err := ParsePrimary("f", text, []string{env})
		if err == nil {
			err = p.Validate()
			_ = p.Resolve("/srv").Validate()
		}
		if err != nil && !errors.Is(err, ErrInvalid) {
			t.Errorf("%v does not wrap ErrInvalid", err)
		}
		r, err := ParseReplica("f", text, []string{env})
		if err == nil {
			err = r.Validate()
			_ = r.Resolve("/srv").Validate()
		}
		if err != nil && !errors.Is(err, ErrInvalid) {
			t.Errorf("%v does not wrap ErrInvalid", err)
		}
	})
}
