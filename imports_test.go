package replicator_test

import (
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/sqlite-replicator/replicator"

// arrows says which of our packages each one may import, test files included.
// An arrow that is not here is a mistake in the design or in the import: change
// this table only together with the reason for it.
var arrows = map[string][]string{
	"cdc":                 {},
	"internal/clock":      {},
	"internal/config":     {},
	"internal/durable":    {},
	"internal/loopback":   {},
	"internal/sqlite":     {},
	"internal/sqlitefile": {},
	"internal/tick":       {},
	"wal":                 {"cdc", "internal/durable"},
	"snapshot":            {"cdc", "internal/clock", "internal/durable"},
	"stream":              {"cdc", "internal/durable", "internal/tick"},
	"primary":             {"cdc", "internal/clock", "internal/durable", "internal/sqlite", "internal/sqlitefile", "internal/tick", "snapshot", "wal"},
	"replica":             {"cdc", "internal/clock", "internal/durable", "internal/sqlite", "internal/sqlitefile", "internal/tick", "snapshot"},
	"web":                 {"cdc"},
	"cmd/replicator":      {"cdc", "internal/clock", "internal/config", "internal/durable", "internal/sqlite", "internal/sqlitefile", "internal/tick", "primary", "replica", "snapshot", "stream", "wal", "web"},
	".":                   {},
}

// testArrows are allowed in test files only, where a package is proved against
// the real thing.
var testArrows = map[string][]string{
	"cmd/replicator":      {"internal/loopback"},
	"snapshot":            {"internal/sqlite"},
	"stream":              {"internal/loopback"},
	"internal/sqlitefile": {"internal/sqlite"},
	"primary":             {"stream"},
	".":                   {"cdc", "internal/clock", "internal/loopback", "internal/sqlite", "internal/sqlitefile", "primary", "replica", "snapshot", "stream", "testdata/wallclock", "wal", "web"}, // tests of the whole
}

// owners are the only packages that may import a library, test files included:
// what is below the path belongs to it.
var owners = map[string]string{
	"github.com/mattn/go-sqlite3":     "internal/sqlite",
	"github.com/nats-io":              "stream",
	"github.com/spf13/viper":          "internal/config",
	"github.com/prometheus":           "web",
	"github.com/spf13/cobra":          "cmd/replicator",
	"github.com/rogpeppe/go-internal": "cmd/replicator",
}

// folders are the only ones below the root that may hold Go files.
var folders = []string{".", "cdc", "cmd", "internal", "primary", "replica", "snapshot", "stream", "wal", "web"}

// An imported is one import of one file.
type imported struct {
	file string // slash-separated, from the root
	path string
}

func (i imported) dir() string { return filepath.ToSlash(filepath.Dir(i.file)) }

func (i imported) test() bool { return strings.HasSuffix(i.file, "_test.go") }

// imports parses every Go file of the module. It runs nothing: go test caches
// what a child process says, but notes the files that are read here.
func imports(t *testing.T) (all []imported) {
	t.Helper()
	set := token.NewFileSet()
	for _, name := range goFiles(t) {
		f, err := parser.ParseFile(set, name, nil, parser.ImportsOnly)
		if err != nil {
			t.Fatal(err)
		}
		for _, spec := range f.Imports {
			path, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, imported{filepath.ToSlash(name), path})
		}
	}
	return all
}

func goFiles(t *testing.T) (names []string) {
	t.Helper()
	err := filepath.WalkDir(".", func(name string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if hidden := strings.HasPrefix(e.Name(), ".") && name != "."; e.IsDir() && (hidden || e.Name() == "testdata") {
			return filepath.SkipDir
		}
		if !e.IsDir() && strings.HasSuffix(name, ".go") {
			names = append(names, name)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(names) < 20 {
		t.Fatalf("found %d Go files: this test must run in the root of the module", len(names))
	}
	return names
}

func TestArrows(t *testing.T) {
	for _, i := range imports(t) {
		to, ours := strings.CutPrefix(i.path, module+"/")
		if !ours || to == i.dir() { // a package may import itself, in its external tests
			continue
		}
		allowed, known := arrows[i.dir()]
		if !known {
			t.Errorf("%s: package %s is not in the table of arrows", i.file, i.dir())
			continue
		}
		if i.test() {
			allowed = slices.Concat(allowed, testArrows[i.dir()])
		}
		if !slices.Contains(allowed, to) {
			t.Errorf("%s imports %s, which %s may not: want one of %q", i.file, to, i.dir(), allowed)
		}
	}
}

func TestOwnersOfLibraries(t *testing.T) {
	used := map[string]bool{}
	for _, i := range imports(t) {
		for library, owner := range owners {
			if i.path != library && !strings.HasPrefix(i.path, library+"/") {
				continue
			}
			used[library] = true
			if i.dir() != owner {
				t.Errorf("%s imports %s, which only %s may", i.file, i.path, owner)
			}
		}
	}
	for library := range owners {
		if !used[library] {
			t.Errorf("nobody imports %s: remove it from the table", library)
		}
	}
}

func TestFolders(t *testing.T) {
	for _, name := range goFiles(t) {
		top, _, nested := strings.Cut(filepath.ToSlash(name), "/")
		if !nested {
			top = "."
		}
		if !slices.Contains(folders, top) {
			t.Errorf("%s: folder %s is not in the layout", name, top)
		}
		if dir := filepath.ToSlash(filepath.Dir(name)); arrows[dir] == nil {
			t.Errorf("%s: package %s is not in the table of arrows", name, dir)
		}
	}
}

// openers are the only files of package primary that may open a path: one
// object owns every descriptor and connection of a source, because closing any
// descriptor of a file drops all locks that the process holds on it. The last
// one opens a copy of its own, in data_dir.
var openers = []string{"primary/source.go", "primary/freeze.go", "primary/resync.go"}

func TestOnlySourceOpensSources(t *testing.T) {
	calls := []string{"os.Open(", "os.OpenFile(", "os.Create(", "os.ReadFile(", "os.WriteFile(", "unix.Open(", "sqlite.Open("}
	opens := 0
	for _, name := range goFiles(t) {
		file := filepath.ToSlash(name)
		if !strings.HasPrefix(file, "primary/") || strings.HasSuffix(file, "_test.go") {
			continue
		}
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, call := range calls {
			if !strings.Contains(string(text), call) {
				continue
			}
			opens++
			if !slices.Contains(openers, file) {
				t.Errorf("%s calls %s…): only %q may open files", file, call, openers)
			}
		}
	}
	if opens == 0 {
		t.Error("nobody opens a source: the names of the calls are out of date")
	}
}
