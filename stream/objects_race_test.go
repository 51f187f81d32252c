package stream

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
)

// TestListBesideDelete: a replica lists while the primary deletes what it no longer
// keeps. It must not wait for a message that is gone.
func TestListBesideDelete(t *testing.T) {
	ctx := testContext(t)
	o := testConn(t).Objects("app", 1)
	const objects = 4
	name := func(i int) string { return fmt.Sprintf("n/%d", i%objects) }
	for round := range 60 {
		for i := range objects {
			if err := o.Put(ctx, name(i), make([]byte, 200)); err != nil {
				t.Fatal(err)
			}
		}
		deleted := make(chan error, 1)
		go func() {
			var errs []error
			for i := range objects {
				errs = append(errs, o.Delete(ctx, name(i)))
			}
			deleted <- errors.Join(errs...)
		}()
		for range objects {
			soon, cancel := context.WithTimeout(ctx, 10*time.Second)
			if _, err := o.List(soon, ""); err != nil {
				t.Fatalf("round %d: %v", round, err)
			}
			cancel()
		}
		if err := <-deleted; err != nil {
			t.Fatal(err)
		}
	}
}

// TestSilentStore: a cluster without a leader answers no request at all. Whoever
// asks hears of it after one request's time, and can ask again.
func TestSilentStore(t *testing.T) {
	t.Parallel()
	ctx := testContext(t)
	ns, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: server.RANDOM_PORT, NoLog: true, NoSigs: true})
	if err != nil {
		t.Fatal(err)
	}
	ns.Start()
	t.Cleanup(ns.Shutdown)
	mute := connect(t, Options{URL: ns.ClientURL()})
	if _, err := mute.nc.Subscribe("$JS.API.>", func(*nats.Msg) {}); err != nil {
		t.Fatal(err)
	}
	if err := mute.nc.Flush(); err != nil {
		t.Fatal(err)
	}
	o := connect(t, Options{URL: ns.ClientURL()}).Objects("app", 3)
	for what, ask := range map[string]func() error{
		"list":   func() error { _, err := o.List(ctx, ""); return err },
		"get":    func() error { _, err := o.Get(ctx, "n"); return err },
		"put":    func() error { return o.Put(ctx, "n", nil) },
		"delete": func() error { return o.Delete(ctx, "n") },
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			if err := ask(); !errors.Is(err, ErrUnavailable) {
				t.Errorf("%s: %v, want ErrUnavailable before the caller's own minute ends", what, err)
			}
		})
	}
}

// TestGetOnASlowLink: an object may take longer than any single answer may.
func TestGetOnASlowLink(t *testing.T) {
	if testing.Short() {
		t.Skip("7 s of a slow link")
	}
	t.Parallel()
	ctx := testContext(t)
	s, _ := startServer(t, ServerOptions{Listen: "127.0.0.1:0"})
	data := make([]byte, 2*objectChunk)
	if err := connect(t, Options{Server: s}).Objects("app", 1).Put(ctx, "n", data); err != nil {
		t.Fatal(err)
	}
	const pace, perTick = 100 * time.Millisecond, 16 << 10 // 160 KiB/s
	far := connect(t, Options{URL: slowLink(t, s.URL(), pace, perTick)})
	got, err := far.Objects("app", 1).Get(ctx, "n")
	if err != nil || !bytes.Equal(got, data) {
		t.Errorf("Get = %d bytes, %v, want %d bytes", len(got), err, len(data))
	}
}

// slowLink relays to the server at target, and back, in small portions.
func slowLink(t *testing.T, target string, pace time.Duration, portion int64) (nearURL string) {
	t.Helper()
	to, err := url.Parse(target)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			near, err := l.Accept()
			if err != nil {
				return // the test ends
			}
			far, err := net.Dial("tcp", to.Host)
			if err != nil {
				_ = near.Close()
				continue
			}
			paced := func(to, from net.Conn) {
				defer func() { _ = to.Close() }()
				tick := time.NewTicker(pace)
				defer tick.Stop()
				for range tick.C {
					if _, err := io.CopyN(to, from, portion); err != nil {
						return
					}
				}
			}
			go paced(far, near)
			go paced(near, far)
		}
	}()
	return "nats://" + l.Addr().String()
}

