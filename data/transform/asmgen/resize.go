package main

import (
	"github.com/mmcloughlin/avo/build"
	"github.com/mmcloughlin/avo/operand"
)

// weightBits is that of transform/resize.go.
const weightBits = 22

func resize(c *build.Context) {
	half := words(c, "half", 0, 1<<(weightBits-1-16))
	mix(c)
	across(c, half)
	down(c, half)
}

// mix writes mixAVX2: pixel p of the four rows becomes 16 bytes, [row 0, row 1, row 2, row 3] of red, green, blue, 0.
func mix(c *build.Context) {
	var m [16]byte
	for i := range m {
		if m[i] = byte(i/4*3 + i%4); i%4 == 3 {
			m[i] = 0x80
		}
	}
	mask := lanes(c, "spread", m)
	begin(c, "mixAVX2", "func(dst, src *uint8, stride, n int)", "mixes n > 0 pixels, a multiple of 4, of four rows. It reads 4 bytes behind them.")
	dst, src, stride, n := param(c, "dst"), param(c, "src"), param(c, "stride"), param(c, "n")
	third := c.GP64()
	c.LEAQ(operand.Mem{Base: stride, Index: stride, Scale: 2}, third)
	spread := c.XMM()
	c.VMOVDQU(mask, spread)
	c.Label("loop")
	r := [4]operand.Mem{at(src, 0), {Base: src, Index: stride, Scale: 1}, {Base: src, Index: stride, Scale: 2}, {Base: src, Index: third, Scale: 1}}
	var x [4]ymm
	for i := range x {
		x[i] = c.XMM()
		c.VMOVDQU(r[i], x[i])
		c.VPSHUFB(spread, x[i], x[i])
	}
	for k := range 2 { // pixels 0, 1 and then 2, 3
		ab, cd, t := c.XMM(), c.XMM(), c.XMM()
		if k == 0 {
			c.VPUNPCKLDQ(x[1], x[0], ab)
			c.VPUNPCKLDQ(x[3], x[2], cd)
		} else {
			c.VPUNPCKHDQ(x[1], x[0], ab)
			c.VPUNPCKHDQ(x[3], x[2], cd)
		}
		c.VPUNPCKLQDQ(cd, ab, t)
		c.VMOVDQU(t, at(dst, 32*k))
		c.VPUNPCKHQDQ(cd, ab, t)
		c.VMOVDQU(t, at(dst, 32*k+16))
	}
	c.ADDQ(operand.U8(12), src)
	c.ADDQ(operand.U8(64), dst)
	c.SUBQ(operand.U8(4), n)
	c.JG(operand.LabelRef("loop"))
	end(c)
}

