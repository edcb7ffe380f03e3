package runlog

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// ErrLocked is wrapped by the error about a run directory that another process is working in.
var ErrLocked = errors.New("the run directory is in use")

const lockFile = "lock"

// ErrBusy is what LockFile returns when another process, or another open file of this one, has the lock.
var ErrBusy = errors.New("in use")

// DirLock is the exclusive right to change a run directory. It ends with [DirLock.Close], or with the process, however that
// ends: the file that stays behind means nothing.
type DirLock struct{ f *os.File }

// Lock takes the lock of the run directory dir, which must exist. If another process has it, the error wraps [ErrLocked] and
// names that process.
func Lock(dir string) (*DirLock, error) {
	f, err := os.OpenFile(filepath.Join(dir, lockFile), os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, fmt.Errorf("runlog: %w", err)
	}
	if err := LockFile(f); err != nil {
		defer f.Close()
		if !errors.Is(err, ErrBusy) {
			return nil, fmt.Errorf("runlog: lock %s: %w", f.Name(), err)
		}
		return nil, fmt.Errorf("runlog: %s: %w by %s; wait until it ends, or give another directory", dir, ErrLocked, owner(f))
	}
	host, err := os.Hostname()
	if err != nil {
		host = "this machine"
	}
	err = f.Truncate(0)
	if err == nil {
		_, err = f.WriteAt([]byte(fmt.Sprintf("process %d on %s", os.Getpid(), host)), 0)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("runlog: %w", err), f.Close())
	}
	return &DirLock{f}, nil
}

// owner reads who has the lock.
func owner(f *os.File) string {
	b, err := io.ReadAll(io.LimitReader(f, 200))
	if err != nil || strings.TrimSpace(string(b)) == "" {
		return "another process"
	}
	return string(b)
}

// Close gives the lock back.
func (l *DirLock) Close() error {
	return errors.Join(l.f.Truncate(0), l.f.Close())
}
