package primary

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/sqlite-replicator/replicator/internal/sqlite"
)

// The test binary plays the hostile programs, too: a child with this variable
// set to "role path id" works on the database until its standard input ends and
// then prints how many increments it committed.
const hostileEnv = "REPLICATOR_TEST_HOSTILE"

func TestMain(m *testing.M) {
	if spec := os.Getenv(hostileEnv); spec != "" {
		if err := playHostile(strings.Fields(spec)); err != nil {
			fmt.Fprintln(os.Stderr, spec, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// A hostile is one program that works on the source.
type hostile struct {
	path  string
	id    int
	r     *rand.Rand
	ended chan struct{}
	count int // increments committed
}

func playHostile(args []string) error {
	id, err := strconv.Atoi(args[2])
	if err != nil {
		return err
	}
	h := &hostile{path: args[1], id: id, r: rand.New(rand.NewPCG(uint64(id), 1)), ended: make(chan struct{})}
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		close(h.ended)
	}()
	roles := map[string]func() error{
		"writer": h.writer, "reconnecting": h.reconnecting, "bigwriter": h.bigWriter, "victim": h.victim, "killer": h.killer,
		"checkpointer": h.checkpointer, "opener": h.opener, "reader": h.reader, "spread": h.spread, "tearer": h.tearer,
	}
	if err := roles[args[0]](); err != nil {
		return err
	}
	fmt.Println(h.count)
	return nil
}

func (h *hostile) done() bool {
	select {
	case <-h.ended:
		return true
	default:
		return false
	}
}

func (h *hostile) pause(max time.Duration) { nap(time.Duration(h.r.Int64N(int64(max)) + 1)) }

// open connects as an application does, with one of several automatic
// checkpoint settings.
func (h *hostile) open() (*sqlite.Conn, error) {
	c, err := sqlite.Open(h.path, sqlite.Options{Plain: true, BusyTimeout: 20 * time.Second})
	if err != nil {
		return nil, err
	}
	every := []int{1, 2, 10, 1000}[h.r.IntN(4)]
	return c, c.Exec(fmt.Sprintf("PRAGMA wal_autocheckpoint=%d; PRAGMA synchronous=OFF", every))
}

func (h *hostile) increment(c *sqlite.Conn) error {
	if err := c.Exec("UPDATE w SET seq=seq+1 WHERE id=?", h.id); err != nil {
		return err
	}
	h.count++
	return nil
}

func (h *hostile) writer() error {
	c, err := h.open()
	for err == nil && !h.done() {
		err = h.increment(c)
	}
	return err
}

// reconnecting closes its connection now and then, which checkpoints.
func (h *hostile) reconnecting() error {
	c, err := h.open()
	for err == nil && !h.done() {
		err = h.increment(c)
		h.pause(3 * time.Millisecond)
		if err == nil && h.r.IntN(100) == 0 {
			if err = c.Close(); err == nil {
				c, err = h.open()
			}
		}
	}
	return err
}

// bigWriter spills uncommitted pages into the SQLite WAL and rolls back every
// other time.
func (h *hostile) bigWriter() error {
	c, err := h.open()
	if err != nil {
		return err
	}
	if err := c.Exec("PRAGMA cache_size=5"); err != nil {
		return err
	}
	for n := 0; !h.done(); n++ {
		if err := c.BeginImmediate(); err != nil {
			return err
		}
		if err := c.Exec("UPDATE w SET seq=seq+1, pad=randomblob(3000) WHERE id=?", h.id); err != nil {
			return err
		}
		if err := c.Exec("UPDATE pad SET x=randomblob(500) WHERE rowid%?=1", 2+h.r.IntN(10)); err != nil {
			return err
		}
		if n%2 == 1 {
			if err := c.Rollback(); err != nil {
				return err
			}
			continue
		}
		if err := c.Commit(); err != nil {
			return err
		}
		h.count++
	}
	return nil
}

// killer runs victims and kills them in the middle of spilling transactions.
func (h *hostile) killer() error {
	for !h.done() {
		child := exec.Command(os.Args[0])
		child.Env = append(os.Environ(), fmt.Sprintf("%s=victim %s %d", hostileEnv, h.path, h.id))
		in, err := child.StdinPipe()
		if err != nil {
			return err
		}
		if err := child.Start(); err != nil {
			return err
		}
		h.pause(150 * time.Millisecond)
		if err := child.Process.Kill(); err != nil {
			return err
		}
		var killed *exec.ExitError
		if err := child.Wait(); !errors.As(err, &killed) {
			return fmt.Errorf("a victim ended by itself: %w", err)
		}
		_ = in.Close() // its reader is gone
	}
	return nil
}

func (h *hostile) victim() error {
	c, err := h.open()
	if err != nil {
		return err
	}
	if err := c.Exec("PRAGMA cache_size=1"); err != nil {
		return err
	}
	for {
		if err := c.BeginImmediate(); err != nil {
			return err
		}
		if err := c.Exec("UPDATE big SET seq=seq+1 WHERE id%40=?", rand.IntN(40)); err != nil {
			return err
		}
		end := c.Commit
		if rand.IntN(3) == 0 {
			end = c.Rollback
		}
		if err := end(); err != nil {
			return err
		}
	}
}

func (h *hostile) checkpointer() error {
	c, err := sqlite.Open(h.path, sqlite.Options{Plain: true, BusyTimeout: []time.Duration{0, time.Millisecond, 30 * time.Millisecond}[h.r.IntN(3)]})
	modes := []sqlite.CheckpointMode{sqlite.Truncate, sqlite.Restart, sqlite.Full, sqlite.Truncate, sqlite.Passive}
	for err == nil && !h.done() {
		if _, err = c.Checkpoint(modes[h.r.IntN(len(modes))]); sqlite.IsBusy(err) {
			err = nil
		}
		h.pause(2 * time.Millisecond)
	}
	return err
}

// opener opens and closes connections; the last one to close checkpoints.
func (h *hostile) opener() error {
	for !h.done() {
		c, err := h.open()
		if err != nil {
			return err
		}
		if h.r.IntN(2) == 0 {
			if err := h.increment(c); err != nil {
				return err
			}
		}
		if err := c.Close(); err != nil {
			return err
		}
	}
	return nil
}

// reader holds read transactions open and checks that they do not move.
func (h *hostile) reader() error {
	c, err := h.open()
	for err == nil && !h.done() {
		if err = c.OpenRead(); err != nil {
			return err
		}
		before, err := c.QueryInt("SELECT sum(seq) FROM w")
		if err != nil {
			return err
		}
		h.pause(10 * time.Millisecond)
		after, err := c.QueryInt("SELECT sum(seq) FROM w")
		if err != nil {
			return err
		}
		if before != after {
			return fmt.Errorf("a read transaction moved from %d to %d", before, after)
		}
		if err := c.Rollback(); err != nil {
			return err
		}
		h.pause(20 * time.Millisecond)
	}
	return err
}

// spread writes to many pages.
func (h *hostile) spread() error {
	c, err := h.open()
	for err == nil && !h.done() {
		if err = c.Exec("UPDATE big SET seq=seq+1 WHERE id=?", 1+h.r.IntN(3000)); err == nil {
			h.count++
		}
		h.pause(time.Millisecond)
	}
	return err
}

// A troop is the hostile programs of one test.
type troop struct {
	t       *testing.T
	roles   []string
	inputs  []io.Closer
	outputs []*bufio.Reader
	cmds    []*exec.Cmd
}

// hostileSchema makes the database that the roles work on. Increments of rows
// of w and big are what the tests count.
const hostileSchema = `
PRAGMA journal_mode=WAL;
CREATE TABLE w(id INTEGER PRIMARY KEY, seq INT, pad BLOB);
CREATE TABLE pad(x);
CREATE TABLE big(id INTEGER PRIMARY KEY, seq INT, pad BLOB);
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<3000) INSERT INTO big SELECT i,0,randomblob(400) FROM n;
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<300) INSERT INTO pad SELECT randomblob(500) FROM n;
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<20) INSERT INTO w SELECT i,0,NULL FROM n;`

func enlist(t *testing.T, path string, roles ...string) *troop {
	t.Helper()
	tr := &troop{t: t, roles: roles}
	for i, role := range roles {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%s %s %d", hostileEnv, role, path, i+1))
		cmd.Stderr = os.Stderr
		in, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = cmd.Process.Kill() })
		tr.inputs, tr.outputs, tr.cmds = append(tr.inputs, in), append(tr.outputs, bufio.NewReader(out)), append(tr.cmds, cmd)
	}
	return tr
}

// dismiss ends the programs, calling poll meanwhile, and returns what each
// committed.
func (tr *troop) dismiss(poll func() error) (counts []int) {
	tr.t.Helper()
	for _, in := range tr.inputs {
		if err := in.Close(); err != nil {
			tr.t.Fatal(err)
		}
	}
	ended := make(chan error, 1)
	counts = make([]int, len(tr.cmds))
	go func() {
		for i, cmd := range tr.cmds {
			line, err := tr.outputs[i].ReadString('\n')
			if err == nil {
				counts[i], err = strconv.Atoi(strings.TrimSpace(line))
			}
			if err = errors.Join(err, cmd.Wait()); err != nil {
				ended <- fmt.Errorf("%s: %w", tr.roles[i], err)
				return
			}
		}
		ended <- nil
	}()
	for {
		select {
		case err := <-ended:
			if err != nil {
				tr.t.Fatal(err)
			}
			return counts
		default:
			if err := poll(); err != nil {
				tr.t.Fatal(err)
			}
		}
	}
}
