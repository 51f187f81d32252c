package stream

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"
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
