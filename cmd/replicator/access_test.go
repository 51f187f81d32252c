package main

import (
	"log/slog"
	"net"
	"strings"
	"testing"

	"github.com/sqlite-replicator/replicator/stream"
)

// Nobody listens: that is one line, which says more than that time is up.
func TestAccessWithoutNATS(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	a := access{nats: stream.Options{URL: "nats://" + l.Addr().String(), Logger: slog.New(slog.DiscardHandler)}}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	_, err = a.connect(t.Context()) // with no patience
	if err == nil || strings.Contains(err.Error(), "\n") || !strings.Contains(err.Error(), "not connected to NATS") {
		t.Errorf("connect: %v", err)
	}
}
