package stream

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
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

// TestGetEndsWithItsContext: a chunk that was deleted meanwhile never comes, and
// whoever stops must not wait for it.
func TestGetEndsWithItsContext(t *testing.T) {
	ctx := testContext(t)
	c := testConn(t)
	o := c.Objects("app", 1)
	if err := o.Put(ctx, "n", make([]byte, 3*objectChunk)); err != nil {
		t.Fatal(err)
	}
	h, err := c.js.Stream(ctx, "OBJ_"+o.bucket)
	if err != nil {
		t.Fatal(err)
	}
	if err := h.Purge(ctx, jetstream.WithPurgeSubject("$O."+o.bucket+".C.>")); err != nil {
		t.Fatal(err)
	}
	stopped := errors.New("stopped")
	soon, cancel := context.WithCancelCause(ctx)
	ended := make(chan error, 1)
	go func() {
		_, err := o.Get(soon, "n")
		ended <- err
	}()
	// Most likely inside the read; earlier it must end as well.
	time.AfterFunc(200*time.Millisecond, func() { cancel(stopped) })
	if err := <-ended; !errors.Is(err, stopped) {
		t.Errorf("Get returned %v", err)
	}
}
