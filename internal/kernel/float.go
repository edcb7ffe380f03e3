package kernel

import "unsafe"

// Float is the element type of every kernel: float32 to train, float64 to check gradients.
type Float interface{ float32 | float64 }

// aligned returns n zeroed elements on the Go heap that begin at a multiple of 64 bytes.
func aligned[T Float](n int) []T {
	size := int(unsafe.Sizeof(T(0)))
	s := make([]T, n+64/size)
	skip := (64 - int(uintptr(unsafe.Pointer(unsafe.SliceData(s)))&63)) & 63 / size
	return s[skip : skip+n : skip+n]
}
