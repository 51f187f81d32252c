package replicator_test

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"time"

	"github.com/sqlite-replicator/replicator/internal/sqlite"
	"github.com/sqlite-replicator/replicator/internal/sqlitefile"
)

// An order is one line that a vandal is given.
type order struct {
	Do   string
	Path string
	SQL  string `json:",omitempty"`
	Out  string `json:",omitempty"` // of facts
	Seed uint64 `json:",omitempty"`
}

// A vandal is the application of one source, and what damages its files. It is a
// process of its own: to close a descriptor of a source in the primary's process
// would drop the primary's locks.
type vandal struct {
	app  *sqlite.Conn // nil while it is closed
	open []*os.File   // closed after it, since that drops its locks
}

// playVandal is a child's main. It answers each order with "ok" or with what was
// refused.
func playVandal([]string) error {
	v := &vandal{}
	in := bufio.NewScanner(os.Stdin)
	in.Buffer(nil, 1<<20)
	for in.Scan() {
		var o order
		if err := json.Unmarshal(in.Bytes(), &o); err != nil {
			return err
		}
		answer := "ok"
		if err := v.obey(o); err != nil {
			answer = fmt.Sprintf("%q", err)
		}
		fmt.Println(answer)
	}
	return in.Err()
}

func (v *vandal) obey(o order) error {
	r := seeded(o.Seed, 5)
	if v.app == nil && (o.Do == "sql" || o.Do == "close" || o.Do == "commit") {
		return errors.New("the database could not be opened")
	}
	switch o.Do {
	case "make":
		return script(o.Path, o.SQL)
	case "copy":
		b, err := os.ReadFile(o.Out)
		if err != nil {
			return err
		}
		return os.WriteFile(o.Path, b, 0o600)
	case "open":
		return v.connect(o.Path)
	case "close":
		err := v.app.Close()
		for _, f := range v.open {
			err = errors.Join(err, f.Close())
		}
		v.app, v.open = nil, nil
		return err
	case "sql":
		err := v.app.Exec(o.SQL)
		return errors.Join(err, v.app.Rollback())
	case "facts":
		return tolerantFacts(o.Path, o.Out)
	case "damage":
		return v.damageFile(o.Path, r)
	case "frames":
		return errors.Join(damageFrames(o.Path, r), v.recover(o.Path))
	case "commit":
		return v.commitDamage(o.Path, r)
	}
	return fmt.Errorf("unknown order %q", o.Do)
}

func (v *vandal) connect(path string) (err error) {
	if v.app, err = sqlite.Open(path, sqlite.Options{Plain: true, BusyTimeout: 5 * time.Second}); err != nil {
		return err
	}
	return v.app.Exec("PRAGMA wal_autocheckpoint=0; PRAGMA synchronous=OFF; PRAGMA cache_size=20")
}

// tolerantFacts is playInspect for damaged databases: what cannot be read is a
// fact, too.
func tolerantFacts(path, out string) (err error) {
	f, err := os.Create(out)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	i := &inspector{out: bufio.NewWriter(f)}
	if i.c, err = sqlite.Open(path, sqlite.Options{ReadOnly: true, BusyTimeout: 5 * time.Second}); err != nil {
		i.line(unreadable, "database")
		return i.out.Flush()
	}
	defer func() { err = errors.Join(err, i.c.Close()) }()
	for _, part := range []func() error{i.header, i.objects, i.eachTable} {
		if err := part(); err != nil {
			i.line(unreadable, "schema")
		}
	}
	return i.out.Flush()
}

// unreadable is what a line of facts is about that SQLite cannot give.
const unreadable = "unreadable"

func (i *inspector) eachTable() error {
	names, err := i.list("SELECT name FROM sqlite_schema WHERE type='table' AND rootpage>0 AND" + notOurs + " ORDER BY 1")
	for _, name := range names {
		if err := i.table(name); err != nil {
			i.line(unreadable, fmt.Sprintf("table %q", name))
		}
	}
	return err
}

// damageFile spoils some pages of a database file.
func (v *vandal) damageFile(path string, r *rand.Rand) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	v.open = append(v.open, f)
	head := make([]byte, 100)
	if _, err := f.ReadAt(head, 0); err != nil {
		return err
	}
	size := pageSizeOf(head)
	info, err := f.Stat()
	if err != nil {
		return err
	}
	pages := int(info.Size()) / size
	if r.IntN(12) == 0 { // cut off
		keep := int64(1 + r.IntN(pages))
		if r.IntN(2) == 0 {
			return f.Truncate(keep*int64(size) - int64(r.IntN(size)))
		}
		return f.Truncate(keep * int64(size))
	}
	for range 1 + r.IntN(3) {
		page := 1 + r.IntN(pages)
		if r.IntN(6) == 0 {
			page = 1
		}
		b := make([]byte, size)
		if _, err := f.ReadAt(b, int64(page-1)*int64(size)); err != nil {
			return err
		}
		spoil(b, page, pages, r)
		if _, err := f.WriteAt(b, int64(page-1)*int64(size)); err != nil {
			return err
		}
	}
	return nil
}

