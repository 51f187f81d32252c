package durable

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
)

// sector is the least that a power failure keeps or loses, in bytes.
const sector = 512

// A Mem is a file system in memory for tests. It remembers what is on stable
// storage, so that [Mem.Crash] can give what a power failure would leave, and
// fails the calls that [Mem.Inject] chooses. Directories are durable at once.
type Mem struct {
	mu      sync.Mutex
	dirs    map[string]bool
	names   map[string]*memNode
	kept    map[string]*memNode // names on stable storage
	pending []memEntry          // changes of names since then
	open    int
	inject  func(Call) Fault
}

// A memNode is a file's content, whatever its names.
type memNode struct {
	data  []byte
	kept  []byte     // on stable storage
	dirty []memWrite // since then, in order
}

// A memWrite is a write at offset or, with data nil, a truncation to offset.
type memWrite struct {
	offset int64
	data   []byte
}

// A memEntry removes a name, gives a file one, or both.
type memEntry struct {
	dir    string
	remove string
	add    string
	node   *memNode
}

// NewMem returns an empty file system.
func NewMem() *Mem {
	return &Mem{dirs: map[string]bool{"/": true, ".": true}, names: map[string]*memNode{}, kept: map[string]*memNode{}}
}

// A Call is a call that is about to happen.
type Call struct {
	Op   string // open, create (an open that may), read, write, sync, truncate, rename, remove, readdir, mkdir or syncdir
	Name string
	Size int // bytes of a write
}

// A Fault is how a call fails; without Err it does not. Unless Happened is
// true it has no effect, but that a write writes its first Wrote bytes, and
// that a failed sync forgets that there was something to sync: what is not on
// stable storage can still be read, and later syncs pass over it, as on Linux.
type Fault struct {
	Err      error
	Happened bool
	Wrote    int
}

// Inject lets f decide on every call from now on; nil ends that. f may call
// Crash, which then shows the moment before the call.
func (m *Mem) Inject(f func(Call) Fault) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.inject = f
}

func (m *Mem) fault(op, name string, size int) Fault {
	m.mu.Lock()
	f := m.inject
	m.mu.Unlock()
	if f == nil {
		return Fault{}
	}
	fault := f(Call{Op: op, Name: name, Size: size})
	if fault.Err != nil {
		fault.Err = &os.PathError{Op: op, Path: name, Err: fault.Err}
	}
	return fault
}

