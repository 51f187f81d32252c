package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/sqlite-replicator/replicator/internal/config"
	"github.com/sqlite-replicator/replicator/web"
)

// A benchNode is a running primary or replica: the real daemon with its default
// configuration, in a process of its own.
type benchNode struct {
	config string // file
	data   string // data_dir
	log    string // file
	cmd    *exec.Cmd
	ended  chan struct{}
	client *client
	nats   string // URL of a primary's server
}

// nodePatience bounds every wait for a node.
const nodePatience = 15 * time.Minute

func databaseName(i int) string { return fmt.Sprintf("db%d", i) }

// primary starts one for the files and waits until it serves. settings are further
// lines of its configuration.
func (l *lab) primary(ctx context.Context, dir string, files []string, settings ...string) (*benchNode, error) {
	return l.node(ctx, config.RolePrimary, dir, files, append(settings, "nats: {listen: 'localhost:0'}"))
}

// replica starts one that copies everything of p into files.
func (l *lab) replica(ctx context.Context, dir string, files []string, p *benchNode) (*benchNode, error) {
	return l.node(ctx, config.RoleReplica, dir, files, []string{fmt.Sprintf("nats: {url: '%s'}", p.nats)})
}

func (l *lab) node(ctx context.Context, role string, dir string, files, settings []string) (*benchNode, error) {
	n := &benchNode{config: dir + ".yaml", data: dir, log: dir + ".log"}
	var text strings.Builder
	fmt.Fprintf(&text, "node: %s\ndata_dir: '%s'\n%s\nlog: {format: json}\nhttp: {listen: '127.0.0.1:0', pprof: %t}\ndatabases:\n",
		filepath.Base(dir), dir, strings.Join(settings, "\n"), l.pprof)
	for i, file := range files {
		fmt.Fprintf(&text, "  - {name: %s, path: '%s'}\n", databaseName(i), file)
	}
	if err := os.WriteFile(n.config, []byte(text.String()), 0o600); err != nil {
		return nil, err
	}
	l.nodes = append(l.nodes, n)
	return n, n.start(ctx, l, role)
}

// start starts the process, again after a stop.
func (n *benchNode) start(ctx context.Context, l *lab, role string) error {
	log, err := os.OpenFile(n.log, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	n.cmd, n.ended = l.command(string(role), "--config", n.config), make(chan struct{})
	output, err := n.cmd.StderrPipe()
	if err == nil {
		err = n.cmd.Start()
	}
	if err != nil {
		return fmt.Errorf("start a %s: %w", role, err)
	}
	serving := make(chan struct{})
	go func() {
		defer close(n.ended)
		n.read(io.TeeReader(output, log), role, serving)
		_, _ = io.Copy(log, output) // a line too long to be one of ours
		_ = n.cmd.Wait()            // its log says why
		_ = log.Close()             // nothing of value
	}()
	select {
	case <-serving:
		return nil
	case <-n.ended:
		return fmt.Errorf("the %s has ended; see %s", role, n.log)
	case <-ctx.Done():
		return ctx.Err()
	}
}

// read learns from the log where the node listens, and a primary's NATS server,
// and closes serving then.
func (n *benchNode) read(log io.Reader, role string, serving chan<- struct{}) {
	announced := sync.OnceFunc(func() { close(serving) })
	here, there := false, role != config.RolePrimary
	lines := bufio.NewScanner(log)
	for lines.Scan() {
		var line struct{ Msg, URL string }
		if json.Unmarshal(lines.Bytes(), &line) != nil {
			continue
		}
		switch line.Msg {
		case "NATS server is up":
			n.nats, there = line.URL, true
		case "serving":
			n.client, here = &client{base: line.URL, http: &http.Client{}}, true
		}
		if here && there {
			announced()
		}
	}
}

// stop ends the process; it may have ended before.
func (n *benchNode) stop() {
	if n.cmd == nil || n.cmd.Process == nil {
		return
	}
	_ = n.cmd.Process.Signal(syscall.SIGTERM) // it fails for one that has ended
	<-n.ended
}

func (n *benchNode) pid() int { return n.cmd.Process.Pid }

// until asks for the status until it is as wanted.
func (n *benchNode) until(ctx context.Context, wanted func(web.Database) bool) error {
	const every = 10 * time.Millisecond
	ctx, cancel := context.WithTimeout(ctx, nodePatience)
	defer cancel()
	for {
		s, err := n.status(ctx)
		if err != nil {
			return fmt.Errorf("%w (see %s)", err, n.log)
		}
		there := 0
		for _, d := range s.Databases {
			if d.State == "failed" || d.State == "diverged" {
				return fmt.Errorf("%s of %s is %s: %s", d.Name, s.Node, d.State, d.Error)
			}
			if wanted(d) {
				there++
			}
		}
		if there == len(s.Databases) {
			return nil
		}
		select {
		case <-time.After(every):
		case <-ctx.Done():
			return fmt.Errorf("%d of %d databases of %s are as they should be: %w", there, len(s.Databases), s.Node, ctx.Err())
		}
	}
}

func streaming(d web.Database) bool { return d.State == web.StateStreaming }

// snapshotted is also true of a primary whose snapshots are all made.
func snapshotted(d web.Database) bool { return streaming(d) && d.Details["snapshot_newest_lsn"] > 0 }

func (n *benchNode) status(ctx context.Context) (s web.Status, err error) {
	err = n.client.do(ctx, http.MethodGet, "/v1/status", nil, &s)
	return s, err
}

// sync waits until everything committed so far is published.
func (n *benchNode) sync(ctx context.Context, db string) (at web.Position, err error) {
	err = n.ask(ctx, http.MethodPost, db, "sync", url.Values{}, &at)
	return at, err
}

// reach waits until a replica has applied at.
func (n *benchNode) reach(ctx context.Context, db string, at web.Position) error {
	return n.ask(ctx, http.MethodGet, db, "wait", url.Values{"lsn": {fmt.Sprint(at.LSN)}}, nil)
}

func (n *benchNode) ask(ctx context.Context, method, db, what string, q url.Values, into any) error {
	ctx, cancel := context.WithTimeout(ctx, nodePatience)
	defer cancel()
	q.Set("timeout", nodePatience.String())
	err := patiently(ctx, func() error {
		return n.client.do(ctx, method, "/v1/databases/"+db+"/"+what, q, into)
	})
	if err != nil {
		return fmt.Errorf("%s of %s: %w (see %s)", what, db, err, n.log)
	}
	return nil
}
