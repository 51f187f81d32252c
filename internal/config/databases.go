package config

import (
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// A database is what the databases of both roles have in common.
type database struct{ name, path string }

// sidecars are the files that SQLite keeps beside a database.
var sidecars = []string{"-wal", "-shm", "-journal"}

// ownNames are those of data_dir that no database may have: each has a folder there.
var ownNames = []string{"lock", "nats", "snapshots"}

// checkDatabases compares the databases with one another and with the folders
// that the node writes itself, its data directory first. Paths are compared by
// spelling; two names of one file are found by whoever opens it.
func (r *report) checkDatabases(databases []database, dataDir string, folders ...string) {
	if len(databases) == 0 {
		r.add("databases", "none, want at least one; add to the file\n  databases:\n    - name: app\n      path: ./app.db")
		return
	}
	folders = slices.DeleteFunc(append(folders, dataDir), func(f string) bool { return f == "" })
	names, paths := map[string]string{}, map[string]string{} // to the key that has it
	for i, d := range databases {
		if d.name != "" {
			folders = append(folders, filepath.Join(dataDir, d.name))
		}
		r.checkName(elementKey("databases", i)+".name", d.name, names)
	}
	for i, d := range databases {
		r.checkPath(elementKey("databases", i)+".path", d.path, paths, folders)
	}
}

func (r *report) checkName(key, name string, taken map[string]string) {
	switch {
	case name == "":
		r.add(key, "not set, want a name such as app, the same on the primary and its replicas")
		return
	case !nameForm.MatchString(name):
		r.bad(key, quote(name), wantName)
		return
	}
	if slices.Contains(ownNames, strings.ToLower(name)) {
		r.bad(key, quote(name), "another name: data_dir has a file or folder of that name already")
		return
	}
	folded := strings.ToLower(name) // a folder is named after it, and some file systems ignore case
	if first, ok := taken[folded]; ok {
		r.bad(key, quote(name), "a name that differs from "+first+" by more than case")
		return
	}
	taken[folded] = key
}

func (r *report) checkPath(key, path string, taken map[string]string, folders []string) {
	switch {
	case path == "":
		r.add(key, "not set, want the path of an SQLite file such as ./app.db")
		return
	case path == ":memory:" || strings.HasPrefix(path, "file:"):
		r.bad(key, quote(path), "the path of a file, not SQLite's URI or :memory:")
		return
	case strings.HasPrefix(path, "~"):
		r.bad(key, quote(path), "the path written out; only a shell knows ~")
		return
	case strings.HasSuffix(path, "/"):
		r.bad(key, quote(path), "a file, not a folder")
		return
	}
	clean := filepath.Clean(path)
	if first, ok := taken[clean]; ok {
		r.bad(key, quote(path), "a file other than that of "+first)
		return
	}
	taken[clean] = key
	for _, suffix := range sidecars {
		if strings.HasSuffix(clean, suffix) {
			r.bad(key, quote(path), "the database, not the "+suffix+" file that SQLite keeps beside it")
			return
		}
	}
	for _, folder := range folders {
		if contains(clean, filepath.Clean(folder)) {
			r.bad(key, quote(path), "a path that is neither "+quote(folder)+" nor above it: that is a folder of this node")
			return
		}
	}
}

func elementKey(list string, i int) string { return list + "[" + strconv.Itoa(i) + "]" }