// do runs a call that either happens or does not.
func (m *Mem) do(op, name string, call func() error) error {
	fault := m.fault(op, name, 0)
	if fault.Err != nil && !fault.Happened {
		return fault.Err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := call(); err != nil {
		return &os.PathError{Op: op, Path: name, Err: err}
	}
	return fault.Err
}

// Open implements FS.
func (m *Mem) Open(name string, flag int) (File, error) {
	name = filepath.Clean(name)
	var f *memFile
	op := "open"
	if flag&os.O_CREATE != 0 {
		op = "create"
	}
	err := m.do(op, name, func() error {
		node := m.names[name]
		switch {
		case node == nil && flag&os.O_CREATE == 0, node == nil && !m.dirs[filepath.Dir(name)]:
			return os.ErrNotExist
		case node != nil && flag&os.O_CREATE != 0 && flag&os.O_EXCL != 0:
			return os.ErrExist
		case node == nil:
			node = &memNode{}
			m.change(memEntry{dir: filepath.Dir(name), add: name, node: node})
		case flag&os.O_TRUNC != 0:
			node.apply(memWrite{})
		}
		f = &memFile{mem: m, node: node, name: name, writable: flag&(os.O_RDWR|os.O_WRONLY) != 0}
		return nil
	})
	if err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.open++
	return f, nil
}

func (m *Mem) change(e memEntry) {
	e.apply(m.names)
	m.pending = append(m.pending, e)
}

func (e memEntry) apply(names map[string]*memNode) {
	if e.remove != "" {
		delete(names, e.remove)
	}
	if e.add != "" {
		names[e.add] = e.node
	}
}

// Rename implements FS, within one directory.
func (m *Mem) Rename(from, to string) error {
	from, to = filepath.Clean(from), filepath.Clean(to)
	return m.do("rename", from, func() error {
		node := m.names[from]
		if node == nil {
			return os.ErrNotExist
		}
		if filepath.Dir(from) != filepath.Dir(to) {
			return fmt.Errorf("to another directory: %s", to)
		}
		m.change(memEntry{dir: filepath.Dir(to), remove: from, add: to, node: node})
		return nil
	})
}

// Remove implements FS.
func (m *Mem) Remove(name string) error {
	name = filepath.Clean(name)
	return m.do("remove", name, func() error {
		if m.names[name] == nil {
			return os.ErrNotExist
		}
		m.change(memEntry{dir: filepath.Dir(name), remove: name})
		return nil
	})
}

// ReadDir implements FS.
func (m *Mem) ReadDir(dir string) ([]string, error) {
	dir = filepath.Clean(dir)
	var names []string
	err := m.do("readdir", dir, func() error {
		if !m.dirs[dir] {
			return os.ErrNotExist
		}
		for name := range m.names {
			if filepath.Dir(name) == dir {
				names = append(names, filepath.Base(name))
			}
		}
		slices.Sort(names)
		return nil
	})
	return names, err
}

// MkdirAll implements FS.
func (m *Mem) MkdirAll(dir string) error {
	dir = filepath.Clean(dir)
	return m.do("mkdir", dir, func() error {
		for ; !m.dirs[dir]; dir = filepath.Dir(dir) {
			m.dirs[dir] = true
		}
		return nil
	})
}

// SyncDir implements FS.
func (m *Mem) SyncDir(dir string) error {
	dir = filepath.Clean(dir)
	return m.do("syncdir", dir, func() error {
		if !m.dirs[dir] {
			return os.ErrNotExist
		}
		m.pending = slices.DeleteFunc(m.pending, func(e memEntry) bool {
			if e.dir == dir {
				e.apply(m.kept)
			}
			return e.dir == dir
		})
		return nil
	})
}

// OpenFiles is how many files are open.
func (m *Mem) OpenFiles() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.open
}

// Crash gives the file system as it may be after a power failure now. For each
// sector and each change of a name that was not synced, pick(2) says whether it
// is there (1) or not (0); with pick nil none is. A sector that several writes
// share is as it was after one of them, for it is written whole. m stays as it is.
func (m *Mem) Crash(pick func(n int) int) *Mem {
	if pick == nil {
		pick = func(int) int { return 0 }
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	out := NewMem()
	for dir := range m.dirs {
		out.dirs[dir] = true
	}
	kept := map[string]*memNode{}
	for name, node := range m.kept {
		kept[name] = node
	}
	for _, e := range m.pending {
		if pick(2) == 1 {
			e.apply(kept)
		}
	}
	for _, name := range sortedKeys(kept) { // in order, so that pick can be replayed
		data := kept[name].crash(pick)
		node := &memNode{data: data, kept: slices.Clone(data)}
		out.names[name], out.kept[name] = node, node
	}
	return out
}

func sortedKeys(m map[string]*memNode) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, strings.Compare)
	return keys
}

// Image gives the content of a file.
func (m *Mem) Image(name string) []byte {
	m.mu.Lock()
	defer m.mu.Unlock()
	if n := m.names[filepath.Clean(name)]; n != nil {
		return slices.Clone(n.data)
	}
	return nil
}

// SetImage replaces a file, durably: what another process or a bad disk did.
func (m *Mem) SetImage(name string, data []byte) {
	m.mu.Lock()
	defer m.mu.Unlock()
	node := &memNode{data: slices.Clone(data), kept: slices.Clone(data)}
	m.names[filepath.Clean(name)], m.kept[filepath.Clean(name)] = node, node
}

func (n *memNode) apply(w memWrite) {
	n.data = w.onto(n.data)
	n.dirty = append(n.dirty, w)
}

func (n *memNode) sync() {
	for _, w := range n.dirty {
		n.kept = w.onto(n.kept)
	}
	n.dirty = nil
}

