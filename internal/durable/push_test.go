package durable

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
)

// What was pushed out and taken out of memory is in the file.
func TestPush(t *testing.T) {
	file, err := OS{}.Open(filepath.Join(t.TempDir(), "f"), os.O_RDWR|os.O_CREATE)
	if err != nil {
		t.Fatal(err)
	}
	p, ok := file.(Pusher)
	if !ok {
		t.Skip("not on this system")
	}
	want := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
	if _, err := file.WriteAt(want, 0); err != nil {
		t.Fatal(err)
	}
	n := int64(len(want))
	for _, err := range []error{p.Push(0, n/2), p.Push(n/2, n/2), p.Settle(0, n/2), p.Settle(n/2, n/2), p.Settle(n, n), file.Sync()} {
		if err != nil {
			t.Error(err)
		}
	}
	got := make([]byte, n)
	if _, err := file.ReadAt(got, 0); err != nil || !bytes.Equal(got, want) {
		t.Errorf("read back wrong: %v", err)
	}
	if err := file.Close(); err != nil {
		t.Fatal(err)
	}
	if err := p.Settle(0, n); err == nil {
		t.Error("a closed file settles")
	}
}
