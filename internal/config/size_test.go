package config

import (
	"math"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestParseSize(t *testing.T) {
	for text, want := range map[string]Size{
		"0": 0, "1": 1, "12B": 12, "64MiB": 64 << 20, "64 mib": 64 << 20, "1GiB": 1 << 30, "500MB": 500e6,
		"2TB": 2e12, "1KiB": 1024, "1kb": 1000, " 7 ": 7,
		"9223372036854775807": math.MaxInt64, "8388607TiB": 8388607 << 40,
	} {
		if got, err := ParseSize(text); err != nil || got != want {
			t.Errorf("ParseSize(%q) = %d, %v, want %d", text, got, err, want)
		}
	}
	for _, text := range []string{"", "MiB", "-1", "+1", "1.5GiB", "64M", "1PiB", "0x10", "1_000", "1MiB2",
		"9223372036854775808", "8388608TiB", "9223373TB"} {
		if got, err := ParseSize(text); err == nil || got != 0 {
			t.Errorf("ParseSize(%q) = %d, %v, want an error", text, got, err)
		}
	}
}

func TestSizeString(t *testing.T) {
	for size, want := range map[Size]string{0: "0", 1: "1", 1023: "1023", 64 * MiB: "64MiB", 1536 * MiB: "1536MiB",
		500e6: "500MB", 1e12: "1TB", 1e12 + 1: "1000000000001", math.MaxInt64: "9223372036854775807"} {
		if got := size.String(); got != want {
			t.Errorf("Size(%d) = %s, want %s", int64(size), got, want)
		}
	}
}

func TestParseDuration(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"0": 0, "10s": 10 * time.Second, "1m30s": 90 * time.Second, "1.5h": 90 * time.Minute, "7d": 7 * day, "0d": 0,
		"1d12h": 36 * time.Hour, "2ms": 2 * time.Millisecond, "106751d": 106751 * day,
	} {
		if got, err := ParseDuration(text); err != nil || got != want {
			t.Errorf("ParseDuration(%q) = %v, %v, want %v", text, got, err, want)
		}
	}
	for _, text := range []string{"", "10", "d", "-1s", "+1s", "-1d", "1d-1h", "1d1", "1.5d", "1h1d", "1w", "106752d", "106751d24h", "9999999h"} {
		if got, err := ParseDuration(text); err == nil || got != 0 {
			t.Errorf("ParseDuration(%q) = %v, %v, want an error", text, got, err)
		}
	}
}

func TestFormatDuration(t *testing.T) {
	for d, want := range map[time.Duration]string{0: "0s", 90 * time.Second: "1m30s", 10 * time.Minute: "10m", time.Hour: "1h",
		70 * time.Minute: "1h10m", 20 * time.Hour: "20h", day: "1d", 36 * time.Hour: "1d12h", time.Hour + time.Second: "1h0m1s"} {
		if got := FormatDuration(d); got != want {
			t.Errorf("FormatDuration(%v) = %s, want %s", d, got, want)
		}
	}
}

func TestUnitsReadBack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		unit := rapid.SampledFrom([]Size{1, 1e3, KiB, 1e6, MiB, 1e9, GiB, 1e12, TiB}).Draw(t, "unit")
		size := unit * Size(rapid.Int64Range(0, int64(math.MaxInt64/unit)).Draw(t, "n"))
		var back Size
		text, err := size.MarshalText()
		if err == nil {
			err = back.UnmarshalText(text)
		}
		if err != nil || back != size {
			t.Errorf("%d is written %s and read %d, %v", int64(size), text, int64(back), err)
		}
		d := time.Duration(rapid.Int64Range(0, math.MaxInt64).Draw(t, "d")) / time.Duration(unit) * time.Duration(unit)
		if got, err := ParseDuration(FormatDuration(d)); err != nil || got != d {
			t.Errorf("%v is written %s and read %v, %v", d, FormatDuration(d), got, err)
		}
	})
}
