package snapshot

import (
	"bytes"
	"errors"
	"flag"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sqlite-replicator/replicator/cdc"
)

var update = flag.Bool("update", false, "write the golden manifest anew")

// sample is a small manifest with every member set.
func sample() Manifest {
	m := identity(4711)
	m.Format, m.ID, m.CreatedAt = 1, formatID(4711, 0x65537e2f9c1b04d2), time.Unix(0x65537e2f, 0).UTC()
	m.PageSize, m.Pages, m.Encoding, m.Codec, m.ChunkBytes = 4096, 5, "UTF-8", S2, 8192
	m.Chunks = []Chunk{
		{Index: 1, Bytes: 8192, Stored: 700, Sum: sumOf([]byte("a")), StoredSum: sumOf([]byte("b"))},
		{Index: 2, Bytes: 8192, Stored: 800, Sum: sumOf([]byte("c")), StoredSum: sumOf([]byte("d"))},
		{Index: 3, Bytes: 4096, Stored: 900, Sum: sumOf([]byte("e")), StoredSum: sumOf([]byte("f"))},
	}
	return m
}

// Manifests that this version wrote stay readable, byte for byte.
func TestManifestGolden(t *testing.T) {
	m := sample()
	b, err := seal(&m)
	if err != nil {
		t.Fatal(err)
	}
	golden := filepath.Join("testdata", "manifest-v1.json")
	if *update {
		if err := os.WriteFile(golden, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(b)); diff != "" {
		t.Errorf("written (-golden +now):\n%s", diff)
	}
	got, err := ParseManifest(want)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(m, got); diff != "" {
		t.Errorf("read (-want +got):\n%s", diff)
	}
}

// Every single flipped bit is found.
func TestManifestBits(t *testing.T) {
	m := sample()
	b, err := seal(&m)
	if err != nil {
		t.Fatal(err)
	}
	for i := range len(b) * 8 {
		bad := bytes.Clone(b)
		bad[i/8] ^= 1 << (i % 8)
		if _, err := ParseManifest(bad); !isUnusable(err) {
			t.Fatalf("bit %d of byte %d (%q to %q): %v", i%8, i/8, b[i/8], bad[i/8], err)
		}
	}
}

// A manifest whose sum is right and whose members disagree is refused too: it
// cannot lead anyone to allocate or write what it does not describe.
func TestManifestChecks(t *testing.T) {
	tests := map[string]func(m *Manifest){
		"id":             func(m *Manifest) { m.ID = "../../etc" },
		"id in capitals": func(m *Manifest) { m.ID = strings.ToUpper(m.ID) },
		"position":       func(m *Manifest) { m.Position.LSN++ },
		"format":         func(m *Manifest) { m.Format = 0 },
		"page size":      func(m *Manifest) { m.PageSize = 4095 },
		"pages":          func(m *Manifest) { m.Pages = math.MaxUint32 },
		"codec":          func(m *Manifest) { m.Codec = "" },
		"chunk size":     func(m *Manifest) { m.ChunkBytes += 512 },
		"no chunk size":  func(m *Manifest) { m.ChunkBytes = 0 },
		"huge chunks":    func(m *Manifest) { m.ChunkBytes = 1 << 40 },
		"too few chunks": func(m *Manifest) { m.Chunks = m.Chunks[:2] },
		"chunk order":    func(m *Manifest) { m.Chunks[0].Index = 2 },
		"chunk bytes":    func(m *Manifest) { m.Chunks[2].Bytes = 8192 },
		"stored":         func(m *Manifest) { m.Chunks[1].Stored = 9000 },
		"not stored":     func(m *Manifest) { m.Chunks[1].Stored = 0 },
	}
	for name, spoil := range tests {
		m := sample()
		spoil(&m)
		b, err := seal(&m)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := ParseManifest(b); !errors.Is(err, ErrDamaged) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Members of a later minor version do not make a manifest unreadable.
func TestManifestUnknownMember(t *testing.T) {
	m := sample()
	b, err := seal(&m)
	if err != nil {
		t.Fatal(err)
	}
	b = append(b[:len(b)-sumTail], `,"colour":"blue"}`...)
	sum := sumOf(b)
	b = append(b[:len(b)-1], sumMark+sum.String()+sumEnd...)
	got, err := ParseManifest(b)
	if err != nil {
		t.Fatal(err)
	}
	m.Sum = sum
	if diff := cmp.Diff(m, got); diff != "" {
		t.Error(diff)
	}
}

// Any bytes: a manifest that agrees with itself and stays so, or a named error.
func FuzzParseManifest(f *testing.F) {
	m := sample()
	b, err := seal(&m)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add(b[:len(b)-3])
	f.Add([]byte(`{"format":2}`))
	f.Add([]byte(`{"format":1,"sum":"00000000000000000000000000000000"}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		for range 2 { // as it is, and with a sum that fits, to get past it
			m, err := ParseManifest(b)
			if err != nil && !isUnusable(err) {
				t.Fatalf("%v wraps neither ErrDamaged nor ErrVersion", err)
			}
			if err == nil {
				again, err := seal(&m)
				if err != nil {
					t.Fatal(err)
				}
				if _, err := ParseManifest(again); err != nil {
					t.Fatalf("does not survive being written: %v", err)
				}
			}
			if at := len(b) - sumTail; at > 0 {
				body := append(bytes.Clone(b[:at]), '}')
				b = append(body[:at:at], sumMark+sumOf(body).String()+sumEnd...)
			}
		}
	})
}

func FuzzParseID(f *testing.F) {
	f.Add(formatID(1, 2))
	f.Add(formatID(math.MaxUint64, math.MaxUint64))
	f.Add("00000000000000000001_0000000000000002")
	f.Fuzz(func(t *testing.T, id string) {
		lsn, made, err := parseID(id)
		if err != nil {
			return
		}
		if !strings.HasPrefix(id, formatID(lsn, 0)[:21]) || made.Unix() < 0 || strings.ContainsAny(id, "/\\.") {
			t.Errorf("%q is taken for LSN %d at %v", id, lsn, made)
		}
	})
}

func TestIDOrder(t *testing.T) {
	early := time.Unix(1_600_000_000, 0)
	late := early.Add(time.Second)
	var ids []string
	for _, at := range []struct {
		lsn cdc.LSN
		now time.Time
	}{{9, late}, {10, early}, {10, late}, {math.MaxUint64, early}} {
		id, err := newID(at.lsn, at.now)
		if err != nil {
			t.Fatal(err)
		}
		lsn, made, err := parseID(id)
		if err != nil || lsn != at.lsn || !made.Equal(at.now) {
			t.Errorf("parseID(%q) = %d, %v, %v", id, lsn, made, err)
		}
		if len(ids) > 0 && ids[len(ids)-1] >= id {
			t.Errorf("%q does not come after %q", id, ids[len(ids)-1])
		}
		ids = append(ids, id)
	}
}

func TestProgressFigures(t *testing.T) {
	start := time.Unix(1_600_000_000, 0)
	p := Progress{Bytes: 600, Total: 1000, Resumed: 200, Started: start}
	if got := p.Percent(); got != 60 {
		t.Errorf("Percent is %v", got)
	}
	if got := p.Rate(start.Add(2 * time.Second)); got != 200 {
		t.Errorf("Rate is %v", got)
	}
	tests := []struct {
		p    Progress
		at   time.Duration
		want time.Duration
		ok   bool
	}{
		{p, 2 * time.Second, 2 * time.Second, true},
		{p, 0, 0, false},
		{p, -time.Hour, 0, false},
		{Progress{Bytes: 200, Total: 1000, Resumed: 200, Started: start}, time.Second, 0, false},
		{Progress{Bytes: 5, Total: 5, Started: start}, 0, 0, true},
		{Progress{Started: start}, 0, 0, true},
		{Progress{Bytes: 1, Total: math.MaxInt64, Started: start}, time.Hour, maxETA, true},
	}
	for _, tt := range tests {
		if got, ok := tt.p.ETA(start.Add(tt.at)); got != tt.want || ok != tt.ok {
			t.Errorf("ETA of %+v after %v is %v, %t, want %v, %t", tt.p, tt.at, got, ok, tt.want, tt.ok)
		}
	}
	if got := (Progress{}).Percent(); got != 100 {
		t.Errorf("an empty database is at %v %%", got)
	}
}

func TestManifestTables(t *testing.T) {
	m := sample()
	m.Tables = []TableSum{{Name: "a", Sum: cdc.RowSum{1, 2}}, {Name: "b"}}
	b, err := seal(&m)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(b), `"tables":[{"name":"a","sum":"01000000000000000200000000000000"}`) {
		t.Errorf("written as %s", b)
	}
	got, err := ParseManifest(b)
	if diff := cmp.Diff(m, got); err != nil || diff != "" {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
	m.Tables[1].Name = "a"
	if b, err = seal(&m); err != nil {
		t.Fatal(err)
	}
	if _, err := ParseManifest(b); !errors.Is(err, ErrDamaged) {
		t.Errorf("one table twice: %v", err)
	}
}
