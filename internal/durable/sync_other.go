//go:build !linux

package durable

import "os"

// datasync: os.File.Sync also asks for F_FULLFSYNC on macOS, without which its
// disks reorder.
func datasync(f *os.File) error { return f.Sync() }
