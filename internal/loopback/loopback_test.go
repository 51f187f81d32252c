package loopback

import (
	"net"
	"testing"
)

// TestFree: an address can be listened on, and is given out once although nobody
// listens on it.
func TestFree(t *testing.T) {
	var a Addresses
	seen := map[string]bool{}
	for range 200 {
		address, err := a.Free()
		if err != nil {
			t.Fatal(err)
		}
		if seen[address] {
			t.Fatalf("%s was given out twice", address)
		}
		seen[address] = true
	}
	for address := range seen {
		l, err := net.Listen("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = l.Close() })
	}
}
