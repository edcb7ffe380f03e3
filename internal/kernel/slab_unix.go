//go:build unix

package kernel

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

func newSlab(n int) []float32 {
	b, err := unix.Mmap(-1, 0, 4*n, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		panic(noMemory{4 * n, err})
	}
	adviseHuge(b)
	for i := 0; i < len(b); i += 4096 {
		b[i] = 0
	}
	return unsafe.Slice((*float32)(unsafe.Pointer(unsafe.SliceData(b))), n)
}

func freeSlab(s []float32) {
	// Munmap knows a mapping by its last byte, which the capacity still gives when the slice was cut.
	b := unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(s))), 4*cap(s))
	if err := unix.Munmap(b); err != nil {
		panic(fmt.Sprintf("kernel: FreeSlab of %d floats that NewSlab did not return: %v", cap(s), err))
	}
}
