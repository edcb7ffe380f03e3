package kernel

import (
	"math"
	"unsafe"
)

// toBF16 rounds to bfloat16, the upper half of a float32: to the nearest, ties to even; what is too large becomes infinite, a
// subnormal becomes the zero of its sign, as the processors' own conversion has it, and NaN stays NaN.
func toBF16(x float32) uint16 {
	bits := math.Float32bits(x)
	switch {
	case bits&0x7f80_0000 == 0:
		return uint16(bits >> 16 & 0x8000)
	case bits&0x7fff_ffff > 0x7f80_0000:
		return uint16(bits>>16) | 0x40 // quiet, so that it cannot become an infinity
	}
	return uint16((bits + 0x7fff + bits>>16&1) >> 16)
}

// fromBF16 is exact.
func fromBF16(x uint16) float32 { return math.Float32frombits(uint32(x) << 16) }

func roundBF16(x float32) float32 { return fromBF16(toBF16(x)) }

// Halves returns n numbers of bfloat16 that lie in s, two or more in each of its elements.
func Halves[T Float](s []T, n int) []uint16 {
	if n > len(s)*int(unsafe.Sizeof(T(0)))/2 {
		panic("kernel: halves of a slice that is too short")
	}
	return unsafe.Slice((*uint16)(unsafe.Pointer(unsafe.SliceData(s))), n)
}

// narrow stores x as bfloat16.
func narrow[T Float](dst []uint16, x []T) {
	dst = dst[:len(x)]
	done := 0
	if isSingle[T]() {
		done = narrow32(dst, single(x))
	}
	for i, v := range x[done:] {
		dst[done+i] = toBF16(float32(v))
	}
}

// widen reads what is stored as bfloat16.
func widen[T Float](dst []T, x []uint16) {
	dst = dst[:len(x)]
	done := 0
	if isSingle[T]() {
		done = widen32(single(dst), x)
	}
	for i, v := range x[done:] {
		dst[done+i] = T(fromBF16(v))
	}
}
