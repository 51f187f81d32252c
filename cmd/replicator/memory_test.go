package main

import (
	"log/slog"
	"testing"
)

func TestShareCaches(t *testing.T) {
	got := int64(0)
	e := &environment{shareSQLite: func(bytes int64) { got = bytes }}
	for databases, want := range map[int]int64{1: 33152 << 10, 100: 71168 << 10} {
		if shareCaches(e, 24<<20, databases); got != want {
			t.Errorf("%d databases share %d bytes, want %d", databases, got, want)
		}
	}
	shareCaches(&environment{}, 1, 1) // left alone
}

func TestLimitMemory(t *testing.T) {
	tests := []struct {
		name      string
		environ   []string
		databases int
		want      int64
	}{
		{"one database", nil, 1, 100},
		{"each more adds", nil, 11, 200},
		{"the user has said it", []string{"A=b", "GOMEMLIMIT=1GiB"}, 1, 0},
		{"empty is not said", []string{"GOMEMLIMIT="}, 1, 100},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := int64(0)
			e := &environment{environ: tt.environ, memoryLimit: func(bytes int64) int64 { got = bytes; return 0 }}
			limitMemory(e, slog.New(slog.DiscardHandler), 100, 10, tt.databases)
			if got != tt.want {
				t.Errorf("limit is %d, want %d", got, tt.want)
			}
		})
	}
}
