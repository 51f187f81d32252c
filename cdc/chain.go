package cdc

import "github.com/zeebo/xxh3"

// A Chain computes the hash chain over the records of a change log. The hash
// at a boundary covers every byte of the records after the previous boundary
// up to and including it; the boundary itself carries the previous hash.
// The zero value starts a chain.
type Chain struct {
	prev Hash
	h    *xxh3.Hasher
}

// ChainAt continues a chain after a boundary with the given hash.
func ChainAt(prev Hash) Chain { return Chain{prev: prev} }

// Clone returns an independent copy. An assignment does not: inside a
// transaction both copies would feed one hasher.
func (c *Chain) Clone() Chain {
	if c.h == nil {
		return *c
	}
	h := *c.h
	return Chain{prev: c.prev, h: &h}
}

// Prev is the hash at the last boundary added.
func (c *Chain) Prev() Hash { return c.prev }

// Add adds the encoded record rec. After a boundary it returns the chain hash
// there, after a part the zero hash.
func (c *Chain) Add(rec []byte, k Kind) Hash {
	if !k.Boundary() {
		if c.h == nil {
			c.h = xxh3.New()
		}
		_, _ = c.h.Write(rec)
		return Hash{}
	}
	if c.h == nil {
		c.prev = xxh3.Hash128(rec).Bytes()
		return c.prev
	}
	_, _ = c.h.Write(rec)
	c.prev = c.h.Sum128().Bytes()
	c.h = nil
	return c.prev
}
