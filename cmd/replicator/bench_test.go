package main

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestQuantiles(t *testing.T) {
	hundred := make([]time.Duration, 101)
	for i := range hundred {
		hundred[len(hundred)-1-i] = time.Duration(i) * time.Millisecond
	}
	for _, test := range []struct {
		d    []time.Duration
		want quantiles
	}{
		{nil, quantiles{}},
		{[]time.Duration{3 * time.Millisecond}, quantiles{3, 3, 3}},
		{[]time.Duration{2 * time.Millisecond, time.Millisecond}, quantiles{1, 1, 2}},
		{hundred, quantiles{50, 99, 100}},
	} {
		if got := quantilesOf(test.d); got != test.want {
			t.Errorf("quantiles of %d durations are %v, want %v", len(test.d), got, test.want)
		}
	}
}

// TestBenchTouchesNothingElse: its scenarios are called as folders of databases may be, where
// somebody wants the disk measured that they are on.
func TestBenchTouchesNothingElse(t *testing.T) {
	disk := t.TempDir()
	app := filepath.Join(disk, "databases", "app.db")
	if err := errors.Join(os.Mkdir(filepath.Dir(app), 0o700), os.WriteFile(app, []byte("rows"), 0o600)); err != nil {
		t.Fatal(err)
	}
	o := benchOptions{dir: disk}
	dir, err := o.folder()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := newLab(&environment{}, filepath.Join(dir, "databases"), false); err != nil {
		t.Error(err)
	}
	if b, err := os.ReadFile(app); err != nil || string(b) != "rows" {
		t.Errorf("the database has %q, %v", b, err)
	}
}

// A pair is compared with itself: a machine that was slow for both does not
// count against either.
func TestPairsCompareWithinAPair(t *testing.T) {
	var r benchResult
	r.pairs("x", []float64{50, 1, 90}, []float64{100, 2, 100}, "tx/s", "")
	value, limit, ratio := r.Figures[0].Value, *r.Figures[0].Limit, *r.Figures[0].Ratio
	if diff := cmp.Diff([]float64{50, 100, 0.5}, []float64{value, limit, ratio}); diff != "" {
		t.Errorf("median, limit and ratio (-want +got):\n%s", diff)
	}
}

func TestAgainstNothing(t *testing.T) {
	var r benchResult
	r.against("x", 1, 0, "s", "")
	if r.Figures[0].Ratio != nil {
		t.Errorf("the ratio to 0 is %v, want none: JSON has no infinity", *r.Figures[0].Ratio)
	}
}

func TestShort(t *testing.T) {
	for _, test := range []struct {
		v    float64
		want string
	}{{0, "0.00"}, {1.234, "1.23"}, {12.34, "12.3"}, {123.4, "123"}, {1234.5, "1,235"}, {1234567, "1,234,567"}} {
		if got := short(test.v); got != test.want {
			t.Errorf("short(%v) = %q, want %q", test.v, got, test.want)
		}
	}
}

func TestChooseKeepsTheOrder(t *testing.T) {
	got, err := choose([]string{"seed", "writer"})
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, s := range got {
		names = append(names, s.name)
	}
	if diff := cmp.Diff([]string{"writer", "seed"}, names); diff != "" {
		t.Errorf("chosen (-want +got):\n%s", diff)
	}
	if _, err := choose([]string{"writer", "no such"}); exitCode(err) != codeUsage {
		t.Errorf("an unknown scenario gives %v, want an error of usage", err)
	}
}

// TestOwnProcess reads of this process what the bench reads of the daemons.
func TestOwnProcess(t *testing.T) {
	before, err := cpuTime(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	deadline := time.Now().Add(time.Minute)
	for now := before; now == before; {
		if now, err = cpuTime(os.Getpid()); err != nil {
			t.Fatal(err)
		}
		if time.Now().After(deadline) {
			t.Fatalf("the CPU time stays %s", before)
		}
	}
	if rss, err := peakRSS(os.Getpid()); err != nil || rss < 1 || rss > 1<<20 {
		t.Errorf("peak of the resident memory: %v MiB, %v", rss, err)
	}
	if _, err := peakRSS(1 << 30); err == nil {
		t.Error("there is no such process, and yet a figure")
	}
}

// TestRowSize keeps what the figures for bytes a row are compared with.
func TestRowSize(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.db")
	if err := makeDatabase(path, 3); err != nil {
		t.Fatal(err)
	}
	n, err := countRows(path)
	if err != nil || n != 3 {
		t.Fatalf("%d rows, %v; want 3", n, err)
	}
	if benchRowSize != 120 {
		t.Errorf("a row has %d bytes, want 120 as the published figures", benchRowSize)
	}
	if fileSize(path+"-wal") != 0 {
		t.Error("a SQLite WAL is left, which a copy of the file would lack")
	}
}
