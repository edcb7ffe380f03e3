//go:build unix

package kernel

import (
	"time"

	"golang.org/x/sys/unix"
)

// processTime returns the time that all threads of the process have run, 0 if it is not known.
func processTime() time.Duration {
	var r unix.Rusage
	if unix.Getrusage(unix.RUSAGE_SELF, &r) != nil {
		return 0
	}
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}
