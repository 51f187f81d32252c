package snapshot

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"
)

// A Store keeps named objects. Names are slash-separated relative paths. A call
// must end in bounded time, and methods may be called concurrently.
type Store interface {
	// Put stores data under name, durably, whole or not at all, in place of what
	// was there. It does not keep data after it returns.
	Put(ctx context.Context, name string, data []byte) error
	// Get returns a whole object; the caller may change the slice. For an absent
	// name the error satisfies errors.Is(err, fs.ErrNotExist). An error with a method
	// Condition() string that gives "damaged" says that the object is there, and that
	// to ask again does not help.
	Get(ctx context.Context, name string) ([]byte, error)
	// List returns the names that start with prefix, in any order.
	List(ctx context.Context, prefix string) (names []string, err error)
	// Delete removes an object. For an absent name it returns nil or an error
	// that satisfies errors.Is(err, fs.ErrNotExist).
	Delete(ctx context.Context, name string) error
}

// A store call that fails is tried this often in all, with pauses that double:
// about 3 s together, a NATS leader election.
const (
	attempts   = 5
	firstPause = 200 * time.Millisecond
)

// retry calls f until it succeeds, gives up for good, or was tried often enough.
func retry(ctx context.Context, clock Clock, f func() error) error {
	pause := firstPause
	for try := 1; ; try++ {
		err := f()
		if err == nil || ctx.Err() != nil {
			return err
		}
		if try == attempts {
			return fmt.Errorf("%d attempts: %w", try, err)
		}
		if err := clock.Sleep(ctx, pause); err != nil {
			return err
		}
		pause *= 2
	}
}

func put(ctx context.Context, store Store, clock Clock, name string, data []byte) error {
	err := retry(ctx, clock, func() error { return store.Put(ctx, name, data) })
	if err != nil {
		return fmt.Errorf("snapshot: store %s: %w", name, err)
	}
	return nil
}

func get(ctx context.Context, store Store, clock Clock, name string) (data []byte, err error) {
	var absent error
	err = retry(ctx, clock, func() error {
		data, err = store.Get(ctx, name)
		if errors.Is(err, fs.ErrNotExist) { // an answer, not a failure
			absent, err = err, nil
		}
		return err
	})
	if err = errors.Join(err, absent); err != nil {
		return nil, fetchError(name, err)
	}
	return data, nil
}

// fetchError wraps ErrDamaged where the store says so.
func fetchError(name string, err error) error {
	var c interface{ Condition() string }
	if errors.As(err, &c) && c.Condition() == "damaged" {
		return fmt.Errorf("%w: fetch %s: %w", ErrDamaged, name, err)
	}
	return fmt.Errorf("snapshot: fetch %s: %w", name, err)
}

// remove treats an absent object as removed.
func remove(ctx context.Context, store Store, name string) error {
	if err := store.Delete(ctx, name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("snapshot: delete %s: %w", name, err)
	}
	return nil
}
