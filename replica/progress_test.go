package replica

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"time"
)

// Long work is one line in ten seconds, whatever its steps.
func TestProgressIsLogged(t *testing.T) {
	var out bytes.Buffer
	clock := &setClock{testTime}
	b := newBoard("app", clock, slog.New(slog.NewTextHandler(&out, nil)))
	lines := func(want ...string) {
		t.Helper()
		got := strings.Split(strings.TrimSuffix(out.String(), "\n"), "\n")
		if out.Len() == 0 {
			got = nil
		}
		out.Reset()
		if len(got) != len(want) {
			t.Fatalf("%d lines, want %d: %q", len(got), len(want), got)
		}
		for i := range want {
			if !strings.Contains(got[i], want[i]) {
				t.Errorf("%q does not say %q", got[i], want[i])
			}
		}
	}
	b.set(Restoring)
	lines(`"replica is restoring"`)
	for i := range 25 { // 25 s
		b.progress(Progress{Done: uint64(i) * 1000, Total: 50_000, Unit: "bytes"})
		clock.now = clock.now.Add(time.Second)
	}
	lines(`"replica is restoring" unit=bytes done=10000 total=50000 percent=20 per_second=1000 eta=40s`,
		`done=20000 total=50000 percent=40 per_second=1000 eta=30s`)
	b.set(CatchingUp)
	lines("catching_up")
	clock.now = clock.now.Add(9 * time.Second)
	b.progress(Progress{Done: 10, Total: 20, Unit: "records"})
	lines()
	clock.now = clock.now.Add(time.Second)
	b.progress(Progress{Total: 20, Unit: "records"})
	lines(`"replica is catching_up" unit=records done=0 total=20 percent=0`)
}
