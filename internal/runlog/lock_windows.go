package runlog

import (
	"errors"
	"os"

	"golang.org/x/sys/windows"
)

// LockFile takes a byte far behind the content, because other processes cannot read what is locked here, and they want to know the
// owner. The lock goes with the open file, so also when the process is killed.
func LockFile(f *os.File) error {
	err := windows.LockFileEx(windows.Handle(f.Fd()), windows.LOCKFILE_EXCLUSIVE_LOCK|windows.LOCKFILE_FAIL_IMMEDIATELY, 0, 1, 0,
		&windows.Overlapped{OffsetHigh: 1})
	if errors.Is(err, windows.ERROR_LOCK_VIOLATION) {
		return ErrBusy
	}
	return err
}
