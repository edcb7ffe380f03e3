package main

import (
	"github.com/mmcloughlin/avo/build"
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

func jpeg(c *build.Context) {
	inverse(c)
	blend(c)
	widen(c)
	convert(c)
}

type ymm = reg.VecVirtual

// idct holds the pairs of factors of the inverse DCT, times 2^13, by the two inputs that they multiply.
type idct struct {
	even2, even3, z3, z4, odd0, odd3, odd1, odd2 operand.Mem
	round1, round2, center                       operand.Mem
}

// inverse writes inverse8AVX2. Values lie in 32-bit lanes; pairs of 16-bit values in a lane are multiplied and added at once.
func inverse(c *build.Context) {
	k := idct{
		even2:  words(c, "even2", 4433, 4433-15137),
		even3:  words(c, "even3", 4433+6270, 4433),
		z3:     words(c, "z3", 9633-16069, 9633),
		z4:     words(c, "z4", 9633, 9633-3196),
		odd0:   words(c, "odd0", 2446-7373, -7373),
		odd3:   words(c, "odd3", -7373, 12299-7373),
		odd1:   words(c, "odd1", 16819-20995, -20995),
		odd2:   words(c, "odd2", -20995, 25172-20995),
		round1: words(c, "round1", 1<<10, 0),
		round2: words(c, "round2", 0, 1<<1),          // 1<<17
		center: words(c, "center", -0x7f80, -0x7f80), // bytes of 128
	}
	begin(c, "inverse8AVX2", "func(b, quant *[64]int16, dst *uint8, stride int)", "is inverse8Go.")
	b, quant, dst, stride := param(c, "b"), param(c, "quant"), param(c, "dst"), param(c, "stride")
	var v [8]ymm
	for i := range v {
		x := c.XMM()
		c.VMOVDQU(at(b, 16*i), x)
		c.VPMULLW(at(quant, 16*i), x, x)
		v[i] = c.YMM()
		c.VPMOVSXWD(x, v[i])
	}
	k.pass(c, &v, k.round1, 11)
	t := transpose(c, &v)
	for i, y := range t { // column i in the lower half, i+4 in the upper one
		v[i], v[i+4] = c.YMM(), c.YMM()
		c.VPMOVSXWD(y.AsX(), v[i])
		x := c.XMM()
		c.VEXTRACTI128(operand.U8(1), y, x)
		c.VPMOVSXWD(x, v[i+4])
	}
	k.pass(c, &v, k.round2, 18)
	t = transpose(c, &v)
	stride3 := c.GP64()
	c.LEAQ(operand.Mem{Base: stride, Index: stride, Scale: 2}, stride3)
	low := c.GP64()
	c.LEAQ(operand.Mem{Base: dst, Index: stride, Scale: 4}, low)
	for i := 0; i < 4; i += 2 { // rows i, i+1 | i+4, i+5
		y := t[i]
		c.VPACKSSWB(t[i+1], t[i], y)
		c.VPADDB(k.center, y, y)
		x := c.XMM()
		c.VEXTRACTI128(operand.U8(1), y, x)
		row := func(base reg.Register, n int) operand.Mem {
			switch n {
			case 0:
				return at(base, 0)
			case 3:
				return operand.Mem{Base: base, Index: stride3, Scale: 1}
			default:
				return operand.Mem{Base: base, Index: stride, Scale: uint8(n)}
			}
		}
		c.VMOVQ(y.AsX(), row(dst, i))
		c.VPEXTRQ(operand.U8(1), y.AsX(), row(dst, i+1))
		c.VMOVQ(x, row(low, i))
		c.VPEXTRQ(operand.U8(1), x, row(low, i+1))
	}
	end(c)
}

// pass is inverse1D of jpeg/idct.go on eight columns, rounded and shifted right.
func (k *idct) pass(c *build.Context, v *[8]ymm, round operand.Mem, shift uint64) {
	pair := func(lo, hi ymm) ymm { // 16-bit lo and hi side by side
		t := c.YMM()
		c.VPSLLD(operand.U8(16), hi, t)
		c.VPBLENDW(operand.U8(0xaa), t, lo, t)
		return t
	}
	product := func(p ymm, factors operand.Mem) ymm {
		t := c.YMM()
		c.VPMADDWD(factors, p, t)
		return t
	}
	sum := func(a, b ymm) ymm {
		t := c.YMM()
		c.VPADDD(b, a, t)
		return t
	}
	s3, s4 := c.YMM(), c.YMM()
	c.VPADDW(v[7], v[3], s3)
	c.VPADDW(v[5], v[1], s4)
	zz := pair(s3, s4)
	z3, z4 := product(zz, k.z3), product(zz, k.z4)
	p71, p53 := pair(v[7], v[1]), pair(v[5], v[3])
	o0, o3 := sum(product(p71, k.odd0), z3), sum(product(p71, k.odd3), z4)
	o1, o2 := sum(product(p53, k.odd1), z4), sum(product(p53, k.odd2), z3)

	t0, t1 := c.YMM(), c.YMM()
	c.VPADDW(v[0], v[4], t0)
	c.VPSUBW(v[4], v[0], t1)
	for _, t := range []ymm{t0, t1} { // sign-extended, times 2^13
		c.VPSLLD(operand.U8(16), t, t)
		c.VPSRAD(operand.U8(3), t, t)
		c.VPADDD(round, t, t)
	}
	p26 := pair(v[2], v[6])
	t2, t3 := product(p26, k.even2), product(p26, k.even3)
	out := func(i int, a, b ymm, o ymm, add bool) {
		e := c.YMM()
		if add {
			c.VPADDD(b, a, e)
		} else {
			c.VPSUBD(b, a, e)
		}
		v[i], v[7-i] = c.YMM(), c.YMM()
		c.VPADDD(o, e, v[i])
		c.VPSUBD(o, e, v[7-i])
		c.VPSRAD(operand.U8(shift), v[i], v[i])
		c.VPSRAD(operand.U8(shift), v[7-i], v[7-i])
	}
	out(0, t0, t3, o3, true)
	out(3, t0, t3, o0, false)
	out(1, t1, t2, o2, true)
	out(2, t1, t2, o1, false)
}

// transpose saturates 8×8 values to 16 bits; the result holds column i in the lower half of register i, column i+4 in the
// upper one.
func transpose(c *build.Context, v *[8]ymm) [4]ymm {
	var p, q [4]ymm
	for i := range p { // rows 2i, 2i+1
		p[i] = c.YMM()
		c.VPACKSSDW(v[2*i+1], v[2*i], p[i])
	}
	for i := 0; i < 4; i += 2 {
		even, odd := c.YMM(), c.YMM()
		c.VPUNPCKLWD(p[i+1], p[i], even) // rows 0 and 2
		c.VPUNPCKHWD(p[i+1], p[i], odd)  // rows 1 and 3
		q[i], q[i+1] = c.YMM(), c.YMM()
		c.VPUNPCKLWD(odd, even, q[i])   // columns 0, 1
		c.VPUNPCKHWD(odd, even, q[i+1]) // columns 2, 3
	}
	var t [4]ymm
	for i := range t {
		t[i] = c.YMM()
		if i%2 == 0 {
			c.VPUNPCKLQDQ(q[2+i/2], q[i/2], t[i])
		} else {
			c.VPUNPCKHQDQ(q[2+i/2], q[i/2], t[i])
		}
	}
	return t
}

// loop repeats body while n, which counts down by step, is more than 0.
func loop(c *build.Context, n reg.GPVirtual, step uint64, body func()) {
	c.Label("loop")
	body()
	c.SUBQ(operand.U32(step), n)
	c.JG(operand.LabelRef("loop"))
}

func blend(c *build.Context) {
	begin(c, "blendAVX2", "func(s *int16, near, far *uint8, n int)", "is blendGo for n > 0 rounded up to a multiple of 16.")
	s, near, far, n := param(c, "s"), param(c, "near"), param(c, "far"), param(c, "n")
	loop(c, n, 16, func() {
		a, b, t := c.YMM(), c.YMM(), c.YMM()
		c.VPMOVZXBW(at(near, 0), a)
		c.VPMOVZXBW(at(far, 0), b)
		c.VPADDW(a, a, t)
		c.VPADDW(a, t, t)
		c.VPADDW(b, t, t)
		c.VMOVDQU(t, at(s, 0))
		c.ADDQ(operand.U8(16), near)
		c.ADDQ(operand.U8(16), far)
		c.ADDQ(operand.U8(32), s)
	})
	end(c)
}

func widen(c *build.Context) {
	begin(c, "widenAVX2", "func(dst *uint8, s *int16, n int, even, odd uint16)", "is widenGo for n > 0 rounded up to a multiple of 16; s is the first sum.")
	dst, s, n := param(c, "dst"), param(c, "s"), param(c, "n")
	even, odd := c.YMM(), c.YMM()
	e, o := c.Load(c.Param("even"), c.GP32()), c.Load(c.Param("odd"), c.GP32())
	c.VMOVD(e, even.AsX())
	c.VMOVD(o, odd.AsX())
	c.VPBROADCASTW(even.AsX(), even)
	c.VPBROADCASTW(odd.AsX(), odd)
	loop(c, n, 16, func() {
		p, t, l, r := c.YMM(), c.YMM(), c.YMM(), c.YMM()
		c.VMOVDQU(at(s, 0), p)
		c.VPADDW(p, p, t)
		c.VPADDW(p, t, t)
		c.VPADDW(at(s, -2), t, l)
		c.VPADDW(at(s, 2), t, r)
		c.VPADDW(even, l, l)
		c.VPADDW(odd, r, r)
		c.VPSRLW(operand.U8(4), l, l)
		c.VPSRLW(operand.U8(4), r, r)
		c.VPSLLW(operand.U8(8), r, r)
		c.VPOR(l, r, r)
		c.VMOVDQU(r, at(dst, 0))
		c.ADDQ(operand.U8(32), s)
		c.ADDQ(operand.U8(32), dst)
	})
	end(c)
}

func convert(c *build.Context) {
	var redGreen, blue [2][16]byte // where the bytes of 8 pixels come from: red and green, or blue
	for i := range 32 {
		rg, b := byte(0x80), byte(0x80)
		switch pixel := byte(i / 3); i % 3 {
		case 0:
			rg = pixel
		case 1:
			rg = 8 + pixel
		default:
			b = pixel
		}
		redGreen[i/16][i%16], blue[i/16][i%16] = rg, b
	}
	masks := [4]operand.Mem{lanes(c, "redGreenFirst", redGreen[0]), lanes(c, "blueFirst", blue[0]), lanes(c, "redGreenLast", redGreen[1]), lanes(c, "blueLast", blue[1])}
	// With 2^16 taken out, the factors fit 16 bits: 91881 = 65536 + 26345, 116130 = 131072 - 14942, -46802 = -65536 + 18734.
	red, cblue, green := words(c, "redFactor", 26345, 26345), words(c, "blueFactor", -14942, -14942), words(c, "greenFactors", -22554, 18734)
	half, center, one := words(c, "half", -32768, 0), words(c, "center128", 128, 128), words(c, "one", 1, 1)

	begin(c, "convertAVX2", "func(dst, luma, cb, cr *uint8, n int)", "is convertGo for n > 0 pixels, a multiple of 16.")
	dst, luma, cb, cr, n := param(c, "dst"), param(c, "luma"), param(c, "cb"), param(c, "cr"), param(c, "n")
	loop(c, n, 16, func() {
		y, u, v := c.YMM(), c.YMM(), c.YMM()
		c.VPMOVZXBW(at(luma, 0), y)
		c.VPMOVZXBW(at(cb, 0), u)
		c.VPMOVZXBW(at(cr, 0), v)
		c.VPSUBW(center, u, u)
		c.VPSUBW(center, v, v)
		// (2x·f >> 16 + 1) >> 1 is (x·f + 2^15) >> 16.
		r, b := c.YMM(), c.YMM()
		for _, t := range []struct {
			out, in ymm
			f       operand.Mem
		}{{r, v, red}, {b, u, cblue}} {
			c.VPADDW(t.in, t.in, t.out)
			c.VPMULHW(t.f, t.out, t.out)
			c.VPADDW(one, t.out, t.out)
			c.VPSRAW(operand.U8(1), t.out, t.out)
			c.VPADDW(y, t.out, t.out)
			c.VPADDW(t.in, t.out, t.out)
		}
		c.VPADDW(u, b, b)
		lo, hi := c.YMM(), c.YMM()
		c.VPUNPCKLWD(v, u, lo)
		c.VPUNPCKHWD(v, u, hi)
		for _, t := range []ymm{lo, hi} {
			c.VPMADDWD(green, t, t)
			c.VPADDD(half, t, t)
			c.VPSRAD(operand.U8(16), t, t)
		}
		c.VPACKSSDW(hi, lo, lo)
		c.VPSUBW(v, y, y)
		c.VPADDW(lo, y, y) // green
		c.VPACKUSWB(y, r, r)
		c.VPACKUSWB(b, b, b)
		first, last, t := c.YMM(), c.YMM(), c.YMM()
		c.VPSHUFB(masks[0], r, first)
		c.VPSHUFB(masks[1], b, t)
		c.VPOR(t, first, first) // bytes 0 to 15 of 24
		c.VPSHUFB(masks[2], r, last)
		c.VPSHUFB(masks[3], b, t)
		c.VPOR(t, last, last) // bytes 16 to 23
		c.VMOVDQU(first.AsX(), at(dst, 0))
		c.VMOVQ(last.AsX(), at(dst, 16))
		x := c.XMM()
		c.VEXTRACTI128(operand.U8(1), first, x)
		c.VMOVDQU(x, at(dst, 24))
		c.VEXTRACTI128(operand.U8(1), last, x)
		c.VMOVQ(x, at(dst, 40))
		c.ADDQ(operand.U8(16), luma)
		c.ADDQ(operand.U8(16), cb)
		c.ADDQ(operand.U8(16), cr)
		c.ADDQ(operand.U8(48), dst)
	})
	end(c)
}
