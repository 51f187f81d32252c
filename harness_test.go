package replicator_test

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/sqlite-replicator/replicator/internal/clock"
	"github.com/sqlite-replicator/replicator/primary"
	"github.com/sqlite-replicator/replicator/replica"
	"github.com/sqlite-replicator/replicator/snapshot"
	"github.com/sqlite-replicator/replicator/stream"
)

// childEnv makes the test binary one of its own children: it names the role, and
// the arguments are the child's.
const childEnv = "REPLICATOR_TEST_CHILD"

var roles = map[string]func(args []string) error{
	"workload": playWorkload,
	"inspect":  playInspect,
	"nats":     playNATS,
	"vandal":   playVandal,
}

func TestMain(m *testing.M) {
	if role := os.Getenv(childEnv); role != "" {
		if err := roles[role](os.Args[1:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	flag.Parse()
	code := m.Run()
	if err := errors.Join(built.remove(), builtShifted.remove()); err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	os.Exit(code)
}

var keepFlag = flag.String("keep", "", "directory for the files of a test, which then stay, with a trace of each workload")

// patience is how long a wait may take before a test gives up. It is no measure
// of speed.
const patience = 2 * time.Minute

// folder is where a test keeps its databases.
func folder(t *testing.T) string {
	t.Helper()
	if *keepFlag == "" {
		return t.TempDir()
	}
	dir := filepath.Join(*keepFlag, strings.ReplaceAll(t.Name(), "/", "_"))
	if err := errors.Join(os.RemoveAll(dir), os.MkdirAll(dir, 0o755)); err != nil {
		t.Fatal(err)
	}
	return dir
}

// patient is a context for all the waits of a short test.
func patient(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

// oneWait is a context for one wait of a test that may run for long.
func oneWait() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), patience)
}

// A process is a child that this test started.
type process struct {
	t      *testing.T
	name   string
	cmd    *exec.Cmd
	in     io.WriteCloser
	out    *bufio.Reader
	stderr *tail

	once  sync.Once
	ended error
}

func (p *process) signal(s syscall.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		p.t.Fatalf("%s: %v: %v\n%s", p.name, s, err, p.stderr)
	}
}

// spawn starts the test binary in a role.
func spawn(t *testing.T, role string, args ...string) *process {
	t.Helper()
	cmd := exec.Command(os.Args[0], args...)
	cmd.Env = append(os.Environ(), childEnv+"="+role)
	return start(t, role, cmd)
}

// start runs cmd, at most until the test ends.
func start(t *testing.T, name string, cmd *exec.Cmd) *process {
	t.Helper()
	p := &process{t: t, name: name, cmd: cmd, stderr: &tail{}}
	cmd.Stderr = p.stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	p.in, p.out = in, bufio.NewReader(out)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.kill() })
	return p
}

// do gives the child a line and waits for the line it answers with.
func (p *process) do(line string) (string, error) {
	if _, err := fmt.Fprintln(p.in, line); err != nil {
		return "", fmt.Errorf("%s: %w", p.name, errors.Join(err, p.wait()))
	}
	answer, err := p.out.ReadString('\n')
	if err != nil {
		return "", fmt.Errorf("%s: %w", p.name, errors.Join(err, p.wait()))
	}
	return strings.TrimSpace(answer), nil
}

// wait ends the child's input and waits until it has ended.
func (p *process) wait() error {
	p.once.Do(func() {
		_ = p.in.Close() // it may be gone
		drain(p.out)
		if err := p.cmd.Wait(); err != nil {
			p.ended = fmt.Errorf("%s: %w\n%s", p.name, err, p.stderr)
		}
	})
	return p.ended
}

// kill ends the child as a crash does.
func (p *process) kill() error {
	_ = p.cmd.Process.Kill() // it may be gone
	return p.wait()
}

// A tail keeps the end of what is written to it.
type tail struct {
	mu   sync.Mutex
	text []byte
}

func (w *tail) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	const keep = 1 << 20
	w.text = append(w.text, b...)
	w.text = w.text[max(0, len(w.text)-keep):]
	return len(b), nil
}

func (w *tail) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return string(w.text)
}

