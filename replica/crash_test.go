package replica

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/sqlite-replicator/replicator/cdc"
)

// crashEnv names the directory in which this test binary runs as a replica that
// is going to be killed.
const crashEnv = "REPLICA_TEST_CRASH"

type crashFiles struct {
	At      Mark
	Records [][]byte
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
	l.records = in.Records
	snap := Snapshot{At: in.At, Restore: func(_ context.Context, path string, _ func(int64)) error {
		b, err := os.ReadFile(filepath.Join(dir, "snapshot.db"))
		if err != nil {
			return err
		}
		return os.WriteFile(path, b, 0o600)
	}}
	r, err := New(Options{
		Database: "app", Path: filepath.Join(dir, "replica.db"), Stream: l, Snapshots: &snapshots{list: []Snapshot{snap}},
		Apply: Apply{HoldWriteLock: true, GroupMaxRecords: 3, VerifyRows: true},
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

// Whenever the process is killed, the next one goes on where the file is: each
// transaction is there once.
func TestKilledAtAnyMoment(t *testing.T) {
	g := newSource(t, "CREATE TABLE t(id INTEGER PRIMARY KEY AUTOINCREMENT, u UNIQUE, n)")
	dir := t.TempDir()
	snap := g.snapshot()
	must(t, snap.Restore(context.Background(), filepath.Join(dir, "snapshot.db"), func(int64) {}))
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
	b, err := json.Marshal(crashFiles{snap.At, g.log.all()})
	must(t, err)
	must(t, os.WriteFile(filepath.Join(dir, "log.json"), b, 0o600))
	last := g.enc.Position().LSN
	for kills, at := 0, cdc.LSN(0); at < last; kills++ {
		at = crashOnce(t, dir, at, last)
		if kills > int(last) {
			t.Fatal("no progress")
		}
	}
	equalFiles(t, g.c, filepath.Join(dir, "replica.db"))
}

// crashOnce starts a child and kills it after it has moved on a few times. It
// returns how far the child said to have come.
func crashOnce(t *testing.T, dir string, at, last cdc.LSN) cdc.LSN {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), crashEnv+"="+dir)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	lines := bufio.NewScanner(out)
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
	must(t, cmd.Process.Kill())
	_ = cmd.Wait() // it was killed
	return at
}
