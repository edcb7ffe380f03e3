package main

import (
	"math"

	"github.com/mmcloughlin/avo/attr"
	"github.com/mmcloughlin/avo/build"
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// function begins one of both widths.
func (v *vector) function(name, signature, doc string) {
	v.begin()
	function(v.Context, name+v.suffix(), signature, doc)
}

// function begins a function whose pointers and lengths must not escape.
func function(c *build.Context, name, signature, doc string) {
	c.Function(name)
	c.Attributes(attr.NOSPLIT)
	c.SignatureExpr(signature)
	c.Pragma("noescape")
	c.Doc(name + " " + doc)
}

// load reads parameters into registers, pair by pair.
func load(c *build.Context, names []string, to []reg.Register) {
	for i, n := range names {
		c.Load(c.Param(n), to[i])
	}
}

// each runs body over n elements, a register at a time: off is the byte offset of the step; on the last, partial step masked is
// true and K1 holds its lanes. For NEON what is left over goes by single elements. n is spoiled; labels begin with the given name.
func each(c *vector, label string, n, off reg.GPPhysical, body func(masked bool)) {
	c.XORQ(off, off)
	c.Label(label + "Loop")
	c.CMPQ(n, operand.U8(c.lanes))
	c.JLT(operand.LabelRef(label + "Tail"))
	body(false)
	c.ADDQ(operand.U8(c.bytes()), off)
	c.SUBQ(operand.U8(c.lanes), n)
	c.JMP(operand.LabelRef(label + "Loop"))
	c.Label(label + "Tail")
	c.TESTQ(n, n)
	c.JE(operand.LabelRef(label + "Done"))
	if c.lanes == 4 {
		c.Label(label + "Single")
		body(true)
		c.ADDQ(operand.U8(4), off)
		c.DECQ(n)
		c.JNE(operand.LabelRef(label + "Single"))
	} else {
		c.firstLanes("", n, reg.K1)
		body(true)
	}
	c.Label(label + "Done")
}

func mem(base, index reg.Register) operand.Mem {
	return operand.Mem{Base: base, Index: index, Scale: 1}
}

func get(c *vector, m operand.Mem, to reg.VecPhysical, masked bool) {
	if masked {
		c.load(m, reg.K1, to)
	} else {
		c.load(m, nil, to)
	}
}

func put(c *vector, from reg.VecPhysical, m operand.Mem, masked bool) {
	if masked {
		c.store(from, reg.K1, m)
	} else {
		c.store(from, nil, m)
	}
}

func end(c *build.Context) {
	c.VZEROUPPER()
	c.RET()
}

// expRegs are the registers that hold the constants of exp.
type expRegs struct{ hi, lo, log2e, ln2hi, ln2lo, half, p0, p1, p2, p3, p4, one int }

// expConstants puts the constants of exp into registers 20 to 31.
func expConstants(c *vector) expRegs {
	r := expRegs{20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31}
	for _, v := range []struct {
		reg   int
		value float64
	}{
		{r.hi, 89}, {r.lo, -105}, {r.log2e, math.Log2E}, {r.ln2hi, 0.693359375}, {r.ln2lo, -2.12194440e-4}, {r.half, 5.0000001201e-1},
		{r.p0, 1.9875691500e-4}, {r.p1, 1.3981999507e-3}, {r.p2, 8.3334519073e-3}, {r.p3, 4.1665795894e-2}, {r.p4, 1.6666665459e-1}, {r.one, 1},
	} {
		c.constant(v.value, z[v.reg])
	}
	return r
}

// exp sets y = exp(x) with a relative error of about 1e-7 (Cephes' expf: x = n·ln 2 + r, then a polynomial of r); it
// overflows to Inf, underflows through the denormals to 0 and keeps NaN. t is spoiled, and so is x.
func exp(c *vector, r expRegs, x, y, t int) {
	c.VMINPS(z[x], z[r.hi], z[x]) // x last in Intel's order, so that NaN stays
	c.VMAXPS(z[x], z[r.lo], z[x])
	c.VMULPS(z[r.log2e], z[x], z[t])
	c.round(z[t], z[t])
	c.VFNMADD231PS(z[r.ln2hi], z[t], z[x])
	c.VFNMADD231PS(z[r.ln2lo], z[t], z[x])
	c.VMOVAPS(z[r.p0], z[y])
	for _, p := range []int{r.p1, r.p2, r.p3, r.p4, r.half, r.one, r.one} {
		c.VFMADD213PS(z[p], z[x], z[y])
	}
	c.scale(z[t], z[y], z[y])
}

func vec(c *build.Context) {
	v := atWidth(c, 16)
	vectors(v)
	wideSums(v)
}

func vecAVX2(c *build.Context) {
	v := atWidth(c, 8)
	vectors(v)
	narrowSums(v)
	columnSums(v)
	halves(v)
	v.writeData()
}

// vectors writes what both widths have.
func vectors(c *vector) {
	elementwise(c)
	activations(c)
	sums(c)
	norms(c)
	softmaxes(c)
	pairwise(c)
	softmaxForward(c)
	softmaxBackward(c)
}

// elementwise writes the kernels that are bound by memory. They round each operation like their portable twins.
func elementwise(c *vector) {
	dst, a, b, n, off := reg.RDI, reg.RSI, reg.RDX, reg.RCX, reg.RAX

	c.function("roundBF16", "func(dst, x *float32, n int)", "rounds to bfloat16 and back, as the function without a suffix.")
	load(c.Context, []string{"dst", "x", "n"}, []reg.Register{dst, a, n})
	rounding(c)
	each(c, "round", n, off, func(masked bool) {
		get(c, mem(a, off), z[0], masked)
		rounded(c)
		put(c, z[1], mem(dst, off), masked)
	})
	end(c.Context)

	c.function("add", "func(dst, a, b *float32, n int)", "sets dst = a + b.")
	load(c.Context, []string{"dst", "a", "b", "n"}, []reg.Register{dst, a, b, n})
	each(c, "add", n, off, func(masked bool) {
		get(c, mem(a, off), z[0], masked)
		get(c, mem(b, off), z[1], masked)
		c.VADDPS(z[1], z[0], z[0])
		put(c, z[0], mem(dst, off), masked)
	})
	end(c.Context)

	c.function("addScaled", "func(dst, x *float32, n int, alpha float32)", "sets dst += alpha·x.")
	load(c.Context, []string{"dst", "x", "n"}, []reg.Register{dst, a, n})
	c.VBROADCASTSS(param(c.Context, "alpha"), z[2])
	each(c, "addScaled", n, off, func(masked bool) {
		get(c, mem(a, off), z[0], masked)
		get(c, mem(dst, off), z[1], masked)
		c.VMULPS(z[2], z[0], z[0])
		c.VADDPS(z[0], z[1], z[1])
		put(c, z[1], mem(dst, off), masked)
	})
	end(c.Context)

	c.function("scale", "func(dst, x *float32, n int, alpha float32)", "sets dst = alpha·x.")
	load(c.Context, []string{"dst", "x", "n"}, []reg.Register{dst, a, n})
	c.VBROADCASTSS(param(c.Context, "alpha"), z[2])
	each(c, "scale", n, off, func(masked bool) {
		get(c, mem(a, off), z[0], masked)
		c.VMULPS(z[2], z[0], z[0])
		put(c, z[0], mem(dst, off), masked)
	})
	end(c.Context)

	c.function("lerp", "func(dst, x *float32, n int, t float32)", "sets dst += t·(x-dst).")
	load(c.Context, []string{"dst", "x", "n"}, []reg.Register{dst, a, n})
	c.VBROADCASTSS(param(c.Context, "t"), z[2])
	each(c, "lerp", n, off, func(masked bool) {
		get(c, mem(a, off), z[0], masked)
		get(c, mem(dst, off), z[1], masked)
		c.VSUBPS(z[1], z[0], z[0])
		c.VMULPS(z[2], z[0], z[0])
		c.VADDPS(z[0], z[1], z[1])
		put(c, z[1], mem(dst, off), masked)
	})
	end(c.Context)

	c.function("adamW", "func(w, grad, m, v *float32, n int, k *float32)", "is adamW; k points to its adamWConst.")
	w, g, m, v, k := reg.RDI, reg.RSI, reg.RDX, reg.RBX, reg.R8
	load(c.Context, []string{"w", "grad", "m", "v", "n", "k"}, []reg.Register{w, g, m, v, n, k})
	for i := range 9 {
		c.VBROADCASTSS(operand.Mem{Base: k, Disp: 4 * i}, z[16+i])
	}
	gradScale, keep, beta1, newG, beta2, newG2, rate, invRoot, eps := z[16], z[17], z[18], z[19], z[20], z[21], z[22], z[23], z[24]
	each(c, "adamW", n, off, func(masked bool) {
		get(c, mem(g, off), z[0], masked)
		get(c, mem(m, off), z[1], masked)
		get(c, mem(v, off), z[2], masked)
		get(c, mem(w, off), z[3], masked)
		c.VMULPS(gradScale, z[0], z[0])
		c.VMULPS(beta1, z[1], z[1])
		c.VMULPS(newG, z[0], z[4])
		c.VADDPS(z[4], z[1], z[1])
		c.VMULPS(z[0], z[0], z[0])
		c.VMULPS(beta2, z[2], z[2])
		c.VMULPS(newG2, z[0], z[0])
		c.VADDPS(z[0], z[2], z[2])
		put(c, z[1], mem(m, off), masked)
		put(c, z[2], mem(v, off), masked)
		c.VSQRTPS(z[2], z[2])
		c.VMULPS(invRoot, z[2], z[2])
		c.VADDPS(eps, z[2], z[2])
		c.VDIVPS(z[2], z[1], z[1])
		c.VMULPS(rate, z[1], z[1])
		c.VMULPS(keep, z[3], z[3])
		c.VSUBPS(z[1], z[3], z[3])
		put(c, z[3], mem(w, off), masked)
	})
	end(c.Context)
}

// rounding puts the constants of rounded into registers 4 to 9.
func rounding(c *vector) {
	c.bits(1, z[4])
	c.bits(0x7fff, z[5])
	c.bits(0xffff_0000, z[6])
	c.bits(0x7fff_ffff, z[7])
	c.constant(0x1p-126, z[8])
	c.zero(z[9])
}

// rounded sets register 1 to register 0, rounded to bfloat16. It spoils register 2 and K2.
func rounded(c *vector) {
	const unordered, less = operand.U8(0x03), operand.U8(0x11)
	c.VPSRLD(operand.U8(16), z[0], z[1])
	c.VPANDD(z[4], z[1], z[1])
	c.VPADDD(z[5], z[1], z[1])
	c.VPADDD(z[0], z[1], z[1])
	c.compare(unordered, z[0], z[0], reg.K2)
	c.VADDPS(z[0], z[0], reg.K2, z[1]) // NaN becomes quiet
	c.VPANDD(z[6], z[1], z[1])
	c.VPANDD(z[7], z[0], z[2])
	c.compare(less, z[8], z[2], reg.K2)
	c.VMULPS(z[9], z[0], reg.K2, z[1]) // subnormals become the zero of their sign
}

// halves writes the passages between floats and stored bfloat16 for AVX2. Processors with AVX-512 run them too: they are bound
// by memory.
func halves(c *vector) {
	dst, x, n := reg.RDI, reg.RSI, reg.RCX
	next := func(from, to operand.U8) {
		c.ADDQ(from, x)
		c.ADDQ(to, dst)
		c.SUBQ(operand.U8(8), n)
		c.JNE(operand.LabelRef("loop"))
		end(c.Context)
	}
	c.function("narrow", "func(dst *uint16, x *float32, n int)", "rounds n floats to bfloat16, n > 0 a multiple of 8.")
	load(c.Context, []string{"dst", "x", "n"}, []reg.Register{dst, x, n})
	rounding(c)
	c.Label("loop")
	c.load(operand.Mem{Base: x}, nil, z[0])
	rounded(c)
	r := c.to(z[1])
	c.Context.VPSRLD(operand.U8(16), r, r)
	c.VPACKUSDW(r, r, r)
	c.VPERMQ(operand.U8(0x08), r, r)
	c.VMOVDQU(low(r), operand.Mem{Base: dst})
	next(32, 16)

	c.function("widen", "func(dst *float32, x *uint16, n int)", "sets n floats to bfloat16, n > 0 a multiple of 8.")
	load(c.Context, []string{"dst", "x", "n"}, []reg.Register{dst, x, n})
	c.Label("loop")
	c.VPMOVZXWD(operand.Mem{Base: x}, y[0])
	c.VPSLLD(operand.U8(16), y[0], y[0])
	c.VMOVDQU(y[0], operand.Mem{Base: dst})
	next(16, 32)
}

// param is where a parameter of the function lies in memory.
func param(c *build.Context, name string) operand.Mem {
	b, err := c.Param(name).Resolve()
	if err != nil {
		panic(err) // the generator's own mistake
	}
	return b.Addr
}

// sums writes sums of products and of columns.
func sums(c *vector) {
	a, b, n, off := reg.RDI, reg.RSI, reg.RCX, reg.RAX

	c.function("dot", "func(a, b *float32, n int) float32", "returns the sum of a·b: 16 sums side by side, then these.")
	load(c.Context, []string{"a", "b", "n"}, []reg.Register{a, b, n})
	c.zero(z[0])
	each(c, "dot", n, off, func(masked bool) {
		get(c, mem(a, off), z[1], masked)
		get(c, mem(b, off), z[2], masked)
		c.VFMADD231PS(z[2], z[1], z[0])
	})
	c.across(c.VADDPS, 0, 1)
	c.Store(c.lowest(z[0]), c.ReturnIndex(0))
	end(c.Context)
}

// wideSums writes the sums that differ between the widths, for AVX-512.
func wideSums(c *vector) {
	a, n, off := reg.RSI, reg.RCX, reg.RAX

	c.function("sumSquares", "func(x *float32, n int) float64", "returns the sum of x² in float64.")
	load(c.Context, []string{"x", "n"}, []reg.Register{a, n})
	c.VPXORD(z[0], z[0], z[0])
	c.VPXORD(z[3], z[3], z[3])
	each(c, "sumSquares", n, off, func(masked bool) {
		get(c, mem(a, off), z[1], masked)
		c.VEXTRACTF64X4(operand.U8(1), z[1], reg.Y2)
		c.VCVTPS2PD(reg.Y1, z[1])
		c.VCVTPS2PD(reg.Y2, z[2])
		c.VFMADD231PD(z[1], z[1], z[0])
		c.VFMADD231PD(z[2], z[2], z[3])
	})
	c.VADDPD(z[3], z[0], z[0])
	c.VSHUFF64X2(operand.U8(0x4e), z[0], z[0], z[1])
	c.VADDPD(z[1], z[0], z[0])
	c.VSHUFF64X2(operand.U8(0xb1), z[0], z[0], z[1])
	c.VADDPD(z[1], z[0], z[0])
	c.VSHUFPD(operand.U8(0x55), z[0], z[0], z[1])
	c.VADDPD(z[1], z[0], z[0])
	c.Store(reg.X0, c.ReturnIndex(0))
	end(c.Context)

	c.function("colSum", "func(dst, x *float32, cols, rows, stride int)", "is colSum on up to 64 columns; stride is in bytes.")
	dst, x, cols, rows, stride := reg.RDI, reg.RSI, reg.RCX, reg.RBX, reg.R8
	load(c.Context, []string{"dst", "x", "cols", "rows", "stride"}, []reg.Register{dst, x, cols, rows, stride})
	mask := []reg.OpmaskPhysical{reg.K1, reg.K2, reg.K3, reg.K4}
	c.MOVQ(operand.I32(-1), reg.RAX)
	c.BZHIQ(cols, reg.RAX, reg.RAX) // a bit for each column; 64 of them leave all set
	for j := range 4 {
		c.KMOVW(reg.EAX, mask[j])
		c.SHRQ(operand.U8(16), reg.RAX)
		c.VPXORD(z[j], z[j], z[j])
	}
	c.Label("colSumRow")
	for j := range 4 {
		c.VADDPS(operand.Mem{Base: x, Disp: 64 * j}, z[j], mask[j], z[j])
	}
	c.ADDQ(stride, x)
	c.DECQ(rows)
	c.JNE(operand.LabelRef("colSumRow"))
	for j := range 4 {
		m := operand.Mem{Base: dst, Disp: 64 * j}
		c.VADDPS(m, z[j], mask[j], z[j])
		c.VMOVUPS(z[j], mask[j], m)
	}
	end(c.Context)
}

// narrowSums writes the same for AVX2.
func narrowSums(c *vector) {
	x, n := reg.RSI, reg.RCX

	c.function("sumSquares", "func(x *float32, n int) float64", "returns the sum of x² in float64, for n a multiple of 8.")
	load(c.Context, []string{"x", "n"}, []reg.Register{x, n})
	c.VXORPS(y[0], y[0], y[0])
	c.VXORPS(y[3], y[3], y[3])
	c.Label("loop")
	for i, sum := range []reg.VecPhysical{y[0], y[3]} {
		c.VCVTPS2PD(operand.Mem{Base: x, Disp: 16 * i}, y[1])
		c.Context.VFMADD231PD(y[1], y[1], sum)
	}
	c.ADDQ(operand.U8(32), x)
	c.SUBQ(operand.U8(8), n)
	c.JNE(operand.LabelRef("loop"))
	c.VADDPD(y[3], y[0], y[0])
	c.VEXTRACTF128(operand.U8(1), y[0], reg.X1)
	c.VADDPD(reg.X1, reg.X0, reg.X0)
	c.VSHUFPD(operand.U8(1), reg.X0, reg.X0, reg.X1)
	c.VADDSD(reg.X1, reg.X0, reg.X0)
	c.Store(reg.X0, c.ReturnIndex(0))
	end(c.Context)
}

// columnSums writes those of widths whose registers do not hold a whole strip of columns.
func columnSums(c *vector) {
	x, n, off := reg.RSI, reg.RCX, reg.RAX

	c.function("colSum", "func(dst, x *float32, cols, rows, stride int)", "is colSum; stride is in bytes.")
	dst, rows, stride, at, left := reg.RDI, reg.RBX, reg.R8, reg.R9, reg.R10
	load(c.Context, []string{"dst", "x", "cols", "rows", "stride"}, []reg.Register{dst, x, n, rows, stride})
	each(c, "colSum", n, off, func(masked bool) {
		label := "colSumRow"
		if masked {
			label = "colSumTailRow"
		}
		c.zero(z[0])
		c.LEAQ(mem(x, off), at)
		c.MOVQ(rows, left)
		c.Label(label)
		get(c, operand.Mem{Base: at}, z[1], masked)
		c.VADDPS(z[1], z[0], z[0])
		c.ADDQ(stride, at)
		c.DECQ(left)
		c.JNE(operand.LabelRef(label))
		get(c, mem(dst, off), z[1], masked)
		c.VADDPS(z[1], z[0], z[0])
		put(c, z[0], mem(dst, off), masked)
	})
	end(c.Context)
}