// across writes acrossAVX2, which resizes four mixed rows.
func across(c *build.Context, half operand.Mem) {
	begin(c, "acrossAVX2", "func(dst *uint8, stride int, mixed *uint8, bounds *int, weights *int32, size, n int)",
		"makes n > 0 pixels of four rows, each from bounds (first, count > 0) of those that mixAVX2 wrote. It writes a byte behind them.")
	dst, stride, mixed, bounds, weights, size, n := param(c, "dst"), param(c, "stride"), param(c, "mixed"), param(c, "bounds"), param(c, "weights"), param(c, "size"), param(c, "n")
	third, in, k := c.GP64(), c.GP64(), c.GP64()
	c.LEAQ(operand.Mem{Base: stride, Index: stride, Scale: 2}, third)
	c.SHLQ(operand.U8(2), size)
	start := c.YMM()
	c.VMOVDQU(half, start)
	w, wt := c.YMM(), c.GP64()
	sum01, sum23, a, b := c.YMM(), c.YMM(), c.YMM(), c.YMM()

	c.Label("pixel")
	c.MOVQ(at(bounds, 0), in)
	c.SHLQ(operand.U8(4), in)
	c.ADDQ(mixed, in)
	c.MOVQ(at(bounds, 8), k)
	c.MOVQ(weights, wt)
	c.VMOVDQA(start, sum01)
	c.VMOVDQA(start, sum23)
	c.Label("tap")
	c.VPBROADCASTD(at(wt, 0), w)
	c.VPMOVZXBD(at(in, 0), a)
	c.VPMOVZXBD(at(in, 8), b)
	c.VPMULLD(w, a, a)
	c.VPMULLD(w, b, b)
	c.VPADDD(a, sum01, sum01)
	c.VPADDD(b, sum23, sum23)
	c.ADDQ(operand.U8(16), in)
	c.ADDQ(operand.U8(4), wt)
	c.DECQ(k)
	c.JNZ(operand.LabelRef("tap"))
	c.VPSRAD(operand.U8(weightBits), sum01, sum01)
	c.VPSRAD(operand.U8(weightBits), sum23, sum23)
	c.VPACKSSDW(sum23, sum01, sum01) // rows 0, 2 | 1, 3
	c.VPACKUSWB(sum01, sum01, sum01)
	odd := c.XMM()
	c.VEXTRACTI128(operand.U8(1), sum01, odd)
	c.VMOVD(sum01.AsX(), at(dst, 0))
	c.VMOVD(odd, operand.Mem{Base: dst, Index: stride, Scale: 1})
	c.VPEXTRD(operand.U8(1), sum01.AsX(), operand.Mem{Base: dst, Index: stride, Scale: 2})
	c.VPEXTRD(operand.U8(1), odd, operand.Mem{Base: dst, Index: third, Scale: 1})
	c.ADDQ(operand.U8(3), dst)
	c.ADDQ(operand.U8(16), bounds)
	c.ADDQ(size, weights)
	c.DECQ(n)
	c.JNZ(operand.LabelRef("pixel"))
	end(c)
}

// down writes downAVX2, which adds weighted rows.
func down(c *build.Context, half operand.Mem) {
	begin(c, "downAVX2", "func(dst, src *uint8, stride int, weights *int32, count, n int)", "makes n > 0 levels, a multiple of 32, of count > 0 rows.")
	dst, src, stride, weights, count, n := param(c, "dst"), param(c, "src"), param(c, "stride"), param(c, "weights"), param(c, "count"), param(c, "n")
	start, w := c.YMM(), c.YMM()
	c.VMOVDQU(half, start)
	in, k, wt := c.GP64(), c.GP64(), c.GP64()
	var sums [4]ymm
	for i := range sums {
		sums[i] = c.YMM()
	}
	order := c.YMM()
	c.VMOVDQU(table(c, "packed", [32]byte{0: 0, 4: 4, 8: 1, 12: 5, 16: 2, 20: 6, 24: 3, 28: 7}), order)
	c.Label("block")
	c.MOVQ(src, in)
	c.MOVQ(weights, wt)
	c.MOVQ(count, k)
	for _, s := range sums {
		c.VMOVDQA(start, s)
	}
	c.Label("row")
	c.VPBROADCASTD(at(wt, 0), w)
	for i, s := range sums {
		t := c.YMM()
		c.VPMOVZXBD(at(in, 8*i), t)
		c.VPMULLD(w, t, t)
		c.VPADDD(t, s, s)
	}
	c.ADDQ(stride, in)
	c.ADDQ(operand.U8(4), wt)
	c.DECQ(k)
	c.JNZ(operand.LabelRef("row"))
	for _, s := range sums {
		c.VPSRAD(operand.U8(weightBits), s, s)
	}
	c.VPACKSSDW(sums[1], sums[0], sums[0])
	c.VPACKSSDW(sums[3], sums[2], sums[2])
	c.VPACKUSWB(sums[2], sums[0], sums[0]) // 4 levels of each sum in either half
	c.VPERMD(sums[0], order, sums[0])
	c.VMOVDQU(sums[0], at(dst, 0))
	c.ADDQ(operand.U8(32), src)
	c.ADDQ(operand.U8(32), dst)
	c.SUBQ(operand.U8(32), n)
	c.JG(operand.LabelRef("block"))
	end(c)
}
