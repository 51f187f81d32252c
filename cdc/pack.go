package cdc

import (
	"fmt"

	"github.com/klauspost/compress/s2"
	"github.com/klauspost/compress/zstd"
)

// A Codec is how the bodies of records are packed.
type Codec string

// The codecs. Every reader knows both, whichever wrote a record.
const (
	S2   Codec = "s2"   // one S2 block: takes next to no time
	Zstd Codec = "zstd" // one Zstandard frame: smaller, most of all where S2 finds no repetition; several times slower
)

const (
	compressFrom = 192 // bytes of a body below which compression does not pay
	zstdAtOnce   = 4   // calls of a Packer that need not wait for each other
)

// A Packer packs bodies. The nil Packer has codec S2. One serves a whole process,
// with Zstd it keeps up to 1.2 MiB. It may be used concurrently.
type Packer struct {
	zstd *zstd.Encoder
}

// NewPacker gives a packer of codec c; "" means S2.
func NewPacker(c Codec) (*Packer, error) {
	switch c {
	case "", S2:
		return nil, nil
	case Zstd:
		z, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(zstdAtOnce),
			zstd.WithLowerEncoderMem(true), zstd.WithWindowSize(MaxBody), zstd.WithSingleSegment(true), zstd.WithEncoderCRC(false),
			zstd.WithAllLitEntropyCompression(true)) // also where nothing repeats
		if err != nil {
			return nil, fmt.Errorf("cdc: zstd: %w", err)
		}
		return &Packer{zstd: z}, nil
	}
	return nil, fmt.Errorf("cdc: codec %q; use %s or %s", c, S2, Zstd)
}

// append appends body to dst, packed where that makes it smaller. flag says how.
func (p *Packer) append(dst, body []byte) (_ []byte, flag byte) {
	if len(body) < compressFrom {
		return append(dst, body...), 0
	}
	start := len(dst)
	if p != nil {
		dst, flag = p.zstd.EncodeAll(body, dst), flagZstd
	} else {
		if need := s2.MaxEncodedLen(len(body)); cap(dst)-start < need {
			dst = append(make([]byte, 0, start+need), dst...)
		}
		dst, flag = dst[:start+len(s2.Encode(dst[start:cap(dst)], body))], flagS2
	}
	if len(dst)-start >= len(body) {
		return append(dst[:start], body...), 0
	}
	return dst, flag
}

// An unpacker unpacks bodies. The zero value is ready. Not safe for concurrent use.
type unpacker struct {
	zstd *zstd.Decoder // nil until it is needed
}

// unpack gives the body of h, which may alias packed. Damage is an error, however much
// the bytes would unpack to.
func (u *unpacker) unpack(h Head, packed []byte) (body []byte, err error) {
	size := int(h.rawBody)
	switch h.flags & packedFlags {
	case 0:
		body = packed
	case flagS2:
		var n int
		if n, err = s2.DecodedLen(packed); err == nil && n != size { // before Decode makes room for it
			err = fmt.Errorf("%d bytes, the head of the record says %d", n, size)
		}
		if err == nil {
			body, err = s2.Decode(nil, packed)
		}
	case flagZstd:
		if u.zstd == nil {
			u.zstd, err = zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecodeAllCapLimit(true))
			if err != nil {
				return nil, fmt.Errorf("cdc: zstd: %w", err)
			}
		}
		body, err = u.zstd.DecodeAll(packed, make([]byte, 0, size))
	default:
		err = fmt.Errorf("flags %#x", h.flags)
	}
	switch {
	case err != nil:
		return nil, fmt.Errorf("%w: body of record %d: %w", ErrCorrupt, h.LSN, err)
	case len(body) != size:
		return nil, fmt.Errorf("%w: record %d has a body of %d bytes, its head says %d", ErrCorrupt, h.LSN, len(body), size)
	}
	return body, nil
}

func (u *unpacker) close() {
	if u.zstd != nil {
		u.zstd.Close()
	}
}
