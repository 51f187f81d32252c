package config

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// Smallest files that load; a case appends to one, from line 5 on.
const (
	minimal = "node: n\ndatabases:\n  - name: app\n    path: ./app.db\n"
	noList  = "node: n\n"
)

// errorCase is a file and all that is said of it, a line for each mistake.
type errorCase struct {
	name, text string
	env        []string
	want       []string
}

func (c errorCase) run(t *testing.T, role string) {
	t.Helper()
	var err error
	if role == RolePrimary {
		_, err = ParsePrimary("c.yaml", []byte(c.text), c.env)
	} else {
		_, err = ParseReplica("c.yaml", []byte(c.text), c.env)
	}
	if err == nil {
		t.Fatalf("no error, want %q", c.want)
	}
	if !errors.Is(err, ErrInvalid) {
		t.Errorf("%v does not wrap ErrInvalid", err)
	}
	if strings.Contains(err.Error(), "hunter2") {
		t.Errorf("a secret shows in: %v", err)
	}
	if diff := cmp.Diff(strings.Join(c.want, "\n"), err.Error()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestYAMLErrors(t *testing.T) {
	const empty = "config: c.yaml: the file is empty; `replicator config defaults primary` (or replica) prints one to start from"
	for _, c := range []errorCase{
		{name: "empty", text: "", want: []string{empty}},
		{name: "comment only", text: "# nothing\n", want: []string{empty}},
		{name: "null", text: "~\n", want: []string{empty}},
		{name: "list", text: "- a\n", want: []string{"config: c.yaml:1: the file is a list, want lines such as node: primary-1"}},
		{name: "word", text: "hello\n", want: []string{"config: c.yaml:1: the file is text, want lines such as node: primary-1"}},
		{name: "tab", text: "node: n\nhttp:\n\tlisten: 127.0.0.1:80\n", want: []string{"config: c.yaml:3: indented with a tab, want spaces"}},
		{name: "tab between", text: "http:\n  pprof: true\n\tlisten: x\n", want: []string{"config: c.yaml:3: indented with a tab, want spaces"}},
		{name: "tab on line 1", text: "\tnode: n\n", want: []string{"config: c.yaml:1: indented with a tab, want spaces"}},
		{name: "secret that begins with @", text: minimal + "nats:\n  token: @hunter2\n#\n\n \t\n", want: []string{
			"config: c.yaml:6: not valid YAML: a value begins with a character that means something else in YAML; quote it"}},
		{name: "open quote", text: minimal + "nats:\n  token: \"hunter2\n", want: []string{
			"config: c.yaml:6: not valid YAML: found unexpected end of stream"}},
		{name: "syntax", text: "node: a: b\n", want: []string{"config: c.yaml: not valid YAML: mapping values are not allowed in this context"}},
		{name: "two documents", text: minimal + "---\nnode: m\n", want: []string{"config: c.yaml: holds a second document after ---, want one"}},
		{name: "secret that begins with *", text: minimal + "nats:\n  token: *hunter2\n", want: []string{
			"config: c.yaml: not valid YAML: a value begins with *; quote it"}},
		{name: "secret that begins with &", text: minimal + "nats:\n  token: &hunter2\n", want: []string{
			"config: c.yaml:6: nats.token: begins with *, & or !, which mean something else in YAML; quote the value"}},
		{name: "secret that begins with !", text: minimal + "nats:\n  token: !hunter2\n", want: []string{
			"config: c.yaml:6: nats.token: begins with *, & or !, which mean something else in YAML; quote the value"}},
	} {
		t.Run(c.name, func(t *testing.T) { c.run(t, RolePrimary) })
	}
}

func TestKeyErrors(t *testing.T) {
	for _, c := range []errorCase{
		{name: "typo in a list", text: "node: n\ndatabases:\n  - name: a\n    path: a.db\n  - name: b\n    pth: b.db\n", want: []string{
			"config: c.yaml:6: databases[1].pth: unknown key, did you mean path?"}},
		{name: "typo in a section", text: minimal + "http:\n  lisen: 127.0.0.1:80\n", want: []string{
			"config: c.yaml:6: http.lisen: unknown key, did you mean listen?"}},
		{name: "case", text: "Node: n\n" + minimal, want: []string{
			"config: c.yaml:1: Node: unknown key, did you mean node?"}},
		{name: "dash", text: minimal + "change-log:\n  fsync: true\n", want: []string{
			"config: c.yaml:5: change-log: unknown key, did you mean change_log?"}},
		{name: "wrong section", text: minimal + "pprof: true\n", want: []string{
			"config: c.yaml:5: pprof: unknown key, did you mean http.pprof? Each part of a key stands on its own line, indented below the one before"}},
		{name: "dotted", text: minimal + "nats.url: nats://h\n", want: []string{
			"config: c.yaml:5: nats.url: unknown key, did you mean nats.url? Each part of a key stands on its own line, indented below the one before"}},
		{name: "nothing near", text: minimal + "log:\n  rotation: daily\n", want: []string{
			"config: c.yaml:6: log.rotation: unknown key, want one of level, format"}},
		{name: "twice", text: minimal + "node: m\n", want: []string{
			"config: c.yaml:5: node: given twice, first on line 1; remove one"}},
		{name: "section twice", text: minimal + "log:\n  level: info\nlog:\n  format: json\n", want: []string{
			"config: c.yaml:7: log: given twice, first on line 5; remove one"}},
		{name: "secret glued to its key", text: minimal + "nats: {password:hunter2}\n", want: []string{
			"config: c.yaml:5: nats.password...: unknown key, did you mean password?"}},
		{name: "secret glued to its key, block", text: minimal + "nats:\n  password:hunter2\n", want: []string{
			"config: c.yaml:5: nats: is text, want a section: keys with values, indented below it (a colon needs a space after it)"}},
		{name: "key that is a list", text: minimal + "? [a]\n: 1\n", want: []string{
			"config: c.yaml:5: ?: unknown key, want one of node, data_dir, log, http, nats, stream, change_log, snapshot, capture, databases"}},
	} {
		t.Run(c.name, func(t *testing.T) { c.run(t, RolePrimary) })
	}
}

func TestTypeErrors(t *testing.T) {
	const size, duration = "want a size such as 64MiB, 500MB or plain bytes", "want a duration such as 10s, 1m30s or 7d"
	for _, c := range []errorCase{
		{name: "databases is a number", text: noList + "databases: 3\n", want: []string{
			`config: c.yaml:2: databases: is a number, want a list: one "- name: ..." with its "path: ..." for each`}},
		{name: "databases is a section", text: noList + "databases:\n  name: app\n", want: []string{
			`config: c.yaml:2: databases: is a section, want a list: one "- name: ..." with its "path: ..." for each`}},
		{name: "database is text", text: noList + "databases:\n  - app.db\n", want: []string{
			"config: c.yaml:3: databases[0]: is text, want a section: keys with values, indented below it (a colon needs a space after it)"}},
		{name: "section is a number", text: minimal + "http: 8080\n", want: []string{
			"config: c.yaml:5: http: is a number, want a section: keys with values, indented below it (a colon needs a space after it)"}},
		{name: "value is a list", text: minimal + "data_dir: [a, b]\n", want: []string{
			"config: c.yaml:5: data_dir: is a list, want one value"}},
		{name: "secret is a list", text: minimal + "nats:\n  token: [hunter2]\n", want: []string{
			"config: c.yaml:6: nats.token: is a list, want one value"}},
		{name: "secret of two lines", text: minimal + "nats:\n  token: |\n    hunter2\n    x\n", want: []string{
			"config: c.yaml:6: nats.token: want one line of text"}},
		{name: "yes", text: minimal + "http:\n  pprof: yes\n", want: []string{
			`config: c.yaml:6: http.pprof: is "yes", want true or false`}},
		{name: "number", text: minimal + "capture:\n  repin_frames: many\n", want: []string{
			`config: c.yaml:6: capture.repin_frames: is "many", want a whole number`}},
		{name: "size", text: minimal + "change_log:\n  segment_size: 64M\n", want: []string{
			`config: c.yaml:6: change_log.segment_size: is "64M", ` + size}},
		{name: "negative size", text: minimal + "nats:\n  max_store: -1\n", want: []string{
			`config: c.yaml:6: nats.max_store: is "-1", ` + size}},
		{name: "duration", text: minimal + "snapshot:\n  interval: 24\n", want: []string{
			`config: c.yaml:6: snapshot.interval: is "24", ` + duration}},
		{name: "control character", text: "node: \"a\\0b\"\n" + minimal[len(noList):], want: []string{
			`config: c.yaml:1: node: is "a\x00b", want one line of text`}},
		{name: "long value", text: "node: " + strings.Repeat("x", 100) + "\n" + minimal[len(noList):], want: []string{
			`config: c.yaml:1: node: is "` + strings.Repeat("x", 80) + `"..., want 1 to 64 of the characters a-z A-Z 0-9 _ -`}},
	} {
		t.Run(c.name, func(t *testing.T) { c.run(t, RolePrimary) })
	}
}

func TestEnvErrors(t *testing.T) {
	for _, c := range []errorCase{
		{name: "typo", env: []string{"REPLICATOR_HTTP_LISTN=x"}, want: []string{
			"config: REPLICATOR_HTTP_LISTN: unknown variable, did you mean REPLICATOR_HTTP_LISTEN?"}},
		{name: "nothing near", env: []string{"REPLICATOR_COLOUR=x"}, want: []string{
			"config: REPLICATOR_COLOUR: unknown variable; unset it, or rename it if it is not meant for replicator"}},
		{name: "list", env: []string{"REPLICATOR_DATABASES_0_PATH=x"}, want: []string{
			"config: REPLICATOR_DATABASES_0_PATH: no variable sets elements of a list; set databases in the file"}},
		{name: "type", env: []string{"REPLICATOR_CHANGE_LOG_FSYNC=1"}, want: []string{
			`config: REPLICATOR_CHANGE_LOG_FSYNC: change_log.fsync: is "1", want true or false`}},
		{name: "range", env: []string{"REPLICATOR_SNAPSHOT_KEEP=0"}, want: []string{
			"config: REPLICATOR_SNAPSHOT_KEEP: snapshot.keep: is 0, want 1 to 1000"}},
		{name: "secret", env: []string{"REPLICATOR_NATS_TOKEN=hunter2\n"}, want: []string{
			"config: REPLICATOR_NATS_TOKEN: nats.token: want one line of text"}},
	} {
		c.text = minimal
		t.Run(c.name, func(t *testing.T) { c.run(t, RolePrimary) })
	}
}

func TestAllMistakesAtOnce(t *testing.T) {
	errorCase{
		text: "node: a b\nhttp:\n  lisen: x\n  pprof: maybe\ndatabases:\n  - nam: app\n    path: a.db\n  - 7\n  - name: c\n    path: ./a.db\n",
		env:  []string{"REPLICATOR_LOG_LEVEL=loud", "REPLICATOR_LOG_LEVLE=info"},
		want: []string{
			"config: c.yaml:3: http.lisen: unknown key, did you mean listen?",
			`config: c.yaml:4: http.pprof: is "maybe", want true or false`,
			"config: c.yaml:6: databases[0].nam: unknown key, did you mean name?",
			"config: c.yaml:8: databases[1]: is a number, want a section: keys with values, indented below it (a colon needs a space after it)",
			"config: REPLICATOR_LOG_LEVLE: unknown variable, did you mean REPLICATOR_LOG_LEVEL?",
			`config: c.yaml:1: node: is "a b", want 1 to 64 of the characters a-z A-Z 0-9 _ -`,
			`config: REPLICATOR_LOG_LEVEL: log.level: is "loud", want debug or info or warn or error`,
			`config: c.yaml:10: databases[2].path: is "./a.db", want a file other than that of databases[0].path`,
		},
	}.run(t, RolePrimary)
}

func TestManyMistakesAreBounded(t *testing.T) {
	_, err := ParsePrimary("c.yaml", []byte(minimal+strings.Repeat("  - {}\n", 100)), nil) // two mistakes each
	lines := strings.Split(err.Error(), "\n")
	if len(lines) != maxShown+1 || lines[maxShown] != "config: c.yaml: and 100 more mistakes" {
		t.Errorf("%d lines, the last %q", len(lines), lines[len(lines)-1])
	}
}

func TestFileErrors(t *testing.T) {
	dir := t.TempDir()
	missing, folder, large := filepath.Join(dir, "missing.yaml"), dir, filepath.Join(dir, "large.yaml")
	write(t, large, strings.Repeat("#", maxFile+1))
	for path, want := range map[string]string{
		missing: "no such file; `replicator config defaults primary` (or replica) prints one to start from",
		folder:  "cannot read the file: is a directory",
		large:   "cannot read the file: it is larger than 1MiB",
	} {
		_, errP := LoadPrimary(path, nil)
		_, errR := LoadReplica(path, nil)
		role, errC := Check(path, nil)
		if role != "" {
			t.Errorf("Check(%s) has role %q", path, role)
		}
		for _, err := range []error{errP, errR, errC} {
			if err == nil || err.Error() != "config: "+path+": "+want || !errors.Is(err, ErrInvalid) {
				t.Errorf("%s: %v, want %s", path, err, want)
			}
		}
	}
	if _, err := LoadPrimary(missing, nil); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%v does not wrap os.ErrNotExist", err)
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}
