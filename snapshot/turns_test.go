package snapshot

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
)

// Large ones have the memory in turn, in the order in which they asked, and a small one
// does not overtake.
func TestTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const large, small = 1 << 30, 4 << 10
		turns := NewTurns(2 * bufferBudget)
		var mu sync.Mutex
		var order []int
		var waited []string
		take := func(i int, size int64) (done func()) {
			done, err := turns.Take(t.Context(), size, func(what string) {
				mu.Lock()
				defer mu.Unlock()
				waited = append(waited, what)
			})
			if err != nil {
				t.Error(err)
			}
			mu.Lock()
			defer mu.Unlock()
			order = append(order, i)
			return done
		}
		first, second := take(0, large), take(1, large)
		if len(waited) > 0 {
			t.Fatalf("two have room, but one waits %q", waited)
		}
		ended := make(chan func(), 2)
		for i, size := range []int64{large, small} {
			go func() { ended <- take(2+i, size) }()
			synctest.Wait()
		}
		if len(order) != 2 || len(waited) != 2 || !strings.Contains(waited[0], "72 MiB") {
			t.Fatalf("%d work at once, %q wait; want 2 and 2", len(order), waited)
		}
		first()
		first() // ends no other one's turn
		synctest.Wait()
		if len(order) != 3 || order[2] != 2 {
			t.Fatalf("the turns came as %v, want 0, 1 and 2", order)
		}
		second()
		(<-ended)()
		(<-ended)()
		if len(order) != 4 {
			t.Errorf("the turns came as %v", order)
		}
		for range 2 * bufferBudget / leastTurn { // all is given back, and small ones hardly wait
			take(4, small)
		}
		if len(waited) != 2 {
			t.Errorf("of small ones %d wait", len(waited)-2)
		}
	})
}

func TestTurnsGivenUp(t *testing.T) {
	turns := NewTurns(1) // there is room for one always
	done, err := turns.Take(t.Context(), 1<<40, nil)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	if _, err := turns.Take(ctx, 1, func(string) { cancel() }); !errors.Is(err, context.Canceled) {
		t.Errorf("who has given up gets %v", err)
	}
	done()
	if done, err = turns.Take(t.Context(), 1, func(string) { t.Error("a turn that nobody has is waited for") }); err != nil {
		t.Fatal(err)
	}
	done()
	var none *Turns
	for range 3 {
		if _, err := none.Take(t.Context(), 1<<40, nil); err != nil {
			t.Error(err)
		}
	}
}