// logger shows what happened when the test fails, or runs with -v.
func logger(t *testing.T, who string) *slog.Logger {
	l := &testLog{t: t}
	t.Cleanup(l.stop) // a logger must not be used after its test
	return slog.New(slog.NewTextHandler(l, nil)).With("who", who)
}

type testLog struct {
	mu   sync.Mutex
	t    *testing.T
	over bool
}

func (l *testLog) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.over {
		l.t.Log(strings.TrimSpace(string(b)))
	}
	return len(b), nil
}

func (l *testLog) stop() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.over = true
}

func discard() *slog.Logger { return slog.New(slog.DiscardHandler) }

// A service is something with a Run(ctx) that is running.
type service struct {
	name string
	stop func() error // ends it and gives what Run returned; may be called again
}

func serve(t *testing.T, name string, run func(context.Context) error) *service {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		err := run(ctx)
		if ctx.Err() == nil {
			t.Errorf("%s ended by itself: %v", name, err)
		}
		done <- err
	}()
	s := &service{name: name, stop: sync.OnceValue(func() error {
		cancel()
		err := <-done
		if errors.Is(err, context.Canceled) {
			return nil
		}
		return fmt.Errorf("%s: %w", name, err)
	})}
	t.Cleanup(func() {
		if err := s.stop(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// A primaryStream is what the pipeline sees of NATS.
type primaryStream struct{ *stream.Stream }

func (s primaryStream) State(ctx context.Context) (primary.StreamState, error) {
	i, err := s.Info(ctx)
	return primary.StreamState{Exists: i.Exists, First: i.First, Last: i.Last, Messages: i.Messages, Bytes: i.Bytes, MaxBytes: i.MaxBytes}, err
}

// A replaying is what the pipeline rebuilds its last state in.
type replaying struct{ *replica.File }

func (r replaying) Finish() error { return r.File.Finish(true) }

func replay(path string, m snapshot.Manifest) (primary.Replayer, error) {
	t := m.Totals
	at := replica.Mark{Position: m.Position, Transactions: t.Transactions, Bytes: t.Bytes, CapturedAt: t.CapturedAt}
	f, err := replica.OpenFile(path, replica.FileOptions{At: at, SpoolDir: filepath.Dir(path)})
	if err != nil {
		return nil, err
	}
	return replaying{f}, nil
}

// A quickClock makes the pauses between two tries short.
type quickClock struct{ clock.System }

func (c quickClock) Sleep(ctx context.Context, d time.Duration) error {
	return c.System.Sleep(ctx, min(d, 20*time.Millisecond))
}

// Tuning bounds what is held in memory and when files start over. The tight one
// makes small databases take every path that large ones take.
type tuning struct {
	capture   primary.CaptureOptions
	changeLog primary.ChangeLogOptions
	snapshot  primary.SnapshotOptions
	apply     replica.Apply
}

func roomy() tuning {
	return tuning{
		capture: primary.CaptureOptions{
			MaxSQLiteWAL: 1 << 30, TurnoverBytes: 16 << 20, RepinFrames: 400, MaxStall: 20 * time.Millisecond, SpillBytes: 16 << 20,
		},
		changeLog: primary.ChangeLogOptions{SegmentBytes: 64 << 20, MaxBytes: 1 << 30, RetainFor: 10 * time.Minute},
		snapshot:  primary.SnapshotOptions{Interval: 24 * time.Hour, AfterBytes: 1 << 30, Keep: 2, ChunkBytes: 8 << 20, Codec: snapshot.S2},
		apply:     replica.Apply{HoldWriteLock: true},
	}
}

func tight() tuning {
	tu := roomy()
	tu.capture.TurnoverBytes, tu.capture.RepinFrames, tu.capture.SpillBytes = 64<<10, 20, 64<<10
	tu.changeLog.SegmentBytes, tu.changeLog.RetainFor = 1<<20, time.Nanosecond
	tu.snapshot.AfterBytes, tu.snapshot.ChunkBytes = 4<<20, 64<<10
	tu.apply = replica.Apply{GroupMaxRecords: 3, GroupMaxBytes: 64 << 10, CacheBytes: 256 << 10, CheckpointBytes: 256 << 10, HoldWriteLock: true}
	return tu
}
