package jpeg

import "math"

// Constants of the inverse DCT (Loeffler, Ligtenberg, Moschytz 1989; libjpeg's jidctint.c and jidctred.c), times 2^13.
const (
	constBits  = 13
	pass1Bits  = 2
	fix0_211   = 1730
	fix0_298   = 2446
	fix0_390   = 3196
	fix0_509   = 4176
	fix0_541   = 4433
	fix0_601   = 4926
	fix0_720   = 5906
	fix0_765   = 6270
	fix0_850   = 6967
	fix0_899   = 7373
	fix1_061   = 8697
	fix1_175   = 9633
	fix1_272   = 10426
	fix1_451   = 11893
	fix1_501   = 12299
	fix1_847   = 15137
	fix1_961   = 16069
	fix2_053   = 16819
	fix2_172   = 17799
	fix2_562   = 20995
	fix3_072   = 25172
	fix3_624   = 29692
	pass1Shift = constBits - pass1Bits
	pass2Shift = constBits + pass1Bits + 3
)

// transform takes the coefficients of block (x, y), of which those behind last in zigzag order are zero, to samples.
func (c *component) transform(b *[64]int16, x, y, last int) {
	dst := c.plane[c.size*(y*c.stride+x):]
	if last == 0 || c.size == 1 {
		v := clip(int32(int16(b[0]*c.quant[0])+4)>>3 + 128)
		for i := range c.size {
			row := dst[i*c.stride:][:c.size]
			for j := range row {
				row[j] = v
			}
		}
		return
	}
	switch c.size {
	case 8:
		inverse8(b, &c.quant, dst, c.stride)
	case 4:
		inverse4(b, &c.quant, dst, c.stride)
	default:
		inverse2(b, &c.quant, dst, c.stride)
	}
}

func clip(v int32) uint8 { return uint8(min(max(v, 0), 255)) }

// saturate narrows to 16 bits.
func saturate(v int32) int32 { return min(max(v, math.MinInt16), math.MaxInt16) }

func descale(v int32, shift int) int32 { return (v + 1<<(shift-1)) >> shift }

// inverse8Go is the slow integer inverse DCT, with 16 bits in the places where libjpeg-turbo's vector code has them: that
// tells them apart on damaged pictures only.
func inverse8Go(b, quant *[64]int16, dst []uint8, stride int) {
	var work [64]int32
	var in, out [8]int32
	for x := range 8 {
		for i := range in {
			in[i] = int32(b[8*i+x] * quant[8*i+x])
		}
		inverse1D(&out, &in)
		for i, v := range out {
			work[8*i+x] = saturate(descale(v, pass1Shift))
		}
	}
	for y := range 8 {
		inverse1D(&out, (*[8]int32)(work[8*y:]))
		row := dst[y*stride:][:8]
		for i, v := range out {
			row[i] = clip(descale(v, pass2Shift) + 128)
		}
	}
}

// inverse1D is one pass over eight 16-bit values; the results have constBits more.
func inverse1D(out, in *[8]int32) {
	t0 := int32(int16(in[0]+in[4])) << constBits
	t1 := int32(int16(in[0]-in[4])) << constBits
	t2 := in[2]*fix0_541 + in[6]*(fix0_541-fix1_847)
	t3 := in[2]*(fix0_541+fix0_765) + in[6]*fix0_541
	t10, t13, t11, t12 := t0+t3, t0-t3, t1+t2, t1-t2

	s3, s4 := int32(int16(in[7]+in[3])), int32(int16(in[5]+in[1]))
	z3 := s3*(fix1_175-fix1_961) + s4*fix1_175
	z4 := s3*fix1_175 + s4*(fix1_175-fix0_390)
	o0 := in[7]*(fix0_298-fix0_899) - in[1]*fix0_899 + z3
	o1 := in[5]*(fix2_053-fix2_562) - in[3]*fix2_562 + z4
	o2 := in[3]*(fix3_072-fix2_562) - in[5]*fix2_562 + z3
	o3 := in[1]*(fix1_501-fix0_899) - in[7]*fix0_899 + z4

	out[0], out[7] = t10+o3, t10-o3
	out[1], out[6] = t11+o2, t11-o2
	out[2], out[5] = t12+o1, t12-o1
	out[3], out[4] = t13+o0, t13-o0
}

// inverse4 makes 4×4 samples of a block.
func inverse4(b, quant *[64]int16, dst []uint8, stride int) {
	pass := func(out *[4]int32, in *[8]int32) { // in[4] has no part
		t0 := in[0] << (constBits + 1)
		t2 := in[2]*fix1_847 - in[6]*fix0_765
		t10, t12 := t0+t2, t0-t2
		o0 := -in[7]*fix0_211 + in[5]*fix1_451 - in[3]*fix2_172 + in[1]*fix1_061
		o2 := -in[7]*fix0_509 - in[5]*fix0_601 + in[3]*fix0_899 + in[1]*fix2_562
		out[0], out[3], out[1], out[2] = t10+o2, t10-o2, t12+o0, t12-o0
	}
	var work [4][8]int32
	var in [8]int32
	var out [4]int32
	for x := range 8 {
		for i := range in {
			in[i] = int32(b[8*i+x] * quant[8*i+x])
		}
		pass(&out, &in)
		for i, v := range out {
			work[i][x] = saturate(descale(v, pass1Shift+1))
		}
	}
	for y := range work {
		pass(&out, &work[y])
		row := dst[y*stride:][:4]
		for i, v := range out {
			row[i] = clip(descale(v, pass2Shift+1) + 128)
		}
	}
}

// inverse2 makes 2×2 samples of a block.
func inverse2(b, quant *[64]int16, dst []uint8, stride int) {
	pass := func(in *[8]int32) (int32, int32) { // in[2], in[4] and in[6] have no part
		t := in[0] << (constBits + 2)
		o := -in[7]*fix0_720 + in[5]*fix0_850 - in[3]*fix1_272 + in[1]*fix3_624
		return t + o, t - o
	}
	var work [2][8]int32
	var in [8]int32
	for x := range 8 {
		for i := range in {
			in[i] = int32(b[8*i+x] * quant[8*i+x])
		}
		v, w := pass(&in)
		work[0][x], work[1][x] = saturate(descale(v, pass1Shift+2)), saturate(descale(w, pass1Shift+2))
	}
	for y := range work {
		v, w := pass(&work[y])
		dst[y*stride], dst[y*stride+1] = clip(descale(v, pass2Shift+2)+128), clip(descale(w, pass2Shift+2)+128)
	}
}
