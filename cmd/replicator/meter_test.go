package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sqlite-replicator/replicator/snapshot"
	"github.com/sqlite-replicator/replicator/web"
)

func TestMeter(t *testing.T) {
	noon := clockOf(t)()
	now := noon
	var out bytes.Buffer
	e := &environment{stderr: &out, clock: func() time.Time { return now }, watched: true}
	said := func(want string) {
		t.Helper()
		if got := out.String(); got != want {
			t.Errorf("shows %q, want %q", got, want)
		}
		out.Reset()
	}
	m := newMeter(e)
	m.clear()
	said("")
	show := m.snapshot("restoring").Progress
	for s := range 4 {
		now = noon.Add(time.Duration(s) * meterEvery / 2)
		show(snapshot.Progress{Bytes: int64(s) << 20, Total: 10 << 20, Started: noon})
	}
	said("\rrestoring 0 % of 10.0 MiB\x1b[K\rrestoring 20 % of 10.0 MiB, 10.0 MiB/s, 800 ms left\x1b[K")
	m.clear()
	said("\r\x1b[K")
	now = noon.Add(10 * time.Second)
	m.records("catching_up", noon, 500, 2000)
	said("\rcatching_up 25 % of 2,000 records, 50 records/s, 30 s left\x1b[K")

	e.watched = false
	m = newMeter(e)
	m.records("catching_up", noon, 500, 2000)
	m.follow(t.Context(), nil, "app")()
	m.clear()
	said("")
}

// TestMeterFollowsANode: what the node says while a request of ours is on its way.
func TestMeterFollowsANode(t *testing.T) {
	asked := make(chan struct{}, 1000)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(web.Status{Databases: []web.Database{{Name: "other"}, {
			Name: "app", Progress: &web.Progress{What: "snapshot", Unit: "bytes", Done: 1 << 20, Total: 4 << 20},
		}}})
		asked <- struct{}{}
	}))
	defer s.Close()
	var out bytes.Buffer
	m := newMeter(&environment{stderr: &out, clock: time.Now, watched: true})
	stop := m.follow(t.Context(), &client{base: s.URL, http: s.Client()}, "app")
	<-asked
	<-asked // the first answer was shown
	stop()
	if want := "\rsnapshot 25 % of 4.0 MiB\x1b[K"; !strings.HasPrefix(out.String(), want) || !strings.HasSuffix(out.String(), "\r\x1b[K") {
		t.Errorf("shows %q, want %q and an empty line in the end", out.String(), want)
	}
}

// TestWatch: --watch shows the status again and again, and bears a node that is
// away for a while.
func TestWatch(t *testing.T) {
	var answers atomic.Int32
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		n := answers.Add(1)
		if n == 2 {
			w.WriteHeader(http.StatusServiceUnavailable)
			fmt.Fprint(w, `{"error": "not now"}`)
			return
		}
		_ = json.NewEncoder(w).Encode(web.Status{Node: fmt.Sprintf("answer-%d", n), Databases: []web.Database{{Name: "app", State: "streaming"}}})
	}))
	defer s.Close()
	for _, terminal := range []bool{false, true} {
		answers.Store(0)
		ctx, cancel := context.WithCancel(t.Context())
		out := &untilText{text: "answer-3", found: cancel}
		o := statusOptions{target: target{url: s.URL}, watch: true}
		if err := o.run(ctx, &environment{stdout: out, terminal: terminal, clock: time.Now}); err != nil {
			t.Error(err)
		}
		text := out.String()
		for _, want := range []string{"answer-1", "not now", "answer-3", "streaming"} {
			if !strings.Contains(text, want) {
				t.Errorf("%q is missing in\n%s", want, text)
			}
		}
		if clears := strings.Count(text, "\x1b[2J"); terminal != (clears == 3) || !terminal && strings.Contains(text, "\x1b") {
			t.Errorf("on a terminal: %t; the screen was cleared %d times:\n%q", terminal, clears, text)
		}
	}
}

// An untilText calls found when it was written text.
type untilText struct {
	bytes.Buffer
	text  string
	found func()
}

func (w *untilText) Write(b []byte) (int, error) {
	n, err := w.Buffer.Write(b)
	if strings.Contains(w.String(), w.text) {
		w.found()
	}
	return n, err
}
