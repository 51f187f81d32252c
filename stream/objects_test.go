package stream

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestObjects(t *testing.T) {
	ctx := testContext(t)
	c := testConn(t)
	o := c.Objects("app", 1)
	noise := make([]byte, 9<<20+1)
	for i, r := 0, rand.New(rand.NewPCG(1, 2)); i < len(noise); i++ {
		noise[i] = byte(r.Uint32())
	}
	objects := map[string][]byte{
		"snapshots/00000000000000000042/000001": noise,
		"snapshots/00000000000000000042/000000": noise[:objectChunk],
		"snapshots/00000000000000000007/empty":  {},
		"other *.> name":                        []byte("x"),
	}
	for name, data := range objects {
		if err := o.Put(ctx, name, []byte("what was there before")); err != nil {
			t.Fatal(err)
		}
		if err := o.Put(ctx, name, data); err != nil {
			t.Fatal(err)
		}
	}
	for name, data := range objects {
		if got, err := o.Get(ctx, name); err != nil || !bytes.Equal(got, data) {
			t.Errorf("Get(%q) = %d bytes, %v, want %d bytes", name, len(got), err, len(data))
		}
	}
	names, err := o.List(ctx, "snapshots/00000000000000000042/")
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"snapshots/00000000000000000042/000000", "snapshots/00000000000000000042/000001"}
	if diff := cmp.Diff(want, names); diff != "" {
		t.Error(diff)
	}
	for name := range objects {
		if err := o.Delete(ctx, name); err != nil {
			t.Fatal(err)
		}
		if _, err := o.Get(ctx, name); !errors.Is(err, ErrNotFound) {
			t.Errorf("Get(%q) after Delete: %v, want ErrNotFound", name, err)
		}
	}
	if names, err := o.List(ctx, ""); len(names) != 0 || err != nil {
		t.Errorf("List after Delete: %q, %v, want none", names, err)
	}
	h, err := c.js.Stream(ctx, "OBJ_"+o.bucket)
	if err != nil {
		t.Fatal(err)
	}
	if n := h.CachedInfo().State.Msgs; n != 0 {
		t.Errorf("%d messages remain after all was deleted", n)
	}
}

// TestObjectsOfTheClient: what is put here the client of NATS reads, and so its command,
// and the other way round.
func TestObjectsOfTheClient(t *testing.T) {
	ctx := testContext(t)
	c := testConn(t)
	o := c.Objects("app", 1)
	data := bytes.Repeat([]byte("0123456789"), objectChunk/5)
	if err := o.Put(ctx, "ours", data); err != nil {
		t.Fatal(err)
	}
	client, err := c.js.ObjectStore(ctx, o.bucket)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := client.GetBytes(ctx, "ours"); err != nil || !bytes.Equal(got, data) {
		t.Errorf("the client reads %d bytes, %v", len(got), err)
	}
	if _, err := client.PutBytes(ctx, "theirs", data); err != nil {
		t.Fatal(err)
	}
	if got, err := o.Get(ctx, "theirs"); err != nil || !bytes.Equal(got, data) {
		t.Errorf("of the client's object %d bytes are read, %v", len(got), err)
	}
}

func TestObjectsNone(t *testing.T) {
	ctx := testContext(t)
	o := testConn(t).Objects("app", 1)
	if _, err := o.Get(ctx, "a"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Get: %v, want fs.ErrNotExist", err)
	}
	if err := o.Delete(ctx, "a"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Delete: %v, want fs.ErrNotExist", err)
	}
	if names, err := o.List(ctx, ""); len(names) != 0 || err != nil {
		t.Errorf("List: %q, %v, want none", names, err)
	}
}

// A chunk that is damaged or missing is an error, never a shorter object.
func TestObjectDamaged(t *testing.T) {
	ctx := testContext(t)
	c := testConn(t)
	o := c.Objects("app", 1)
	if err := o.Put(ctx, "a", make([]byte, 3*objectChunk)); err != nil {
		t.Fatal(err)
	}
	h, err := c.js.Stream(ctx, "OBJ_"+o.bucket)
	if err != nil {
		t.Fatal(err)
	}
	if err := h.DeleteMsg(ctx, 2); err != nil {
		t.Fatal(err)
	}
	if data, err := o.Get(ctx, "a"); !errors.Is(err, ErrNotFound) {
		t.Errorf("Get returned %d bytes and %v of an object without its middle, want ErrNotFound", len(data), err)
	}
}

// TestObjectOtherBytes: what NATS has is not what was put.
func TestObjectOtherBytes(t *testing.T) {
	ctx := testContext(t)
	c := testConn(t)
	o := c.Objects("app", 1)
	if err := o.Put(ctx, "a", []byte("as put")); err != nil {
		t.Fatal(err)
	}
	h, err := c.js.Stream(ctx, o.stream())
	if err != nil {
		t.Fatal(err)
	}
	meta := o.meta(base64.URLEncoding.EncodeToString([]byte("a")))
	m, err := h.GetLastMsgForSubject(ctx, meta)
	if err != nil {
		t.Fatal(err)
	}
	for _, info := range []string{"{", strings.Replace(string(m.Data), `"size":6`, `"size":5`, 1), regexp.MustCompile("SHA-256=.{8}").ReplaceAllString(string(m.Data), "SHA-256=AAAAAAAA")} {
		if _, err := c.js.Publish(ctx, meta, []byte(info)); err != nil {
			t.Fatal(err)
		}
		if data, err := o.Get(ctx, "a"); !errors.Is(err, ErrDamaged) {
			t.Errorf("%s: Get returned %q, %v, want ErrDamaged", info, data, err)
		}
	}
}

func TestObjectsFull(t *testing.T) {
	srv, _ := startServer(t, ServerOptions{MaxStore: 4 << 20})
	o := connect(t, Options{Server: srv}).Objects("app", 1)
	if err := o.Put(testContext(t), "a", make([]byte, 8<<20)); !errors.Is(err, ErrFull) {
		t.Errorf("Put: %v, want ErrFull", err)
	}
}

func TestObjectsUnavailable(t *testing.T) {
	c := connect(t, Options{URL: "nats://" + freePort(t)})
	o := c.Objects("app", 1)
	if err := o.Put(testContext(t), "a", nil); !errors.Is(err, ErrUnavailable) {
		t.Errorf("Put: %v, want ErrUnavailable", err)
	}
	for prefix, want := range map[string]string{
		"":       "stream: list " + o.bucket + ": not connected to NATS",
		"chunk/": "stream: list chunk/ in " + o.bucket + ": not connected to NATS",
	} {
		if _, err := o.List(testContext(t), prefix); !errors.Is(err, ErrUnavailable) || err.Error() != want {
			t.Errorf("List: %v, want %s", err, want)
		}
	}
}

func BenchmarkObjects(b *testing.B) {
	ctx := context.Background()
	o := testConn(b).Objects("app", 1)
	data := make([]byte, 8<<20)
	b.Run("put", func(b *testing.B) {
		b.SetBytes(int64(len(data)))
		b.ReportAllocs()
		for i := range b.N {
			if err := o.Put(ctx, fmt.Sprintf("chunk/%d", i%32), data); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("get", func(b *testing.B) {
		if err := o.Put(ctx, "chunk/0", data); err != nil {
			b.Fatal(err)
		}
		b.SetBytes(int64(len(data)))
		b.ReportAllocs()
		for b.Loop() {
			if _, err := o.Get(ctx, "chunk/0"); err != nil {
				b.Fatal(err)
			}
		}
	})
}