// TestPutCutShort: what a Put that came to no end has left in the bucket is deleted at once
// or, where the connection is gone, can be found and deleted later.
func TestPutCutShort(t *testing.T) {
	srv, _ := startServer(t, ServerOptions{})
	for _, crashed := range []bool{false, true} {
		c, writer := connect(t, Options{Server: srv}), connect(t, Options{Server: srv})
		o := c.Objects(fmt.Sprintf("crashed_%t", crashed), 1)
		if err := o.Put(testContext(t), "whole", []byte("x")); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(testContext(t))
		sub, err := c.nc.Subscribe("$O."+o.bucket+".C.>", func(*nats.Msg) {
			if cancel(); crashed {
				writer.nc.Close()
			}
		})
		if err == nil {
			err = c.nc.Flush()
		}
		if err != nil {
			t.Fatal(err)
		}
		err = writer.Objects(fmt.Sprintf("crashed_%t", crashed), 1).Put(ctx, "cut short", make([]byte, 32<<20))
		if err == nil {
			t.Error("it came to its end: nothing is tested")
		}
		names, err := o.List(testContext(t), "")
		if err != nil || !crashed && len(names) > 1 {
			t.Errorf("left are %q, %v", names, err)
		}
		for _, name := range names {
			if err := o.Delete(testContext(t), name); err != nil {
				t.Error(err)
			}
		}
		h, err := c.js.Stream(testContext(t), o.stream())
		if err != nil {
			t.Fatal(err)
		}
		if n := h.CachedInfo().State.Msgs; n > 0 {
			t.Errorf("crashed %t: %d messages are left after %q were deleted", crashed, n, names)
		}
		if err := sub.Unsubscribe(); err != nil {
			t.Error(err)
		}
	}
}

// TestPutWithoutAcknowledgement: nothing is kept of it in memory for an acknowledgement
// that never comes, as where a server of a cluster dies with what it was sent.
func TestPutWithoutAcknowledgement(t *testing.T) {
	ctx := testContext(t)
	c := testConn(t)
	o := c.Objects("app", 1)
	if err := o.Put(ctx, "first", []byte("x")); err != nil { // with it there is a bucket
		t.Fatal(err)
	}
	h, err := c.js.Stream(ctx, o.stream())
	if err != nil {
		t.Fatal(err)
	}
	mute := h.CachedInfo().Config
	mute.NoAck = true
	if _, err := c.js.UpdateStream(ctx, mute); err != nil {
		t.Fatal(err)
	}
	short, cancel := context.WithCancel(ctx)
	if _, err := c.nc.Subscribe(o.message(">"), func(*nats.Msg) { cancel() }); err != nil {
		t.Fatal(err)
	}
	if err := o.Put(short, "n", []byte("x")); !errors.Is(err, context.Canceled) {
		t.Errorf("Put: %v, want that it was cancelled", err)
	}
	if n := c.js.PublishAsyncPending(); n > 0 {
		t.Errorf("%d messages are kept", n)
	}
}

// TestDeleteCutShort: of an object whose deletion came to no end nothing is listed as if it
// were there.
func TestDeleteCutShort(t *testing.T) {
	ctx := testContext(t)
	srv, _ := startServer(t, ServerOptions{})
	c, other := connect(t, Options{Server: srv}), connect(t, Options{Server: srv})
	o := c.Objects("app", 1)
	if err := o.Put(ctx, "a", []byte("x")); err != nil {
		t.Fatal(err)
	}
	sub, err := other.nc.Subscribe("$JS.EVENT.ADVISORY.API", func(m *nats.Msg) {
		if bytes.Contains(m.Data, []byte("STREAM.PURGE")) {
			c.nc.Close()
		}
	})
	if err := errors.Join(err, other.nc.Flush()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = sub.Unsubscribe() })
	_ = o.Delete(ctx, "a")
	if names, err := other.Objects("app", 1).List(ctx, ""); err != nil || len(names) > 0 && names[0] == "a" {
		t.Errorf("listed: %q, %v", names, err)
	}
}
