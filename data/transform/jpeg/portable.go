package jpeg

func inverse8(b, quant *[64]int16, dst []uint8, stride int) { inverse8Go(b, quant, dst, stride) }
func blend(s []int16, near, far []uint8, n int)             { blendGo(s, near, far, n) }
func widen(d []uint8, s []int16, n int, even, odd int16, shift int) {
	widenGo(d, s, n, even, odd, shift)
}
func convert(dst, luma, cb, cr []uint8) { convertGo(dst, luma, cb, cr) }
