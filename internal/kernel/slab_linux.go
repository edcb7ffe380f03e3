package kernel

import "golang.org/x/sys/unix"

// adviseHuge asks for huge pages before the first touch. A refusal costs speed only, so it is no error.
func adviseHuge(b []byte) {
	if len(b) >= 1<<21 {
		_ = unix.Madvise(b, unix.MADV_HUGEPAGE)
	}
}
