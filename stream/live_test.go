package stream

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sqlite-replicator/replicator/cdc"
)

func TestHeartbeat(t *testing.T) {
	ctx := testContext(t)
	c := testConn(t)
	got := make(chan Heartbeat, 2)
	if err := c.OnHeartbeat(ctx, "app", func(h Heartbeat) { got <- h }); err != nil {
		t.Fatal(err)
	}
	want := Heartbeat{
		Node: "primary-1", State: "disk_full", Level: 7 * time.Second, Position: cdc.Position{Lineage: cdc.ID{1}, Epoch: 3, LSN: 9, Hash: cdc.Hash{2}},
		Captured: 12, Durable: 11, Published: 10,
		Totals: Totals{Transactions: 5, Bytes: 6}, SentAt: time.Unix(1, 2).UTC(),
	}
	if err := c.nc.Publish("replicator.app.heartbeat", []byte("{")); err != nil {
		t.Fatal(err)
	}
	if err := c.SendHeartbeat("other", Heartbeat{Node: "other"}); err != nil {
		t.Fatal(err)
	}
	if err := c.SendHeartbeat("app", want); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, receive(t, got)); diff != "" {
		t.Error(diff)
	}
}

func TestReports(t *testing.T) {
	ctx, cancel := context.WithCancel(testContext(t))
	defer cancel()
	c := testConn(t)
	got, still := make(chan Report, 2), make(chan Report, 2)
	if err := c.OnReports(ctx, "app", func(r Report) { got <- r }); err != nil {
		t.Fatal(err)
	}
	if err := c.OnReports(testContext(t), "app", func(r Report) { still <- r }); err != nil {
		t.Fatal(err)
	}
	seconds := 0.5
	want := Report{
		Node: "replica-1", DB: "app", State: "streaming", Applied: cdc.Position{Epoch: 1, LSN: 2},
		Lag: Lag{Seconds: &seconds}, Version: "1", SentAt: time.Unix(3, 0).UTC(),
	}
	if err := c.SendReport(want); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, receive(t, got)); diff != "" {
		t.Error(diff)
	}
	receive(t, still)
	cancel()
	if err := c.SendReport(want); err != nil {
		t.Fatal(err)
	}
	receive(t, still)
	if len(got) != 0 {
		t.Error("a report came after the end of the context")
	}
}

func receive[T any](t *testing.T, ch <-chan T) T {
	t.Helper()
	select {
	case v := <-ch:
		return v
	case <-testContext(t).Done():
		t.Fatal("nothing came")
		panic("unreachable")
	}
}

func TestRequest(t *testing.T) {
	ctx, cancel := context.WithCancel(testContext(t))
	c := testConn(t)
	if _, err := c.Request(ctx, "app", "echo", nil); !errors.Is(err, ErrNoResponder) {
		t.Errorf("nobody there: %v, want ErrNoResponder", err)
	}
	entered := make(chan struct{})
	done, err := c.Serve(ctx, "app", "echo", func(ctx context.Context, req []byte) ([]byte, error) {
		switch string(req) {
		case "fail":
			return nil, fmt.Errorf("no such table")
		case "wait":
			close(entered)
			<-ctx.Done()
			return nil, ctx.Err()
		}
		return append([]byte("echo "), req...), nil
	})
	if err != nil {
		t.Fatal(err)
	}
	waiting := make(chan error, 1)
	waitCtx, stopWaiting := context.WithCancel(ctx)
	go func() {
		_, err := c.Request(waitCtx, "app", "echo", []byte("wait"))
		waiting <- err
	}()
	<-entered // a request that waits does not hold up others
	if res, err := c.Request(ctx, "app", "echo", []byte("x")); err != nil || string(res) != "echo x" {
		t.Errorf("echo: %q, %v", res, err)
	}
	if _, err := c.Request(ctx, "app", "echo", []byte("fail")); !errors.Is(err, ErrRemote) || !strings.Contains(err.Error(), "no such table") {
		t.Errorf("fail: %v, want ErrRemote with the text", err)
	}
	select {
	case <-done:
		t.Error("done while a handler runs")
	default:
	}
	stopWaiting()
	if err := receive(t, waiting); !errors.Is(err, context.Canceled) {
		t.Errorf("wait: %v, want canceled", err)
	}
	cancel()
	receive(t, done)
}

