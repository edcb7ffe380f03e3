//go:build !amd64 || noasm

package jpeg

func inverse8(b, quant *[64]int16, dst []uint8, stride int)   { inverse8Go(b, quant, dst, stride) }
func blend(s []int16, near, far []uint8, n int)               { blendGo(s, near, far, n) }
func widen(dst []uint8, sums []int16, n int, even, odd int16) { widenGo(dst, sums, n, even, odd) }
func convert(dst, luma, cb, cr []uint8)                       { convertGo(dst, luma, cb, cr) }
