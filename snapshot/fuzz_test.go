package snapshot

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"
)

// FuzzUnpack: whatever a store gives for a chunk is its bytes or an error, and takes
// no more memory than the chunk may have.
func FuzzUnpack(f *testing.F) {
	const most = 1 << 16
	page := bytes.Repeat([]byte("a page of rows, "), 256)
	codecs := []Codec{None, S2, Zstd}
	packers := make([]*packer, len(codecs))
	for i, c := range codecs {
		p, err := newPacker(c, 1)
		if err != nil {
			f.Fatal(err)
		}
		f.Cleanup(p.close)
		packers[i] = p
		packed := p.pack(page, make([]byte, c.maxStored(len(page))))
		f.Add(uint8(i), bytes.Clone(packed), uint16(len(page)))
		f.Add(uint8(i), bytes.Clone(packed[:len(packed)/2]), uint16(len(page)))
		f.Add(uint8(i), append(bytes.Clone(packed), packed...), uint16(len(page)))
		f.Add(uint8(i), []byte{}, uint16(1))
	}
	f.Add(uint8(1), []byte{0xff, 0xff, 0xff, 0xff, 0x0f, 0}, uint16(9)) // S2 that claims 4 GiB
	f.Fuzz(func(t *testing.T, codec uint8, stored []byte, size uint16) {
		p := packers[int(codec)%len(packers)]
		spare := make([]byte, most)
		raw, err := p.unpack(stored, spare, int(size))
		if err != nil {
			return
		}
		if len(raw) != int(size) || cap(raw) > max(most, cap(stored)) {
			t.Fatalf("%s: %d bytes in %d, want %d", p.codec, len(raw), cap(raw), size)
		}
		again, err := p.unpack(p.pack(raw, make([]byte, p.codec.maxStored(len(raw)))), make([]byte, most), len(raw))
		if err != nil || !bytes.Equal(again, raw) {
			t.Fatalf("%s: what was unpacked does not pack and unpack: %v", p.codec, err)
		}
	})
}

// FuzzStoreNote: whatever is in the file that says where the store is, the store can be
// written to and read, and the file is right afterwards.
func FuzzStoreNote(f *testing.F) {
	for _, note := range []string{"", "{", "null", `{"dir":"/elsewhere","device":7}`, `{"dir":7}`, `{"device":-1}`, `{"device":1e400}`, "\x00\x00\x00"} {
		f.Add([]byte(note))
	}
	f.Fuzz(func(t *testing.T, note []byte) { noteHeals(t, note) })
}

func TestStoreNoteTooLong(t *testing.T) { noteHeals(t, make([]byte, noteLimit+1)) }

func noteHeals(t *testing.T, note []byte) {
	t.Helper()
	ctx, dir := t.Context(), t.TempDir()
	file, store := filepath.Join(dir, "store.json"), filepath.Join(dir, "snapshots")
	if err := os.WriteFile(file, note, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := NewDirAt(store, file).Put(ctx, "a", []byte("b")); err != nil {
		t.Fatalf("Put: %v", err)
	}
	if b, err := NewDirAt(store, file).Get(ctx, "a"); err != nil || string(b) != "b" {
		t.Fatalf("Get: %q, %v", b, err)
	}
	healed := &home{dir: store, note: file, device: deviceOf}
	if here, err := healed.look(); err != nil || healed.known == nil || *healed.known != here {
		t.Fatalf("the note says %+v, not %+v: %v", healed.known, here, err)
	}
}

// TestStoreNoteUnreadable: a file that cannot be read is an error that names it.
func TestStoreNoteUnreadable(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "store.json")
	if err := os.Mkdir(file, 0o700); err != nil {
		t.Fatal(err)
	}
	err := NewDirAt(filepath.Join(dir, "snapshots"), file).Put(t.Context(), "a", nil)
	if err == nil || !bytes.Contains([]byte(err.Error()), []byte(file)) || errors.Is(err, os.ErrNotExist) {
		t.Fatalf("a directory in place of the note: %v", err)
	}
}
