package config

import (
	"errors"
	"math"
	"strconv"
	"strings"
	"time"
)

// A Size is a number of bytes, never negative.
type Size int64

// Units of Size.
const (
	KiB Size = 1 << 10
	MiB Size = 1 << 20
	GiB Size = 1 << 30
	TiB Size = 1 << 40
)

var (
	errSize     = errors.New("want a size such as 64MiB, 500MB or plain bytes")
	errDuration = errors.New("want a duration such as 10s, 1m30s or 7d")
)

// sizeUnits go down in size: String takes the first that fits.
var sizeUnits = []struct {
	name  string
	bytes Size
}{
	{"TiB", TiB}, {"TB", 1e12}, {"GiB", GiB}, {"GB", 1e9},
	{"MiB", MiB}, {"MB", 1e6}, {"KiB", KiB}, {"KB", 1e3},
}

// ParseSize reads a whole number with KiB to TiB (powers of 1024), KB to TB
// (powers of 1000), B or no unit. Case and a space before the unit do not matter.
// K and M alone are refused: people mean both powers by them.
func ParseSize(s string) (Size, error) {
	number, unit := splitUnit(s)
	n, err := strconv.ParseInt(number, 10, 64)
	if err != nil { // not a number, or more than an int64 holds
		return 0, errSize
	}
	if unit == "" || strings.EqualFold(unit, "B") {
		return Size(n), nil
	}
	for _, u := range sizeUnits {
		if !strings.EqualFold(unit, u.name) {
			continue
		}
		if n > math.MaxInt64/int64(u.bytes) {
			return 0, errSize
		}
		return Size(n) * u.bytes, nil
	}
	return 0, errSize
}

// splitUnit parts leading digits from the unit. A sign is no digit, so negative
// numbers have an empty number.
func splitUnit(s string) (number, unit string) {
	s = strings.TrimSpace(s)
	end := 0
	for end < len(s) && '0' <= s[end] && s[end] <= '9' {
		end++
	}
	return s[:end], strings.TrimLeft(s[end:], " ")
}

// String is exact: ParseSize reads it back as the same Size.
func (s Size) String() string {
	for _, u := range sizeUnits {
		if s != 0 && s%u.bytes == 0 {
			return strconv.FormatInt(int64(s/u.bytes), 10) + u.name
		}
	}
	return strconv.FormatInt(int64(s), 10)
}

// UnmarshalText is ParseSize.
func (s *Size) UnmarshalText(text []byte) error {
	v, err := ParseSize(string(text))
	if err != nil {
		return err
	}
	*s = v
	return nil
}

// MarshalText is String.
func (s Size) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

const day = 24 * time.Hour

// ParseDuration reads what time.ParseDuration does, and whole days before it:
// 7d, 1d12h. A negative duration and a number without a unit are errors.
func ParseDuration(s string) (time.Duration, error) {
	s = strings.TrimSpace(s)
	number, rest := splitUnit(s)
	var days time.Duration
	if after, ok := strings.CutPrefix(rest, "d"); ok {
		n, err := strconv.ParseInt(number, 10, 64)
		if err != nil || n > int64(math.MaxInt64/day) {
			return 0, errDuration
		}
		if days = time.Duration(n) * day; after == "" {
			return days, nil
		}
		s = after
	}
	d, err := time.ParseDuration(s)
	if err != nil || d < 0 || strings.HasPrefix(s, "+") || strings.HasPrefix(s, "-") || d > math.MaxInt64-days {
		return 0, errDuration
	}
	return days + d, nil
}

// FormatDuration writes whole days as 7d and drops zero parts, so that a day
// and a half is 1d12h. ParseDuration reads it back as the same duration.
func FormatDuration(d time.Duration) string {
	days, rest := d/day, d%day
	if d < day {
		return trimZeroParts(d.String())
	}
	text := strconv.FormatInt(int64(days), 10) + "d"
	if rest == 0 {
		return text
	}
	return text + trimZeroParts(rest.String())
}

// trimZeroParts makes 10m of 10m0s and 2h of 2h0m0s.
func trimZeroParts(s string) string {
	if t, ok := strings.CutSuffix(s, "m0s"); ok {
		s = t + "m"
	}
	if t, ok := strings.CutSuffix(s, "h0m"); ok {
		s = t + "h"
	}
	return s
}
