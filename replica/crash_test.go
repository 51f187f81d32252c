package replica

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/sqlite-replicator/replicator/cdc"
	"github.com/sqlite-replicator/replicator/internal/sqlite"
)

// crashEnv names the directory in which this test binary runs as a replica that
// is going to be killed.
const crashEnv = "REPLICA_TEST_CRASH"

type crashFiles struct {
	At      Mark // of the newest snapshot, which is snapshot.db
	Records [][]byte
	First   cdc.LSN // of the stream, if it was trimmed
	// Limit is how large a file may grow once a snapshot is restored, in bytes: the write
	// that passes it kills the child. 0 is no limit.
	Limit uint64
}

func TestMain(m *testing.M) {
	if dir := os.Getenv(crashEnv); dir != "" {
		if err := crashChild(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// crashChild runs a replica and prints each position that it reaches.
func crashChild(dir string) error {
	b, err := os.ReadFile(filepath.Join(dir, "log.json"))
	if err != nil {
		return err
	}
	var in crashFiles
	if err := json.Unmarshal(b, &in); err != nil {
		return err
	}
	l := newLog()
	l.records, l.first = in.Records, max(in.First, 1)
	snap := Snapshot{At: in.At, Restore: func(_ context.Context, path string, _ func(int64)) error {
		b, err := os.ReadFile(filepath.Join(dir, "snapshot.db"))
		if err != nil {
			return err
		}
		return errors.Join(os.WriteFile(path, b, 0o600), dieBeyond(in.Limit))
	}}
	r, err := New(Options{
		Database: "app", Path: filepath.Join(dir, "replica.db"), Stream: l, Snapshots: &snapshots{list: []Snapshot{snap}},
		Apply: Apply{HoldWriteLock: true, GroupMaxRecords: 3, VerifyRows: true, CacheBytes: 256 << 10},
	})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	for {
		changed := r.Changed()
		fmt.Println(r.Status().Applied.LSN)
		select {
		case <-changed:
		case err := <-done:
			return err
		}
	}
}

// dieBeyond makes this process die at the first write behind limit bytes of a file.
// The write itself fails, so that what the file is to hold in the end never is there,
// however slow the machine is to kill.
func dieBeyond(limit uint64) error {
	if limit == 0 {
		return nil
	}
	refused := make(chan os.Signal, 1)
	signal.Notify(refused, syscall.SIGXFSZ)
	go func() {
		<-refused
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL) // nothing comes after it
	}()
	return syscall.Setrlimit(syscall.RLIMIT_FSIZE, &syscall.Rlimit{Cur: limit, Max: limit})
}

// Whenever the process is killed, the next one goes on where the file is: each
// transaction is there once.
func TestKilledAtAnyMoment(t *testing.T) {
	g := newSource(t, "CREATE TABLE t(id INTEGER PRIMARY KEY AUTOINCREMENT, u UNIQUE, n)")
	dir := t.TempDir()
	snap := g.snapshot()
	for i := range 60 {
		switch {
		case i%40 == 20: // spans records
			g.step(fmt.Sprintf("INSERT INTO t(u,n) SELECT %d+value, randomblob(3000) FROM %s", 100000*(i+1), series(1, 400)))
		case i%10 == 5:
			g.step("UPDATE t SET u=-u; UPDATE t SET u=(SELECT max(id) FROM t)*1000000-u; CREATE TABLE c" + strconv.Itoa(i) + "(x)")
		default:
			g.step(fmt.Sprintf("INSERT INTO t(u,n) VALUES(%d, 0); UPDATE t SET n=n+1 WHERE typeof(n)='integer'", i))
		}
	}
	crashInput(t, dir, snap, crashFiles{Records: g.log.all()})
	last := g.enc.Position().LSN
	for kills, at := 0, cdc.LSN(0); at < last; kills++ {
		at = crashOnce(t, dir, at, last)
		if kills > int(last) {
			t.Fatal("no progress")
		}
	}
	equalFiles(t, g.c, filepath.Join(dir, "replica.db"))
}

// crashInput is what the child replicates.
func crashInput(t *testing.T, dir string, snap Snapshot, in crashFiles) {
	t.Helper()
	path := filepath.Join(dir, "snapshot.db")
	must(t, removeDatabase(path))
	must(t, snap.Restore(context.Background(), path, func(int64) {}))
	in.At = snap.At
	b, err := json.Marshal(in)
	must(t, err)
	must(t, os.WriteFile(filepath.Join(dir, "log.json"), b, 0o600))
}

// TestKilledInsideAReseed: the difference to a snapshot comes in one SQLite
// transaction, so that readers see the old rows or the new ones, whenever the
// process is killed.
func TestKilledInsideAReseed(t *testing.T) {
	g := newSource(t, "CREATE TABLE t(id INTEGER PRIMARY KEY, v)")
	const rows = 4000
	g.step(fmt.Sprintf("INSERT INTO t SELECT value, 'old' FROM %s", series(1, rows)))
	dir := t.TempDir()
	path := filepath.Join(dir, "replica.db")
	crashInput(t, dir, g.snapshot(), crashFiles{Records: g.log.all()})
	before := g.enc.Position().LSN
	crashOnce(t, dir, 0, before)
	g.step("UPDATE t SET v=randomblob(1000)")
	newest := g.snapshot()
	inside := 0
	for limit := uint64(256 << 10); ; limit += 512 << 10 {
		crashInput(t, dir, newest, crashFiles{Records: g.log.all(), First: newest.At.LSN + 1, Limit: limit})
		crashOnce(t, dir, before, newest.At.LSN)
		at, old := recovered(t, path)
		if (at != before || old != rows) && (at != newest.At.LSN || old != 0) {
			t.Fatalf("killed at %d bytes: %d old rows at LSN %d", limit, old, at)
		}
		if at == newest.At.LSN {
			break
		}
		inside++
	}
	if inside < 3 {
		t.Errorf("%d kills came inside the transaction, want 3 at least", inside)
	}
	equalFiles(t, g.c, path)
}

// recovered is where a killed replica's file is, and how many old rows it has. It
// leaves no SQLite WAL.
func recovered(t *testing.T, path string) (at cdc.LSN, old int64) {
	t.Helper()
	c, err := sqlite.Open(path, sqlite.Options{CheckpointOnClose: true})
	must(t, err)
	defer func() { must(t, c.Close()) }()
	m, found, err := readPosition(c)
	must(t, err)
	if !found {
		t.Fatal("the file has no position")
	}
	old, err = c.QueryInt("SELECT count(*) FROM t WHERE v='old'")
	must(t, err)
	return m.LSN, old
}

// crashOnce starts a child and kills it after it has moved on a few times. It
// returns how far the child said to have come.
func crashOnce(t *testing.T, dir string, at, last cdc.LSN) cdc.LSN {
	t.Helper()
	child, lines := startChild(t, dir)
	steps := 0
	for lines.Scan() {
		n, err := strconv.ParseUint(strings.TrimSpace(lines.Text()), 10, 64)
		must(t, err)
		lsn := cdc.LSN(n)
		if lsn != 0 && lsn < at {
			t.Errorf("went back from %d to %d", at, lsn)
		}
		if lsn > at {
			at = lsn
			steps++
		}
		if steps > 5 || at >= last {
			break
		}
	}
	must(t, child.Process.Kill())
	_ = child.Wait() // it was killed
	return at
}

// startChild runs a replica in a process of its own; lines are what it prints.
func startChild(t *testing.T, dir string) (child *exec.Cmd, lines *bufio.Scanner) {
	t.Helper()
	child = exec.Command(os.Args[0])
	child.Env = append(os.Environ(), crashEnv+"="+dir)
	child.Stderr = os.Stderr
	out, err := child.StdoutPipe()
	must(t, err)
	must(t, child.Start())
	return child, bufio.NewScanner(out)
}
