package sqlitefile

import (
	"encoding/binary"
	"errors"
	"testing"
)

func TestParseHeader(t *testing.T) {
	be := binary.BigEndian
	cases := []struct {
		name string
		edit func(b []byte) []byte
		want func(h Header) bool // nil: ErrCorrupt
	}{
		{"plain", nil, func(h Header) bool { return h.PageSize == 4096 && h.Usable == 4096 && h.Encoding == UTF8 }},
		{"65536", func(b []byte) []byte { be.PutUint16(b[16:], 1); return b }, func(h Header) bool { return h.PageSize == 65536 }},
		{"reserved", func(b []byte) []byte { b[20] = 32; return b }, func(h Header) bool { return h.Usable == 4064 }},
		{"least usable", func(b []byte) []byte { be.PutUint16(b[16:], 512); b[20] = 32; return b },
			func(h Header) bool { return h.Usable == 480 }},
		{"too few usable", func(b []byte) []byte { be.PutUint16(b[16:], 512); b[20] = 33; return b }, nil},
		{"no content yet", func(b []byte) []byte { b[47], b[59] = 0, 0; return b },
			func(h Header) bool { return h.Encoding == UTF8 && h.SchemaFormat == 0 }},
		{"page count of another version", func(b []byte) []byte { be.PutUint32(b[28:], 9); be.PutUint32(b[92:], 1); return b },
			func(h Header) bool { return h.PageCount == 0 }},
		{"page count", func(b []byte) []byte {
			be.PutUint32(b[28:], 9)
			be.PutUint32(b[24:], 1)
			be.PutUint32(b[92:], 1)
			return b
		},
			func(h Header) bool { return h.PageCount == 9 && h.ChangeCounter == 1 }},
		{"signed", func(b []byte) []byte { be.PutUint32(b[60:], 0xffffffff); be.PutUint32(b[68:], 0x80000000); return b },
			func(h Header) bool { return h.UserVersion == -1 && h.ApplicationID == -1<<31 }},
		{"WAL mode", func(b []byte) []byte { b[18], b[19] = 2, 2; return b }, func(h Header) bool { return h.WAL }},
		{"magic", func(b []byte) []byte { b[3]++; return b }, nil},
		{"short", func(b []byte) []byte { return b[:99] }, nil},
		{"empty", func([]byte) []byte { return nil }, nil},
		{"page size 0", func(b []byte) []byte { be.PutUint16(b[16:], 0); return b }, nil},
		{"page size 256", func(b []byte) []byte { be.PutUint16(b[16:], 256); return b }, nil},
		{"page size 1000", func(b []byte) []byte { be.PutUint16(b[16:], 1000); return b }, nil},
		{"read version 3", func(b []byte) []byte { b[19] = 3; return b }, nil},
		{"read version 0", func(b []byte) []byte { b[19] = 0; return b }, nil},
		{"payload fraction", func(b []byte) []byte { b[22] = 33; return b }, nil},
		{"schema format 5", func(b []byte) []byte { b[47] = 5; return b }, nil},
		{"encoding 4", func(b []byte) []byte { b[59] = 4; return b }, nil},
		{"encoding 257", func(b []byte) []byte { b[58] = 1; return b }, nil},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			b := buildHeader(4096)
			if c.edit != nil {
				b = c.edit(b)
			}
			h, err := ParseHeader(b)
			switch {
			case c.want == nil && !errors.Is(err, ErrCorrupt):
				t.Errorf("error %v, want ErrCorrupt", err)
			case c.want != nil && (err != nil || !c.want(h)):
				t.Errorf("%+v, error %v", h, err)
			}
		})
	}
}

func TestLockBytePage(t *testing.T) {
	for size, want := range map[int]uint32{512: 2097153, 4096: 262145, 65536: 16385} {
		if got := LockBytePage(size); got != want {
			t.Errorf("page size %d: page %d, want %d", size, got, want)
		}
	}
}

func FuzzHeader(f *testing.F) {
	f.Add(buildHeader(4096))
	f.Add(buildHeader(65536))
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := ParseHeader(b)
		if err != nil {
			if !errors.Is(err, ErrCorrupt) {
				t.Errorf("%v does not wrap ErrCorrupt", err)
			}
			return
		}
		if h.Usable < 480 || h.Usable > h.PageSize || h.PageSize > MaxPageSize || h.Encoding < UTF8 || h.Encoding > UTF16BE {
			t.Errorf("accepted %+v", h)
		}
	})
}
