package snapshot

import (
	"fmt"

	"github.com/klauspost/compress/s2"
	"github.com/klauspost/compress/zstd"
)

// A Codec is how a chunk is packed.
type Codec string

// The codecs.
const (
	None Codec = "none" // the pages as they are
	S2   Codec = "s2"   // one S2 block: the default, faster than most disks and networks
	Zstd Codec = "zstd" // one Zstandard frame: smaller, several times slower
)

func (c Codec) known() bool { return c == None || c == S2 || c == Zstd }

// maxStored bounds the size of a packed chunk of n bytes.
func (c Codec) maxStored(n int) int {
	switch c {
	case S2:
		return s2.MaxEncodedLen(n)
	case Zstd:
		return n + n>>8 + 1024 // raw blocks of 128 KiB cost 3 bytes each, a frame at most 18 and a checksum
	}
	return n
}

// scratch is about how many bytes one worker's encoder or decoder needs besides
// the chunk.
func (c Codec) scratch() int {
	if c == Zstd {
		return 4 << 20
	}
	return 0
}

// A packer packs and unpacks chunks of one codec. It may be used concurrently.
type packer struct {
	codec   Codec
	encoder *zstd.Encoder
	decoder *zstd.Decoder
}

// newPacker allows for the given number of concurrent calls.
func newPacker(c Codec, concurrency int) (*packer, error) {
	p := &packer{codec: c}
	if c != Zstd {
		return p, nil
	}
	var err error
	p.encoder, err = zstd.NewWriter(nil,
		zstd.WithEncoderConcurrency(concurrency), zstd.WithLowerEncoderMem(true), zstd.WithWindowSize(1<<20))
	if err != nil {
		return nil, fmt.Errorf("snapshot: zstd: %w", err)
	}
	p.decoder, err = zstd.NewReader(nil,
		zstd.WithDecoderConcurrency(concurrency), zstd.WithDecoderLowmem(true), zstd.WithDecodeAllCapLimit(true))
	if err != nil {
		return nil, fmt.Errorf("snapshot: zstd: %w", err)
	}
	return p, nil
}

func (p *packer) close() {
	if p.codec == Zstd {
		_ = p.encoder.Close() // it writes nowhere
		p.decoder.Close()
	}
}

// pack returns raw packed: in spare, whose capacity is at least maxStored, or
// raw itself.
func (p *packer) pack(raw, spare []byte) []byte {
	switch p.codec {
	case S2:
		return s2.Encode(spare[:cap(spare)], raw)
	case Zstd:
		return p.encoder.EncodeAll(raw, spare[:0])
	}
	return raw
}

// unpack returns the size bytes that stored holds, in spare, whose capacity is
// at least size, or in stored itself.
func (p *packer) unpack(stored, spare []byte, size int) ([]byte, error) {
	raw := stored
	switch p.codec {
	case S2:
		n, err := s2.DecodedLen(stored)
		if err != nil {
			return nil, err
		}
		if n != size { // before Decode allocates what damaged bytes ask for
			return nil, fmt.Errorf("unpacks to %d bytes, want %d", n, size)
		}
		if raw, err = s2.Decode(spare[:size], stored); err != nil {
			return nil, err
		}
	case Zstd:
		var err error
		if raw, err = p.decoder.DecodeAll(stored, spare[:0:size]); err != nil {
			return nil, err
		}
	}
	if len(raw) != size {
		return nil, fmt.Errorf("unpacks to %d bytes, want %d", len(raw), size)
	}
	return raw, nil
}
