package primary

import (
	"bytes"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sqlite-replicator/replicator/cdc"
	"github.com/sqlite-replicator/replicator/internal/durable"
	"github.com/sqlite-replicator/replicator/snapshot"
)

// termsIn are the terms of node "test" in a directory whose file has some content.
func termsIn(t *testing.T, content []byte) (dir string, own *terms) {
	t.Helper()
	dir = t.TempDir()
	noError(t, os.WriteFile(filepath.Join(dir, termsFile), content, 0o600))
	own, err := openTerms(dir, "test", testLogger())
	noError(t, err)
	return dir, own
}

// FuzzTerms: whatever is in the file, the node goes on, and what begins now is known
// afterwards. A term that no byte of the file names is not ours.
func FuzzTerms(f *testing.F) {
	id := cdc.ID{1, 2, 3}
	whole := `{"node":"test","terms":[{"id":"` + id.String() + `","epoch":1}]}`
	for _, content := range []string{whole, whole[:len(whole)-3], "", "null", `{"node":"other","terms":[{"id":"` + id.String() + `","epoch":1}]}`, `{"node":"test","terms":[7]}`, `{"node":"test","terms":[{"id":"00"}]}`, `{"node":"test","terms":["00"]}`, "\x00\x00"} {
		f.Add([]byte(content))
	}
	f.Fuzz(func(t *testing.T, content []byte) {
		dir, own := termsIn(t, content)
		stranger := cdc.ID{0x5a, 0xc3, 0x77, 0x21, 0x99, 0xe4, 0x08, 0x4d}
		if own.has(stranger) && !bytes.Contains(bytes.ToLower(content), []byte(stranger.String()[:16])) {
			t.Fatalf("a term that %q does not name is ours", content)
		}
		fresh := cdc.ID{9, 9}
		noError(t, own.begin(fresh, 2))
		again, err := openTerms(dir, "test", testLogger())
		noError(t, err)
		if !again.has(fresh) || len(again.book.Terms) != len(own.book.Terms) || again.book.Node != "test" {
			t.Fatalf("after %q the terms are %+v, and %+v when read again", content, own.book, again.book)
		}
	})
}

// TestTermsCutShort: at every length the file is whole or as good as none.
func TestTermsCutShort(t *testing.T) {
	id := cdc.ID{1, 2, 3}
	whole := `{"node":"test","terms":[{"id":"` + id.String() + `","epoch":1}]}`
	for n := range len(whole) + 1 {
		_, own := termsIn(t, []byte(whole[:n]))
		if own.has(id) != (n == len(whole)) {
			t.Errorf("%d of %d bytes: %+v", n, len(whole), own.book)
		}
	}
	if _, own := termsIn(t, bytes.Repeat([]byte(" "), termsLimit+1)); len(own.book.Terms) != 0 {
		t.Errorf("a file that is too long: %+v", own.book)
	}
}

// TestTermsUnreadable: a disk that does not give the file is no reason to begin anew,
// which would make our own records foreign. The error names the file.
func TestTermsUnreadable(t *testing.T) {
	dir := t.TempDir()
	noError(t, os.Mkdir(filepath.Join(dir, termsFile), 0o700))
	if _, err := openTerms(dir, "test", testLogger()); err == nil || !strings.Contains(err.Error(), filepath.Join(dir, termsFile)) {
		t.Errorf("a directory in its place: %v", err)
	}
}

// FuzzLeaving: whatever is in the file, it proves nothing, or that the source was
// written to.
func FuzzLeaving(f *testing.F) {
	at := cdc.Position{LSN: 7, Hash: cdc.Hash{4}}
	for _, content := range []string{
		`{"lsn":7,"hash":"` + at.Hash.String() + `","source":{"size":1,"modified":"2026-01-02T03:04:05Z"}}`,
		`{"lsn":7`, "", "null", `{"lsn":-1}`, `{"source":{"modified":"99999-01-01"}}`, "\x00",
	} {
		f.Add([]byte(content))
	}
	dir := f.TempDir()
	db, err := os.Create(filepath.Join(dir, "app.db"))
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { _ = db.Close() })
	f.Fuzz(func(t *testing.T, content []byte) {
		c := &capture{captureSetup: captureSetup{dir: t.TempDir(), logger: slog.New(slog.DiscardHandler)}, src: &source{db: db}}
		noError(t, os.WriteFile(filepath.Join(c.dir, leavingFile), content, 0o600))
		if err := c.untouched(at); err != nil && !errors.Is(err, errUnproved) {
			t.Fatalf("%q: %v", content, err)
		}
		if err := c.untouched(cdc.Position{LSN: 8}); err != nil && !bytes.Contains(content, []byte("8")) {
			t.Fatalf("%q speaks of a position that it does not name: %v", content, err)
		}
	})
}

// FuzzDoubt: whatever is in the file, there is a doubt, which ends when it is dealt with.
func FuzzDoubt(f *testing.F) {
	for _, content := range []string{`{"why":"so","sound":{"below":7,"id":"x"}}`, `{"why":"so"}`, `{"why":"so","sou`, "", "null", "[]", "\x00", `{"sound":{"below":-1}}`} {
		f.Add([]byte(content))
	}
	f.Fuzz(func(t *testing.T, content []byte) {
		dir := t.TempDir()
		noError(t, os.WriteFile(filepath.Join(dir, doubtFile), content, 0o600))
		d := newDoubts(durable.OS{}, dir, testLogger())
		d.recall()
		left := d.standing()
		if left == nil || left.Why == "" {
			t.Fatalf("%q: %+v", content, left)
		}
		if m := (snapshot.Manifest{Position: cdc.Position{LSN: 7}}); left.Sound.includes(m) && !bytes.Contains(bytes.ToLower(content), []byte("why")) {
			t.Fatalf("%q: a snapshot is sound of which it says nothing", content)
		}
		d.settle(left)
		if d.recall(); d.standing() != nil {
			t.Fatalf("%q is there still", content)
		}
	})
}
