//go:build race

package snapshot

// underRace: the race detector makes sync.Pool drop buffers at random, so that
// what is in use cannot be measured.
const underRace = true
