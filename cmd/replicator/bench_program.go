package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"
)

// A lab has the processes and the folders of one scenario.
type lab struct {
	e     *environment
	dir   string
	self  string // this program
	pprof bool
	nodes []*benchNode
	files int // folders made so far
}

func newLab(e *environment, dir string, pprof bool) (*lab, error) {
	l := &lab{e: e, dir: dir, pprof: pprof}
	var err error
	if l.self, err = os.Executable(); err != nil {
		return l, err
	}
	return l, os.Mkdir(dir, 0o700)
}

// folder makes a new one.
func (l *lab) folder() (string, error) {
	l.files++
	dir := filepath.Join(l.dir, strconv.Itoa(l.files))
	return dir, os.Mkdir(dir, 0o700)
}

// close stops what still runs.
func (l *lab) close() {
	for _, n := range l.nodes {
		n.stop()
	}
}

// command is this program again, with other arguments.
func (l *lab) command(args ...string) *exec.Cmd {
	cmd := exec.Command(l.self, args...)
	cmd.Args[0] = os.Args[0] // tests run this program under another name
	cmd.Env = l.e.environ
	return cmd
}

// A program is a child that writes or reads a database. It prints JSON values,
// and ends when its standard input does.
type program struct {
	cmd    *exec.Cmd
	input  io.Closer
	output *json.Decoder
	errors *limitedBuffer
}

func (l *lab) start(args ...string) (*program, error) {
	p := &program{cmd: l.command(args...), errors: &limitedBuffer{}}
	p.cmd.Stderr = p.errors
	input, err := p.cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	output, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	p.input, p.output = input, json.NewDecoder(output)
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", args[0], err)
	}
	return p, nil
}

// next reads the next value that the program prints.
func (p *program) next(into any) error {
	if err := p.output.Decode(into); err != nil {
		return errors.Join(fmt.Errorf("%s gives no result: %w", p.cmd.Args[1], err), p.end())
	}
	return nil
}

// end tells the program to end and waits until it has.
func (p *program) end() error {
	_ = p.input.Close() // it is closed already after the first call
	if err := p.cmd.Wait(); err != nil {
		return fmt.Errorf("%s: %w: %s", p.cmd.Args[1], err, p.errors.text)
	}
	return nil
}

// result is the last value that the program prints; it ends the program if ctx
// ends first.
func (p *program) result(ctx context.Context, into any) error {
	defer context.AfterFunc(ctx, func() { _ = p.input.Close() })()
	if err := p.next(into); err != nil {
		return err
	}
	return errors.Join(p.end(), ctx.Err())
}

// A limitedBuffer keeps the beginning of what a program complains about.
type limitedBuffer struct{ text []byte }

func (b *limitedBuffer) Write(p []byte) (int, error) {
	const most = 4096
	b.text = append(b.text, p[:min(len(p), most-len(b.text))]...)
	return len(p), nil
}

// copyFile copies a database that nobody has open, and returns how long that
// took with the fsync.
func copyFile(from, to string) (took time.Duration, err error) {
	began := time.Now()
	in, err := os.Open(from)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, in.Close()) }()
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	if _, err := io.Copy(out, in); err != nil {
		return 0, err
	}
	err = out.Sync()
	return time.Since(began), err
}
