//go:build darwin || dragonfly || freebsd || illumos || linux || netbsd || openbsd

package remote

import (
	"errors"
	"os"
	"syscall"
)

// tryLock takes a file's advisory lock, or returns false when another has it. The lock goes with the open file, so also when
// the process is killed.
func tryLock(f *os.File) (bool, error) {
	for {
		switch err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); {
		case err == nil:
			return true, nil
		case errors.Is(err, syscall.EWOULDBLOCK):
			return false, nil
		case !errors.Is(err, syscall.EINTR):
			return false, err
		}
	}
}

// partName is the file that grows until a file of the cache is whole: one for all processes, which its lock gives one after
// the other.
func partName(sum string) string { return sum + partSuffix }
