package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// quantiles are of durations, in milliseconds.
type quantiles struct {
	P50 float64 `json:"p50"`
	P99 float64 `json:"p99"`
	Max float64 `json:"max"`
}

// quantilesOf sorts d.
func quantilesOf(d []time.Duration) quantiles {
	if len(d) == 0 {
		return quantiles{}
	}
	slices.Sort(d)
	at := func(q float64) float64 {
		return float64(d[int(q*float64(len(d)-1))]) / float64(time.Millisecond)
	}
	return quantiles{P50: at(0.5), P99: at(0.99), Max: at(1)}
}

// probeDisk appends a page and fsyncs it, n times: what a commit costs at least.
func probeDisk(dir string, n int) (q quantiles, err error) {
	name := filepath.Join(dir, "fsync")
	f, err := os.Create(name)
	if err != nil {
		return q, err
	}
	defer func() { err = errors.Join(err, f.Close(), os.Remove(name)) }()
	page := bytes.Repeat([]byte{0xa5}, 4096)
	took := make([]time.Duration, n)
	for i := range took {
		if _, err := f.Write(page); err != nil {
			return q, err
		}
		began := time.Now()
		if err := f.Sync(); err != nil {
			return q, err
		}
		took[i] = time.Since(began)
	}
	return quantilesOf(took), nil
}

// peakRSS is the most memory that a process has had, in MiB.
func peakRSS(pid int) (float64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			kib, err := strconv.ParseFloat(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 64)
			return kib / 1024, err
		}
	}
	return 0, fmt.Errorf("/proc/%d/status has no VmHWM", pid)
}

// clockTick is the unit of CPU times in /proc; Linux has no other on the
// architectures that Go supports.
const clockTick = 10 * time.Millisecond

// cpuTime is what a process has used so far, of all cores.
func cpuTime(pid int) (time.Duration, error) {
	name := fmt.Sprintf("/proc/%d/stat", pid)
	text, err := os.ReadFile(name)
	if err != nil {
		return 0, err
	}
	// The second field is the program's name in parentheses, with any byte in it.
	fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
	const user, system = 11, 12 // utime and stime, counted from the third field
	if len(fields) <= system {
		return 0, fmt.Errorf("%s has %d fields after the name", name, len(fields))
	}
	u, err := strconv.ParseInt(fields[user], 10, 64)
	if err != nil {
		return 0, fmt.Errorf("%s: utime: %w", name, err)
	}
	s, err := strconv.ParseInt(fields[system], 10, 64)
	if err != nil {
		return 0, fmt.Errorf("%s: stime: %w", name, err)
	}
	return time.Duration(u+s) * clockTick, nil
}

// A sizeWatch notes how large a file becomes.
type sizeWatch struct {
	cancel context.CancelFunc
	done   chan struct{}
	most   int64
}

// watchSize looks at the file until stop. It never opens it: a descriptor of a
// database that is closed drops SQLite's locks.
func watchSize(ctx context.Context, file string) *sizeWatch {
	const every = 10 * time.Millisecond
	ctx, cancel := context.WithCancel(ctx)
	w := &sizeWatch{cancel: cancel, done: make(chan struct{})}
	go func() {
		defer close(w.done)
		tick := time.NewTicker(every)
		defer tick.Stop()
		for {
			w.most = max(w.most, fileSize(file))
			select {
			case <-tick.C:
			case <-ctx.Done():
				return
			}
		}
	}()
	return w
}

// stop gives the largest size that was seen, in bytes.
func (w *sizeWatch) stop() int64 {
	w.cancel()
	<-w.done
	return w.most
}

// folderSize adds up the files below dir whose path fits.
func folderSize(dir string, fits func(path string) bool) (total int64, err error) {
	err = filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if !d.IsDir() && fits(path) {
			total += fileSize(path)
		}
		return nil
	})
	return total, err
}

// loadAverage is of 1, 5 and 15 minutes, as the kernel prints it.
func loadAverage() string {
	text, err := os.ReadFile("/proc/loadavg")
	fields := strings.Fields(string(text))
	if err != nil || len(fields) < 3 {
		return "unknown"
	}
	return strings.Join(fields[:3], " ")
}

func cpuModel() string {
	text, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return "unknown"
	}
	for line := range strings.Lines(string(text)) {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return "unknown"
}

func memoryMiB() int {
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		return 0
	}
	return int(uint64(info.Totalram) * uint64(info.Unit) >> 20)
}

func kernel() string {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return "unknown"
	}
	return unix.ByteSliceToString(u.Release[:])
}

func fileSystem(dir string) string {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return "unknown"
	}
	known := map[int64]string{0xef53: "ext4", 0x58465342: "xfs", 0x9123683e: "btrfs", 0x01021994: "tmpfs", 0x794c7630: "overlayfs", 0x2fc12fc1: "zfs"}
	if name, ok := known[int64(st.Type)]; ok {
		return name
	}
	return fmt.Sprintf("file system %#x", st.Type)
}
