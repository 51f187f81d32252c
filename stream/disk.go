package stream

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"

	"github.com/nats-io/nats-server/v2/server"
	"golang.org/x/sys/unix"
)

// A StoreRoom is what the store of an embedded server can give to streams.
type StoreRoom struct {
	Streams int64    // bytes of the store's limit that no other stream has reserved; below 0 when they have reserved more
	Others  []string // the other streams that have reserved some, in order
}

// LookAtStore looks at the store in dir, which maxStore bounds as in [ServerOptions],
// for whoever wants to bound the streams of databases.
func LookAtStore(dir string, maxStore int64, databases []string) (StoreRoom, error) {
	limit, err := storeLimit(dir)
	if err != nil {
		return StoreRoom{}, err
	}
	room := StoreRoom{Streams: bounded(maxStore, limit)}
	for name, reserved := range reservations(dir) {
		if !slices.ContainsFunc(databases, func(db string) bool { return streamName(db) == name }) {
			room.Streams -= reserved
			room.Others = append(room.Others, name)
		}
	}
	slices.Sort(room.Others)
	return room, nil
}

// bounded is maxStore, which may be 0, within the limit of the disk.
func bounded(maxStore, limit int64) int64 {
	if maxStore <= 0 {
		return limit
	}
	return min(maxStore, limit)
}

// reservations is the MaxBytes of each stream in the store in dir that has one. JetStream
// counts it as used, whatever the stream holds. A file that cannot be read is of no
// stream that JetStream could read.
func reservations(dir string) map[string]int64 {
	root := os.DirFS(dir)
	// The only error is that of a malformed pattern.
	files, _ := fs.Glob(root, path.Join(server.JetStreamStoreDir, server.DEFAULT_GLOBAL_ACCOUNT, "streams", "*", server.JetStreamMetaFile))
	found := map[string]int64{}
	for _, file := range files {
		var config struct {
			Name     string `json:"name"`
			MaxBytes int64  `json:"max_bytes"`
		}
		b, err := fs.ReadFile(root, file)
		if err == nil && json.Unmarshal(b, &config) == nil && config.MaxBytes > 0 {
			found[config.Name] = config.MaxBytes
		}
	}
	return found
}

// promised is what streams may reserve in all, in bytes: now, while those of databases are as
// they are stored or as they are wanted, and then, when they are all as they are wanted.
func promised(stored, wanted map[string]int64) (now, then int64) {
	for _, reserved := range stored {
		now += reserved
	}
	then = now
	for db, bytes := range wanted {
		had := stored[streamName(db)]
		now += max(bytes-had, 0)
		then += bytes - had
	}
	return now, then
}

// storeLimit is how much a store in dir may hold, in bytes: 80 % of what it
// holds already and what is free. What else is in dir, such as the application's
// database, is not the store's.
func storeLimit(dir string) (int64, error) {
	free, err := freeBytes(dir)
	if err != nil {
		return 0, err
	}
	used, err := sizeOf(filepath.Join(dir, server.JetStreamStoreDir))
	if err != nil {
		return 0, err
	}
	return (used + free) / 5 * 4, nil
}

func freeBytes(dir string) (int64, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return 0, err
	}
	return int64(st.Bavail) * int64(st.Bsize), nil
}

// sizeOf is the size of all files below dir in bytes, 0 if there is none.
func sizeOf(dir string) (total int64, err error) {
	err = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		info, err := d.Info()
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err == nil && info.Mode().IsRegular() {
			total += info.Size()
		}
		return err
	})
	return total, err
}