func (n *memNode) crash(pick func(int) int) []byte {
	b := slices.Clone(n.kept)
	stale := map[int64]bool{} // sectors that went to the disk before a write: without what came later, too
	for _, w := range n.dirty {
		if w.data == nil {
			if pick(2) == 1 {
				b = w.onto(b)
			}
			clear(stale)
			continue
		}
		if pick(2) == 1 { // the size without the content
			b = resize(b, max(int64(len(b)), w.offset+int64(len(w.data))))
		}
		for data, at := w.data, w.offset; len(data) > 0; {
			k := min(int64(len(data)), sector-at%sector)
			if s := at / sector; !stale[s] && pick(2) == 1 {
				b = memWrite{at, data[:k]}.onto(b)
			} else {
				stale[s] = true
			}
			data, at = data[k:], at+k
		}
	}
	return b
}

func (w memWrite) onto(b []byte) []byte {
	if w.data == nil {
		return resize(b, w.offset)
	}
	b = resize(b, max(int64(len(b)), w.offset+int64(len(w.data))))
	copy(b[w.offset:], w.data)
	return b
}

func resize(b []byte, size int64) []byte {
	if size <= int64(len(b)) {
		return b[:size]
	}
	return append(b, make([]byte, size-int64(len(b)))...)
}

// A memFile is an open file of a Mem.
type memFile struct {
	mem      *Mem
	node     *memNode
	name     string
	writable bool
	closed   bool // guarded by mem.mu
}

func (f *memFile) usable(write bool) error {
	switch {
	case f.closed:
		return os.ErrClosed
	case write && !f.writable:
		return syscall.EBADF
	}
	return nil
}

// ReadAt implements File.
func (f *memFile) ReadAt(b []byte, offset int64) (int, error) {
	n := 0
	eof := false
	err := f.mem.do("read", f.name, func() error {
		if err := f.usable(false); err != nil {
			return err
		}
		if offset < int64(len(f.node.data)) {
			n = copy(b, f.node.data[offset:])
		}
		eof = n < len(b)
		return nil
	})
	if err == nil && eof {
		err = io.EOF
	}
	return n, err
}

// WriteAt implements File.
func (f *memFile) WriteAt(b []byte, offset int64) (int, error) {
	fault := f.mem.fault("write", f.name, len(b))
	f.mem.mu.Lock()
	defer f.mem.mu.Unlock()
	if err := f.usable(true); err != nil {
		return 0, &os.PathError{Op: "write", Path: f.name, Err: err}
	}
	if fault.Err != nil && !fault.Happened {
		b = b[:min(fault.Wrote, len(b))]
	}
	if len(b) > 0 {
		f.node.apply(memWrite{offset, slices.Clone(b)})
	}
	return len(b), fault.Err
}

// Sync implements File.
func (f *memFile) Sync() error {
	fault := f.mem.fault("sync", f.name, 0)
	f.mem.mu.Lock()
	defer f.mem.mu.Unlock()
	if err := f.usable(false); err != nil {
		return &os.PathError{Op: "sync", Path: f.name, Err: err}
	}
	if fault.Err != nil && !fault.Happened {
		f.node.forget()
		return fault.Err
	}
	f.node.sync()
	return fault.Err
}

// forget drops dirty content that will never be written. Its size is kept, as
// metadata is not part of what failed: the lost content reads as zeros later.
func (n *memNode) forget() {
	for _, w := range n.dirty {
		if w.data == nil {
			n.kept = w.onto(n.kept)
		} else {
			n.kept = resize(n.kept, max(int64(len(n.kept)), w.offset+int64(len(w.data))))
		}
	}
	n.dirty = nil
}

// Truncate implements File.
func (f *memFile) Truncate(size int64) error {
	return f.mem.do("truncate", f.name, func() error {
		if err := f.usable(true); err != nil {
			return err
		}
		f.node.apply(memWrite{offset: size})
		return nil
	})
}

// Size implements File.
func (f *memFile) Size() (int64, error) {
	f.mem.mu.Lock()
	defer f.mem.mu.Unlock()
	if err := f.usable(false); err != nil {
		return 0, &os.PathError{Op: "size", Path: f.name, Err: err}
	}
	return int64(len(f.node.data)), nil
}

// Close implements File.
func (f *memFile) Close() error {
	f.mem.mu.Lock()
	defer f.mem.mu.Unlock()
	if f.closed {
		return &os.PathError{Op: "close", Path: f.name, Err: os.ErrClosed}
	}
	f.closed = true
	f.mem.open--
	return nil
}