// The handler's context ends when the caller stops waiting.
func TestRequestDeadline(t *testing.T) {
	c := testConn(t)
	ended := make(chan error, 1)
	_, err := c.Serve(testContext(t), "app", "wait", func(ctx context.Context, _ []byte) ([]byte, error) {
		<-ctx.Done()
		ended <- ctx.Err()
		return nil, ctx.Err()
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(testContext(t), 50*time.Millisecond)
	defer cancel()
	if _, err := c.Request(ctx, "app", "wait", nil); err == nil {
		t.Error("an answer came")
	}
	if err := receive(t, ended); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("handler: %v, want deadline exceeded", err)
	}
}

func TestRequestBusy(t *testing.T) {
	ctx, cancel := context.WithCancel(testContext(t))
	defer cancel()
	c := testConn(t)
	entered := make(chan struct{}, maxServing)
	_, err := c.Serve(ctx, "app", "wait", func(ctx context.Context, _ []byte) ([]byte, error) {
		entered <- struct{}{}
		<-ctx.Done()
		return nil, ctx.Err()
	})
	if err != nil {
		t.Fatal(err)
	}
	for range maxServing {
		go func() { _, _ = c.Request(ctx, "app", "wait", nil) }() // ends with the test
	}
	for range maxServing {
		receive(t, entered)
	}
	if _, err := c.Request(ctx, "app", "wait", nil); !errors.Is(err, ErrRemote) || !strings.Contains(err.Error(), "busy") {
		t.Errorf("%v, want ErrRemote, busy", err)
	}
}

func TestClockOffset(t *testing.T) {
	ctx := testContext(t)
	c := testConn(t)
	const ahead = time.Hour
	if _, err := c.Serve(ctx, "app", MethodClock, ClockHandler(func() time.Time { return time.Now().Add(ahead) })); err != nil {
		t.Fatal(err)
	}
	offset, rtt, err := c.ClockOffset(ctx, "app", time.Now)
	if err != nil || rtt <= 0 || (offset-ahead).Abs() > rtt {
		t.Errorf("offset %v, rtt %v, %v; want %v", offset, rtt, err, ahead)
	}
	if _, err := c.Serve(ctx, "bad", MethodClock, func(context.Context, []byte) ([]byte, error) { return []byte("noon"), nil }); err != nil {
		t.Fatal(err)
	}
	if _, _, err := c.ClockOffset(ctx, "bad", time.Now); err == nil {
		t.Error("noon is no time")
	}
}

func TestFleet(t *testing.T) {
	now := time.Unix(1000, 0)
	f := NewFleet(func() time.Time { return now })
	for _, c := range []struct {
		r    Report
		news bool
	}{
		{Report{Node: "b", State: "waiting"}, true}, {Report{Node: "b", State: "starting"}, true}, {Report{Node: "b", State: "starting"}, false},
		{Report{Node: "a", State: "streaming"}, true}, {Report{}, false},
	} {
		if got := f.Add(c.r); got != c.news {
			t.Errorf("%+v: news is %t, want %t", c.r, got, c.news)
		}
	}
	now = now.Add(time.Hour)
	f.Add(Report{Node: "b", State: "streaming"})
	want := []Report{
		{Node: "a", State: "streaming", ArrivedAt: now.Add(-time.Hour)},
		{Node: "b", State: "streaming", ArrivedAt: now},
	}
	if diff := cmp.Diff(want, f.Replicas()); diff != "" {
		t.Error(diff)
	}
	now = now.Add(forgetAfter - time.Minute)
	if diff := cmp.Diff(want[1:], f.Replicas()); diff != "" {
		t.Error(diff)
	}
	for i := range 2 * maxFleet {
		now = now.Add(time.Nanosecond)
		f.Add(Report{Node: fmt.Sprint(i)})
	}
	all := f.Replicas()
	if len(all) != maxFleet {
		t.Errorf("%d replicas remembered, want %d", len(all), maxFleet)
	}
}

// TestAnswerTooLarge: whoever asked learns why there is no answer, and waits for none.
func TestAnswerTooLarge(t *testing.T) {
	c := testConn(t)
	ctx, cancel := context.WithTimeout(testContext(t), time.Minute)
	defer cancel()
	_, err := c.Serve(ctx, "app", "large", func(context.Context, []byte) ([]byte, error) { return make([]byte, 3<<20), nil })
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Request(ctx, "app", "large", nil); !errors.Is(err, ErrRemote) || !strings.Contains(err.Error(), "3145728 bytes") {
		t.Errorf("%v", err)
	}
}
