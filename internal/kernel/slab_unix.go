//go:build unix

package kernel

import (
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

func newSlab(n int) []float32 {
	b, err := unix.Mmap(-1, 0, 4*n, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		panic(noMemory{4 * n, err})
	}
	adviseHuge(b)
	touch(b)
	return unsafe.Slice((*float32)(unsafe.Pointer(unsafe.SliceData(b))), n)
}

// touch has the system give every page of b, on all cores: zeroing pages takes longer than many a step.
func touch(b []byte) {
	const page, piece = 4096, 32 << 20 // bytes; a piece is a whole number of huge pages
	var threads sync.WaitGroup
	var next atomic.Int64
	for range min(runtime.GOMAXPROCS(0), (len(b)+piece-1)/piece) {
		threads.Go(func() {
			for lo := int(next.Add(piece)) - piece; lo < len(b); lo = int(next.Add(piece)) - piece {
				for i := lo; i < min(len(b), lo+piece); i += page {
					b[i] = 0
				}
			}
		})
	}
	threads.Wait()
}

func freeSlab(s []float32) {
	// Munmap knows a mapping by its last byte, which the capacity still gives when the slice was cut.
	b := unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(s))), 4*cap(s))
	if err := unix.Munmap(b); err != nil {
		panic(fmt.Sprintf("kernel: FreeSlab of %d floats that NewSlab did not return: %v", cap(s), err))
	}
}
