//go:build linux || darwin || freebsd

package machine

import "golang.org/x/sys/unix"

// FreeDisk returns the bytes that a file in dir can still take; 0 when unknown.
func FreeDisk(dir string) int64 {
	var s unix.Statfs_t
	if unix.Statfs(dir, &s) != nil {
		return 0
	}
	return int64(s.Bavail) * int64(s.Bsize)
}
