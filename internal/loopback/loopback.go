// Package loopback finds addresses for tests whose servers need one that is known
// before they start, and the same again after a restart.
package loopback

import (
	"errors"
	"math/rand/v2"
	"net"
	"strconv"
	"sync"
)

// The ports are below those that systems give to outgoing connections (from 32768
// on Linux, from 49152 elsewhere). A port of theirs may be some connection's by
// the time that a server listens on it, or is started again.
const (
	lowest  = 12000
	highest = 32000
)

// Addresses gives out addresses of this machine, each once. The zero value is
// ready; it may be used concurrently.
type Addresses struct {
	mu    sync.Mutex
	given map[int]bool
}

// Free is a loopback address, 127.0.0.1:PORT, that nobody listens on and that was
// not given out before. Processes that look at the same time find the same one
// only by a chance of one in thousands.
func (a *Addresses) Free() (string, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.given == nil {
		a.given = make(map[int]bool)
	}
	for range highest - lowest {
		port := lowest + rand.IntN(highest-lowest)
		if a.given[port] {
			continue
		}
		address := net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
		l, err := net.Listen("tcp", address)
		if err != nil {
			continue
		}
		if err := l.Close(); err != nil {
			return "", err
		}
		a.given[port] = true
		return address, nil
	}
	return "", errors.New("no free port on 127.0.0.1")
}
