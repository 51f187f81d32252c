package main

import (
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"
	"unicode"

	"golang.org/x/term"

	"github.com/sqlite-replicator/replicator/web"
)

func isTerminal(f *os.File) bool { return term.IsTerminal(int(f.Fd())) }

// count is 1 row, 2 rows, 1,234 rows.
func count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return number(uint64(max(n, 0))) + " " + noun + "s"
}

// number groups the digits of n by commas.
func number(n uint64) string {
	s := strconv.FormatUint(n, 10)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// size is n bytes in the largest unit that leaves a whole part.
func size(n int64) string {
	const unit = 1024
	if n < unit {
		return strconv.FormatInt(max(n, 0), 10) + " B"
	}
	v, i := float64(n)/unit, 0
	for v >= unit && i < len("KMGTPE")-1 {
		v, i = v/unit, i+1
	}
	return fmt.Sprintf("%.1f %ciB", v, "KMGTPE"[i])
}

// span is a duration for people: 3 ms, 1.2 s, 4m10s, 3h5m, 2d4h.
func span(d time.Duration) string {
	switch {
	case d < 0:
		return "0 s"
	case d < time.Second:
		return fmt.Sprintf("%d ms", d.Milliseconds())
	case d < 10*time.Second:
		return fmt.Sprintf("%.1f s", d.Seconds())
	case d < time.Minute:
		return fmt.Sprintf("%d s", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%dm%ds", int(d.Minutes()), int(d.Seconds())%60)
	case d < 24*time.Hour:
		return fmt.Sprintf("%dh%dm", int(d.Hours()), int(d.Minutes())%60)
	}
	return fmt.Sprintf("%dd%dh", int(d.Hours())/24, int(d.Hours())%24)
}

func seconds(s float64) string { return span(time.Duration(s * float64(time.Second))) }

// legible writes out what a terminal would obey instead of show, in text that others have
// chosen: names of tables and nodes, and errors that hold them. Lines stay lines.
func legible(s string) string {
	var b strings.Builder
	for _, r := range s {
		if r != '\n' && (unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r)) {
			fmt.Fprintf(&b, "\\u%04x", r)
			continue
		}
		b.WriteRune(r)
	}
	return b.String()
}

// legibleLine is legible, on one line.
func legibleLine(s string) string { return strings.ReplaceAll(legible(s), "\n", `\u000a`) }

// lagText says how far something is behind.
func lagText(l web.Lag, now time.Time) string {
	switch {
	case l.Seconds == nil && l.Since != nil:
		return "unknown for " + span(now.Sub(*l.Since))
	case l.Seconds == nil:
		return "unknown"
	case *l.Seconds == 0:
		return "0 s"
	case l.Transactions == nil || *l.Transactions == 0:
		return seconds(*l.Seconds)
	}
	return seconds(*l.Seconds) + ", " + number(*l.Transactions) + " tx"
}

// A paint colours a word; the zero value leaves it as it is.
type paint struct{ on bool }

const (
	green  = "\x1b[32m"
	yellow = "\x1b[33m"
	red    = "\x1b[31m"
	bold   = "\x1b[1m"
	reset  = "\x1b[0m"
)

func (p paint) text(colour, s string) string {
	if !p.on {
		return s
	}
	return colour + s + reset
}

// state colours a state by whether someone should look.
func (p paint) state(s string) string {
	switch s {
	case web.StateStreaming:
		return p.text(green, s)
	case "failed", "diverged", "fenced", "disk_full":
		return p.text(red, s)
	}
	return p.text(yellow, s)
}

// A table aligns its columns; cells may hold colours.
type table struct{ rows [][]string }

func (t *table) add(cells ...string) { t.rows = append(t.rows, cells) }

func (t *table) print(w io.Writer) {
	var widths []int
	for _, row := range t.rows {
		for i, c := range row {
			if i == len(widths) {
				widths = append(widths, 0)
			}
			widths[i] = max(widths[i], visible(c))
		}
	}
	for _, row := range t.rows {
		var b strings.Builder
		for i, c := range row {
			b.WriteString(c)
			if i < len(row)-1 {
				b.WriteString(strings.Repeat(" ", widths[i]-visible(c)+2))
			}
		}
		fmt.Fprintln(w, strings.TrimRight(b.String(), " "))
	}
}

// visible is the width of s without colours.
func visible(s string) (n int) {
	inside := false
	for _, r := range s {
		switch {
		case r == '\x1b':
			inside = true
		case inside && r == 'm':
			inside = false
		case !inside:
			n++
		}
	}
	return n
}
