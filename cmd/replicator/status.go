package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/sqlite-replicator/replicator/cdc"
	"github.com/sqlite-replicator/replicator/web"
)

type statusOptions struct {
	target target
	json   bool
	watch  bool
}

func newStatus(e *environment) *cobra.Command {
	var o statusOptions
	cmd := command(e, "status", "Show how a node, its databases and its replicas are", o.run)
	o.target.flags(cmd, primaryAddress)
	cmd.Flags().BoolVar(&o.json, "json", false, "print what GET /v1/status answers")
	cmd.Flags().BoolVar(&o.watch, "watch", false, "show it again each second until Ctrl-C")
	return cmd
}

const (
	statusTimeout = 10 * time.Second
	watchEvery    = time.Second
)

func (o *statusOptions) run(ctx context.Context, e *environment) error {
	c, err := o.target.client(e)
	if err != nil {
		return err
	}
	if !o.watch {
		return o.once(ctx, e, c)
	}
	for {
		if e.terminal && !o.json {
			fmt.Fprint(e.stdout, "\x1b[H\x1b[2J") // top left, and clear
		}
		if err := o.once(ctx, e, c); err != nil && ctx.Err() == nil {
			fmt.Fprintln(e.stdout, legible(err.Error())) // the node may come back
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(watchEvery):
		}
	}
}

func (o *statusOptions) once(ctx context.Context, e *environment, c *client) error {
	ctx, cancel := context.WithTimeout(ctx, statusTimeout)
	defer cancel()
	var s web.Status
	if err := c.do(ctx, http.MethodGet, "/v1/status", nil, &s); err != nil {
		return err
	}
	if o.json {
		return json.NewEncoder(e.stdout).Encode(s)
	}
	printStatus(e.stdout, s, paint{e.terminal})
	return nil
}

// printStatus writes a node for people. Times are relative to the node's clock.
func printStatus(w io.Writer, s web.Status, p paint) {
	fmt.Fprintf(w, "%s  %s  %s\n\n", p.text(bold, legibleLine(s.Node)), legibleLine(s.Role), legibleLine(s.Version))
	databases := table{}
	databases.add("DATABASE", "STATE", "FOR", "LSN", "EPOCH", "LAG", "SIZE", "SQLITE WAL", "CHANGE LOG", "SNAPSHOT")
	for _, d := range s.Databases {
		databases.add(p.text(bold, legibleLine(d.Name)), p.state(legibleLine(d.State)), span(s.Time.Sub(d.Since)), lsnText(d.LSN), d.Epoch.String(),
			lagText(d.Lag, s.Time), size(d.Sizes.Database), size(d.Sizes.SQLiteWAL), orDash(d.Sizes.ChangeLog), orDash(d.Sizes.Snapshot))
	}
	databases.print(w)
	printNotes(w, s, p)
	printReplicas(w, s, p)
}

func printNotes(w io.Writer, s web.Status, p paint) {
	for _, d := range s.Databases {
		if d.Progress != nil {
			fmt.Fprintf(w, "\n%s: %s", legibleLine(d.Name), legible(progressText(*d.Progress)))
		}
		if d.Error != "" {
			fmt.Fprintf(w, "\n%s: %s", legibleLine(d.Name), p.text(red, legible(d.Error)))
		}
		for _, warning := range d.Warnings {
			fmt.Fprintf(w, "\n%s: %s", legibleLine(d.Name), p.text(yellow, legible(warning)))
		}
		if d.Progress != nil || d.Error != "" || len(d.Warnings) > 0 {
			fmt.Fprintln(w)
		}
	}
}

func printReplicas(w io.Writer, s web.Status, p paint) {
	replicas := table{}
	replicas.add("REPLICA", "DATABASE", "STATE", "LSN", "LAG", "HEARD")
	for _, d := range s.Databases {
		for _, r := range d.Replicas {
			state := p.state(legibleLine(r.State))
			if !r.Alive {
				state = p.text(red, "silent") + " (" + legibleLine(r.State) + ")"
			}
			replicas.add(legibleLine(r.Node), legibleLine(d.Name), state, number(uint64(r.Applied)), lagText(r.Lag, s.Time), span(s.Time.Sub(r.ReportedAt))+" ago")
		}
	}
	if len(replicas.rows) > 1 {
		fmt.Fprintln(w)
		replicas.print(w)
	}
}

// lsnText is one number while all steps are level, else each step with its own.
func lsnText(l web.LSNs) string {
	steps := []struct {
		name string
		lsn  *cdc.LSN
	}{{"captured", l.Captured}, {"durable", l.Durable}, {"published", l.Published}, {"applied", l.Applied}}
	level := true
	var parts []string
	var first *cdc.LSN
	for _, s := range steps {
		if s.lsn == nil {
			continue
		}
		if first == nil {
			first = s.lsn
		}
		level = level && *s.lsn == *first
		parts = append(parts, s.name+" "+number(uint64(*s.lsn)))
	}
	switch {
	case first == nil:
		return "-"
	case level:
		return number(uint64(*first))
	}
	return strings.Join(parts, ", ")
}

func progressText(p web.Progress) string {
	amount := size
	if p.Unit != "bytes" {
		amount = func(n int64) string { return number(uint64(max(n, 0))) + " " + p.Unit }
	}
	text := p.What
	if p.Waits != "" {
		return text + " waits " + p.Waits
	}
	if p.Total > 0 {
		text += fmt.Sprintf(" %.0f %% of %s", 100*float64(p.Done)/float64(p.Total), amount(p.Total))
	}
	if p.PerSecond > 0 {
		text += ", " + amount(int64(p.PerSecond)) + "/s"
	}
	if p.ETASeconds != nil {
		text += ", " + seconds(*p.ETASeconds) + " left"
	}
	return text
}

func orDash(n int64) string {
	if n == 0 {
		return "-"
	}
	return size(n)
}
