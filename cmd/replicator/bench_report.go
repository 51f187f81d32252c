package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strconv"
	"time"

	"github.com/sqlite-replicator/replicator/internal/sqlite"
)

// A benchReport is everything that one run measured.
type benchReport struct {
	Began   time.Time      `json:"began"`
	Ended   time.Time      `json:"ended"`
	Scale   string         `json:"scale"`
	Host    benchHost      `json:"host"`
	Results []*benchResult `json:"results"`
}

// A benchHost is where it was measured, and with what.
type benchHost struct {
	Cores      int    `json:"cores"`
	CPU        string `json:"cpu"`
	MemoryMiB  int    `json:"memory_mib"`
	Kernel     string `json:"kernel"`
	FileSystem string `json:"file_system"` // of the folder, as statfs names it
	Version    string `json:"version"`
	Revision   string `json:"revision,omitempty"`
	Go         string `json:"go"`
	SQLite     string `json:"sqlite"`
}

// A benchResult is what one scenario measured.
type benchResult struct {
	Scenario string    `json:"scenario"`
	What     string    `json:"what"`
	Seconds  float64   `json:"seconds"` // that the scenario took
	Load     [2]string `json:"load"`    // averages of the machine before and after it: 1, 5 and 15 minutes
	Fsync    quantiles `json:"fsync_ms"`
	Figures  []figure  `json:"figures"`
	Error    string    `json:"error,omitempty"`
}

// A figure is one measured value and, where there is one, what the same machine
// does at that moment without replicator.
type figure struct {
	Name  string   `json:"name"`
	Value float64  `json:"value"`
	Unit  string   `json:"unit"`
	Limit *float64 `json:"limit,omitempty"`
	Ratio *float64 `json:"ratio,omitempty"` // Value / Limit; the median where it was repeated
	Note  string   `json:"note,omitempty"`
}

// add notes a figure that has nothing to be compared with.
func (r *benchResult) add(name string, value float64, unit, note string) {
	r.Figures = append(r.Figures, figure{Name: name, Value: value, Unit: unit, Note: note})
}

// against notes a figure with its limit.
func (r *benchResult) against(name string, value, limit float64, unit, note string) {
	f := figure{Name: name, Value: value, Unit: unit, Limit: &limit, Note: note}
	if limit > 0 {
		ratio := value / limit
		f.Ratio = &ratio
	}
	r.Figures = append(r.Figures, f)
}

// pairs notes the median of values and of their ratios, each to the limit of its
// own pair: the machine may have changed between two pairs.
func (r *benchResult) pairs(name string, values, limits []float64, unit, note string) {
	ratios := make([]float64, len(values))
	for i := range values {
		ratios[i] = values[i] / limits[i]
	}
	r.against(name, median(values), median(limits), unit, note)
	ratio := median(ratios)
	r.Figures[len(r.Figures)-1].Ratio = &ratio
}

func median(values []float64) float64 {
	s := slices.Sorted(slices.Values(values))
	if len(s) == 0 {
		return 0
	}
	return (s[(len(s)-1)/2] + s[len(s)/2]) / 2
}

func newBenchReport(e *environment, scale, dir string) *benchReport {
	b := buildInfo()
	return &benchReport{Began: e.clock(), Scale: scale, Host: benchHost{
		Cores: runtime.NumCPU(), CPU: cpuModel(), MemoryMiB: memoryMiB(), Kernel: kernel(), FileSystem: fileSystem(dir),
		Version: b.version, Revision: b.revision, Go: runtime.Version(), SQLite: sqlite.Version(),
	}}
}

func (r *benchReport) printHost(w io.Writer) {
	h := r.Host
	revision := h.Revision
	if revision == "" {
		revision = "unknown revision"
	}
	fmt.Fprintf(w, "replicator %s (%s), %s, SQLite %s\n%s with %s, %d MiB, Linux %s, %s\nscale %s\n",
		h.Version, revision, h.Go, h.SQLite, count(h.Cores, "core"), h.CPU, h.MemoryMiB, h.Kernel, h.FileSystem, r.Scale)
}

// print writes the table of one scenario below its name. Every one says how the disk and the
// machine were, because without that its figures mean nothing.
func (r *benchResult) print(w io.Writer) {
	fmt.Fprintf(w, "  took %.0f s; load %s, then %s; fsync p50 %s ms, p99 %s ms\n",
		r.Seconds, r.Load[0], r.Load[1], short(r.Fsync.P50), short(r.Fsync.P99))
	var t table
	t.add("  FIGURE", "VALUE", "LIMIT", "RATIO", "UNIT", "NOTE")
	for _, f := range r.Figures {
		limit, ratio := "", ""
		if f.Limit != nil {
			limit = short(*f.Limit)
		}
		if f.Ratio != nil {
			ratio = fmt.Sprintf("%.2f", *f.Ratio)
		}
		t.add("  "+f.Name, short(f.Value), limit, ratio, f.Unit, f.Note)
	}
	t.print(w)
	if r.Error != "" {
		fmt.Fprintf(w, "  FAILED: %s\n", r.Error)
	}
}

// short prints three digits that matter, or the whole part.
func short(v float64) string {
	switch {
	case v >= 1000:
		return number(uint64(v + 0.5))
	case v >= 100:
		return strconv.FormatFloat(v, 'f', 0, 64)
	case v >= 10:
		return strconv.FormatFloat(v, 'f', 1, 64)
	}
	return strconv.FormatFloat(v, 'f', 2, 64)
}

func (r *benchReport) finish(e *environment) {
	r.Ended = e.clock()
	fmt.Fprintf(e.stdout, "\n%s in %s; load at the end %s\n", count(len(r.Results), "scenario"), span(r.Ended.Sub(r.Began)), loadAverage())
}

func (r *benchReport) write(file string) error {
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(file, append(b, '\n'), 0o600)
}

// failure names the scenarios that did not get through.
func (r *benchReport) failure() error {
	var errs []error
	for _, s := range r.Results {
		if s.Error != "" {
			errs = append(errs, fmt.Errorf("scenario %s: %s", s.Scenario, s.Error))
		}
	}
	return errors.Join(errs...)
}
