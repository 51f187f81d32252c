package main

import "math/rand/v2"

// A benchText makes the text of one row after the other.
type benchText struct {
	text  []byte
	words [][]byte // nil: any letters
	pick  *rand.Zipf
}

const (
	benchWords = 4000 // different ones
	benchSkew  = 1.1  // of the distribution of words: the second is half as frequent as the first, about
)

// newBody gives texts of size bytes made of words or, with 0, of benchBody bytes made
// of any letters.
func newBody(size int) *benchText {
	if size == 0 {
		return &benchText{text: make([]byte, benchBody)}
	}
	b := &benchText{text: make([]byte, size)}
	rng := rand.New(rand.NewPCG(1, 1))
	for range benchWords {
		w := make([]byte, 2+rng.IntN(9), 12)
		for i := range w {
			w[i] = "eeetttaaooiinnsshhrdlcumwfgypb"[rng.IntN(30)]
		}
		b.words = append(b.words, append(w, ' '))
	}
	b.pick = rand.NewZipf(rand.New(rand.NewPCG(rand.Uint64(), 0)), benchSkew, 1, benchWords-1)
	return b
}

// fill makes the next text: of words, which compress like a language, or of letters,
// six bits each.
func (b *benchText) fill() {
	for i := 0; b.words != nil && i < len(b.text); {
		i += copy(b.text[i:], b.words[b.pick.Uint64()])
	}
	const letters = "abcdefghijklmnopqrstuvwxyz ABCDEFGHIJKLMNOPQRSTUVWXYZ.0123456789"
	for i := 0; b.words == nil && i < len(b.text); {
		for r, n := rand.Uint64(), 0; n < 10 && i < len(b.text); n, i = n+1, i+1 {
			b.text[i] = letters[r%64]
			r /= 64
		}
	}
}
