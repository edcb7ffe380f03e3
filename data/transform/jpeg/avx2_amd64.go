//go:build amd64 && !noasm

package jpeg

import (
	"os"

	"golang.org/x/sys/cpu"
)

// useAVX2 is set once, when the program starts.
var useAVX2 = os.Getenv("DIPTYCH_KERNEL") != "portable" && cpu.X86.HasAVX2

func inverse8(b, quant *[64]int16, dst []uint8, stride int) {
	if !useAVX2 {
		inverse8Go(b, quant, dst, stride)
		return
	}
	_ = dst[7*stride+7]
	inverse8AVX2(b, quant, &dst[0], stride)
}

// blend reads and writes up to margin past n.
func blend(s []int16, near, far []uint8, n int) {
	if !useAVX2 {
		blendGo(s, near, far, n)
		return
	}
	blendAVX2(&s[0], &near[0], &far[0], n)
}

// widen writes up to margin past 2·n.
func widen(dst []uint8, sums []int16, n int, even, odd int16) {
	if !useAVX2 {
		widenGo(dst, sums, n, even, odd)
		return
	}
	widenAVX2(&dst[0], &sums[margin], n, uint16(even), uint16(odd))
}

func convert(dst, luma, cb, cr []uint8) {
	n := 0
	if useAVX2 {
		if n = len(luma) &^ 15; n > 0 {
			_, _, _ = cb[n-1], cr[n-1], dst[3*n-1]
			convertAVX2(&dst[0], &luma[0], &cb[0], &cr[0], n)
		}
	}
	convertGo(dst[3*n:], luma[n:], cb[n:], cr[n:])
}