func pageSizeOf(head []byte) int {
	if n := int(binary.BigEndian.Uint16(head[16:])); n != 1 {
		return n
	}
	return 65536
}

// damageFrames spoils frames of a SQLite WAL. Most get checksums that are right,
// so that SQLite, too, believes in them.
func damageFrames(path string, r *rand.Rand) error {
	b, err := os.ReadFile(path + "-wal")
	if err != nil {
		return err
	}
	if len(b) < sqlitefile.WALHeaderSize {
		return errors.New("no frames")
	}
	size := int(binary.BigEndian.Uint32(b[8:]))
	frames := (len(b) - sqlitefile.WALHeaderSize) / (size + sqlitefile.FrameHeaderSize)
	if frames == 0 {
		return errors.New("no frames")
	}
	if r.IntN(15) == 0 {
		return os.Truncate(path+"-wal", int64(r.IntN(len(b))))
	}
	// With checksums that are right, the size after a commit stays: where it lies, SQLite
	// goes on to believe in frames from before the database became smaller.
	sound := r.IntN(5) > 0
	for range 1 + r.IntN(3) {
		f := b[sqlitefile.FrameOffset(uint32(1+r.IntN(frames)), size):][:sqlitefile.FrameHeaderSize+size]
		page := int(binary.BigEndian.Uint32(f))
		field := f[4:]
		if sound {
			field = f
		}
		if r.IntN(5) > 0 {
			spoil(f[sqlitefile.FrameHeaderSize:], page, 100, r)
			continue
		}
		binary.BigEndian.PutUint32(field, pick(r, 0, 1, 2, uint32(r.IntN(200)), 1<<31, 1<<32-1))
	}
	if sound {
		sumFrames(b, size, 1)
	}
	return os.WriteFile(path+"-wal", b, 0o600)
}

// sumFrames makes the checksums of a SQLite WAL right from a frame on.
func sumFrames(b []byte, size, from int) {
	big := binary.BigEndian.Uint32(b)&1 != 0
	at := sqlitefile.WALHeaderSize
	var sum sqlitefile.Checksum
	read := func(b []byte) {
		sum = sqlitefile.Checksum{binary.BigEndian.Uint32(b), binary.BigEndian.Uint32(b[4:])}
	}
	read(b[24:])
	for n := 1; at+sqlitefile.FrameHeaderSize+size <= len(b); n++ {
		f := b[at:][:sqlitefile.FrameHeaderSize+size]
		if n < from {
			read(f[16:])
		} else {
			copy(f[8:16], b[16:24]) // the salts
			sum = sum.Add(f[:8], big).Add(f[sqlitefile.FrameHeaderSize:], big)
			binary.BigEndian.PutUint32(f[16:], sum[0])
			binary.BigEndian.PutUint32(f[20:], sum[1])
		}
		at += len(f)
	}
}

