package primary

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sqlite-replicator/replicator/cdc"
	"github.com/sqlite-replicator/replicator/internal/sqlite"
	"github.com/sqlite-replicator/replicator/internal/sqlitefile"
)

// tearer is a checkpoint that stands still in the middle of the page of the last
// frame until its input ends, and leaves it at that: it is killed there.
func (h *hostile) tearer() (err error) {
	c, err := sqlite.Open(h.path, sqlite.Options{})
	if err != nil {
		return err
	}
	m, err := c.Checkpoint(sqlite.Noop)
	if err != nil || m.Frames == 0 {
		return fmt.Errorf("no frame to checkpoint: %w", err)
	}
	index, err := os.OpenFile(h.path+"-shm", os.O_RDWR, 0)
	if err != nil {
		return err
	}
	l := unix.Flock_t{Type: unix.F_WRLCK, Whence: io.SeekStart, Start: lockCheckpoint, Len: 1}
	if err := unix.FcntlFlock(index.Fd(), unix.F_SETLK, &l); err != nil {
		return err
	}
	log, err := os.ReadFile(h.path + "-wal")
	if err != nil {
		return err
	}
	db, err := os.OpenFile(h.path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	size := int(binary.BigEndian.Uint32(log[8:]))
	frame := log[sqlitefile.FrameOffset(m.Frames, size):]
	page := int64(binary.BigEndian.Uint32(frame))
	// The later half: the cells, while the header still speaks of those before.
	half := frame[sqlitefile.FrameHeaderSize+size/2 : sqlitefile.FrameHeaderSize+size]
	if _, err := db.WriteAt(half, (page-1)*int64(size)+int64(size/2)); err != nil {
		return err
	}
	fmt.Println("torn")
	<-h.ended
	return nil
}

// TestRestartUnderATornPage: a page that a checkpoint has written by half is equal
// to no frame, and is no page of the state that was captured last.
func TestRestartUnderATornPage(t *testing.T) {
	b := newBench(t, oneTable+"; CREATE TABLE u(id INTEGER PRIMARY KEY, v)")
	b.exec("PRAGMA wal_checkpoint(TRUNCATE)")
	b.start()
	b.sync()
	b.exec("INSERT INTO t(v) VALUES(1),(2)")
	b.sync()
	b.end()
	b.exec("INSERT INTO u(v) VALUES(3)")
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=tearer %s 1", hostileEnv, b.path))
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	noError(t, err)
	out, err := cmd.StdoutPipe()
	noError(t, err)
	noError(t, cmd.Start())
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		t.Fatal(line, err)
	}
	b.start()
	b.sync()
	noError(t, errors.Join(in.Close(), cmd.Wait()))
	if !b.has(cdc.Break) {
		t.Error("the history goes on from a page that was being written")
	}
}

// TestRestartWithoutProof: where the frames are all there and fit, and prove nothing.
func TestRestartWithoutProof(t *testing.T) {
	for _, c := range []struct {
		name     string
		pageSize int
		term     func(c *capture) // the first one
		down     func(t *testing.T, path string)
		broken   bool
	}{
		{"frames added", 4096, nil, nil, false},
		{"frames added, pages that a kill may tear", 8192, nil, nil, true},
		{"the machine was started again", 4096, func(c *capture) { c.boot[0]++ }, nil, true},
		{"another file", 4096, nil, func(t *testing.T, path string) {
			noError(t, errors.Join(copyFile(path, path+".copy"), os.Rename(path+".copy", path)))
		}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := makeSource(t, fmt.Sprintf("PRAGMA page_size=%d; PRAGMA journal_mode=WAL; %s; CREATE TABLE u(v)", c.pageSize, oneTable))
			log := newMemoryLog(func(*cdc.Change) error { return nil })
			app := openApp(t, path)
			noError(t, app.Exec("PRAGMA wal_autocheckpoint=0"))
			t.Run("first term", func(t *testing.T) {
				first, err := startWith(t, path, log, nil)
				noError(t, err)
				if c.term != nil {
					c.term(first)
				}
				noError(t, app.Exec("INSERT INTO t(v) VALUES(1)"))
				if n, err := first.poll(); n != 1 || err != nil {
					t.Fatalf("%d transactions, %v", n, err)
				}
			})
			noError(t, app.Exec("INSERT INTO u(v) VALUES(2)"))
			if c.down != nil {
				c.down(t, path)
			}
			second, err := startWith(t, path, log, nil)
			noError(t, err)
			if got := second.broken != 0; got != c.broken {
				t.Errorf("a break: %t, want %t", got, c.broken)
			}
		})
	}
}
