package sqlitefile

import "encoding/binary"

// buildPage lays out a b-tree page: the cells one after the other from the end.
func buildPage(kind PageType, number uint32, size int, right uint32, cells ...[]byte) []byte {
	b := make([]byte, size)
	h := 0
	if number == 1 {
		h = HeaderSize
	}
	b[h] = byte(kind)
	binary.BigEndian.PutUint16(b[h+3:], uint16(len(cells)))
	ptr := h + leafHeader
	if kind.Interior() {
		binary.BigEndian.PutUint32(b[h+leafHeader:], right)
		ptr = h + interiorHeader
	}
	end := size
	for _, c := range cells {
		end -= len(c)
		copy(b[end:], c)
		binary.BigEndian.PutUint16(b[ptr:], uint16(end))
		ptr += 2
	}
	return b
}

// tableCell is a cell of a leaf table page; overflow 0 means none.
func tableCell(rowid int64, size uint64, local []byte, overflow uint32) []byte {
	b := AppendVarint(AppendVarint(nil, size), uint64(rowid))
	b = append(b, local...)
	if overflow != 0 {
		b = binary.BigEndian.AppendUint32(b, overflow)
	}
	return b
}

// childCell is a cell of an interior table page.
func childCell(child uint32, rowid int64) []byte {
	return AppendVarint(binary.BigEndian.AppendUint32(nil, child), uint64(rowid))
}

// buildHeader is the 100 bytes of a database in UTF-8.
func buildHeader(pageSize int) []byte {
	b := make([]byte, HeaderSize)
	copy(b, headerMagic)
	binary.BigEndian.PutUint16(b[16:], uint16(pageSize%65535)) // 65536 is stored as 1
	b[18], b[19], b[21], b[22], b[23] = 1, 1, 64, 32, 32
	b[47], b[59] = 4, 1
	return b
}

// walBuilder writes a SQLite WAL as SQLite would.
type walBuilder struct {
	file     []byte
	pageSize int
	big      bool
	salt     [2]uint32
	sum      Checksum
}

func newWAL(pageSize int, big bool, salt [2]uint32) *walBuilder {
	w := &walBuilder{pageSize: pageSize, big: big, salt: salt}
	magic := uint32(walMagic)
	if big {
		magic |= 1
	}
	for _, v := range []uint32{magic, walVersion, uint32(pageSize), 7, salt[0], salt[1]} {
		w.file = binary.BigEndian.AppendUint32(w.file, v)
	}
	w.sum = slowChecksum(w.sum, w.file, big)
	w.file = w.appendSum(w.file)
	return w
}

// frame appends a frame; fill makes the page's content.
func (w *walBuilder) frame(page, dbSize uint32, fill byte) {
	start := len(w.file)
	for _, v := range []uint32{page, dbSize, w.salt[0], w.salt[1]} {
		w.file = binary.BigEndian.AppendUint32(w.file, v)
	}
	content := make([]byte, w.pageSize)
	for i := range content {
		content[i] = fill + byte(i*i>>3)
	}
	w.sum = slowChecksum(w.sum, w.file[start:start+8], w.big)
	w.sum = slowChecksum(w.sum, content, w.big)
	w.file = append(w.appendSum(w.file), content...)
}

// transaction appends frames of which the last one commits.
func (w *walBuilder) transaction(dbSize uint32, pages ...uint32) {
	for i, p := range pages {
		commit := uint32(0)
		if i == len(pages)-1 {
			commit = dbSize
		}
		w.frame(p, commit, byte(len(w.file)/w.pageSize))
	}
}

func (w *walBuilder) appendSum(b []byte) []byte {
	return binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(b, w.sum[0]), w.sum[1])
}

// slowChecksum is the loop of §4.2, word for word.
func slowChecksum(s Checksum, b []byte, big bool) Checksum {
	var order binary.ByteOrder = binary.LittleEndian
	if big {
		order = binary.BigEndian
	}
	for i := 0; i < len(b); i += 8 {
		s[0] += order.Uint32(b[i:]) + s[1]
		s[1] += order.Uint32(b[i+4:]) + s[0]
	}
	return s
}