// commitDamage commits a transaction that holds damaged pages, as a program with
// a defect would: its frames are whole, and the wal-index speaks of them.
func (v *vandal) commitDamage(path string, r *rand.Rand) error {
	if err := v.app.BeginImmediate(); err != nil { // nobody else writes
		return err
	}
	defer v.app.Rollback()
	m, err := peekMarks(path)
	if err != nil {
		return err
	}
	pages, err := v.app.QueryInt("PRAGMA page_count")
	if err != nil {
		return err
	}
	f, err := os.OpenFile(path+"-wal", os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	head := make([]byte, sqlitefile.WALHeaderSize)
	if _, err := f.ReadAt(head, 0); err != nil || m.Frames == 0 {
		return fmt.Errorf("no frames: %w", err)
	}
	size := int(binary.BigEndian.Uint32(head[8:]))
	end := sqlitefile.FrameOffset(m.Frames+1, size)
	b := make([]byte, end)
	if _, err := f.ReadAt(b, 0); err != nil {
		return err
	}
	for n := 1 + r.IntN(3); n > 0; n-- {
		page := 1 + r.IntN(int(pages))
		image, err := v.pageNow(path, b, size, page)
		if err != nil {
			return err
		}
		spoil(image, page, int(pages), r)
		h := make([]byte, sqlitefile.FrameHeaderSize)
		binary.BigEndian.PutUint32(h, uint32(page))
		if n == 1 {
			binary.BigEndian.PutUint32(h[4:], uint32(pages))
		}
		b = append(append(b, h...), image...)
	}
	sumFrames(b, size, int(m.Frames)+1)
	if _, err := f.WriteAt(b[end:], end); err != nil {
		return err
	}
	if err := f.Truncate(int64(len(b))); err != nil {
		return err
	}
	return v.recover(path)
}

// recover makes the next reader take the SQLite WAL at its word, as after a crash:
// it voids the wal-index.
func (v *vandal) recover(path string) error {
	index, err := os.OpenFile(path+"-shm", os.O_RDWR, 0)
	if err != nil {
		return err
	}
	v.open = append(v.open, index)
	_, err = index.WriteAt(make([]byte, 96), 0)
	return err
}

func peekMarks(path string) (sqlite.Checkpoint, error) {
	c, err := sqlite.Open(path, sqlite.Options{ReadOnly: true})
	if err != nil {
		return sqlite.Checkpoint{}, err
	}
	m, err := c.Checkpoint(sqlite.Noop)
	return m, errors.Join(err, c.Close())
}

// pageNow is the image of a page: in its last frame in b, else in the file.
func (v *vandal) pageNow(path string, b []byte, size, page int) ([]byte, error) {
	image := make([]byte, size)
	found := false
	for at := sqlitefile.WALHeaderSize; at < len(b); at += sqlitefile.FrameHeaderSize + size {
		if binary.BigEndian.Uint32(b[at:]) == uint32(page) {
			copy(image, b[at+sqlitefile.FrameHeaderSize:])
			found = true
		}
	}
	if found {
		return image, nil
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	v.open = append(v.open, f)
	if _, err := f.ReadAt(image, int64(page-1)*int64(size)); err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	return image, nil
}

// spoil changes a page of a database of so many pages, with a taste for what
// leads elsewhere.
func spoil(b []byte, page, pages int, r *rand.Rand) {
	start := 0
	if page == 1 {
		start = 100
		if r.IntN(3) == 0 {
			spoilHeader(b, pages, r)
			return
		}
	}
	number := func() uint32 {
		return pick(r, uint32(page), 0, 1, 2, 3, uint32(1+r.IntN(pages)), uint32(pages), uint32(pages+1), 1<<31-1, 1<<31, 1<<32-1)
	}
	cells := int(binary.BigEndian.Uint16(b[start+3:]))
	pointers := start + 8
	if b[start] == 2 || b[start] == 5 {
		pointers += 4
	}
	cell := -1 // where one of the cells starts
	if p := pointers + 2*r.IntN(max(cells, 1)); cells > 0 && p+2 <= len(b) {
		if at := int(binary.BigEndian.Uint16(b[p:])); at+8 < len(b) {
			cell = at
		}
	}
	switch n := r.IntN(15); {
	case n == 0:
		clear(b)
	case n == 1:
		b[start] = pick(r, byte(2), 5, 10, 13, 0, 255)
	case n == 2:
		binary.BigEndian.PutUint16(b[start+3:], pick(r, 0, 1, uint16(cells+1), uint16(max(cells-1, 0)), 65535, uint16(r.IntN(65536))))
	case n == 3:
		binary.BigEndian.PutUint32(b[start+8:], number()) // right-most child, or two cell pointers
	case n == 4:
		binary.BigEndian.PutUint32(b[start:], number()) // the link of a chain
	case n == 5 && cells > 0:
		binary.BigEndian.PutUint16(b[min(pointers+2*r.IntN(cells), len(b)-2):], uint16(r.IntN(len(b)+4)))
	case n == 6 && cell >= 0:
		binary.BigEndian.PutUint32(b[cell:], number()) // child, or size and rowid
	case n == 7 && cell >= 0:
		b[cell+r.IntN(8)] = byte(r.IntN(256)) // sizes, rowid, record header
	case n == 8 && cell >= 0:
		for i := range 1 + r.IntN(8) {
			b[cell+i] = 0xff // a varint as long as can be
		}
	case n == 9:
		binary.BigEndian.PutUint32(b[r.IntN(len(b)-4):], number())
	case n == 10 && cells > 1: // two cells change places
		x, y := pointers+2*r.IntN(cells), pointers+2*r.IntN(cells)
		if max(x, y)+2 <= len(b) {
			b[x], b[x+1], b[y], b[y+1] = b[y], b[y+1], b[x], b[x+1]
		}
	case n == 11:
		at := r.IntN(len(b))
		for i := at; i < min(at+1+r.IntN(64), len(b)); i++ {
			b[i] = byte(r.IntN(256))
		}
	default:
		for range 1 + r.IntN(4) {
			b[r.IntN(len(b))] ^= 1 << r.IntN(8)
		}
	}
}

// spoilHeader makes the header of a database lie.
func spoilHeader(b []byte, pages int, r *rand.Rand) {
	at := pick(r, 16, 18, 19, 20, 21, 24, 28, 28, 32, 36, 40, 44, 47, 52, 56, 59, 60, 64, 68, 92, 96)
	switch r.IntN(3) {
	case 0:
		b[at] = byte(r.IntN(256))
	case 1:
		binary.BigEndian.PutUint32(b[at:], pick(r, 0, 1, uint32(pages), uint32(pages-1), uint32(pages+1), uint32(2*pages), 1<<32-1))
	default:
		b[r.IntN(100)] ^= 1 << r.IntN(8)
	}
}
