package sqlitefile

// Varint decodes the variable-length integer at the start of b (§1.6): big
// endian, seven bits a byte, at most nine bytes, the ninth with all its eight
// bits. It returns the value and its length in bytes; n == 0 means that b ends
// before the integer does.
func Varint(b []byte) (v uint64, n int) {
	if len(b) > 0 && b[0] < 0x80 { // most are one byte
		return uint64(b[0]), 1
	}
	return longVarint(b)
}

func longVarint(b []byte) (v uint64, n int) {
	for n < 8 && n < len(b) {
		c := b[n]
		v = v<<7 | uint64(c&0x7f)
		n++
		if c < 0x80 {
			return v, n
		}
	}
	if n < 8 || len(b) < 9 {
		return 0, 0
	}
	return v<<8 | uint64(b[8]), 9
}

// AppendVarint appends v in the shortest form that [Varint] reads.
func AppendVarint(dst []byte, v uint64) []byte {
	if v >= 1<<56 {
		for shift := 57; shift >= 8; shift -= 7 {
			dst = append(dst, byte(v>>shift)|0x80)
		}
		return append(dst, byte(v))
	}
	for shift := 7 * (varintLen(v) - 1); shift > 0; shift -= 7 {
		dst = append(dst, byte(v>>shift)|0x80)
	}
	return append(dst, byte(v)&0x7f)
}

func varintLen(v uint64) int {
	n := 1
	for v >>= 7; v != 0 && n < 9; v >>= 7 {
		n++
	}
	return n
}
