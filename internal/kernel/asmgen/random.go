package main

import (
	"math"
	"slices"

	"github.com/mmcloughlin/avo/attr"
	"github.com/mmcloughlin/avo/build"
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// random writes kernels of 8 addresses at a time in 64-bit lanes. A method emits an operation on registers, or on a register and
// a constant, and returns the result. Products and sums are not fused, so that each rounding is that of the portable twin.
type random struct {
	*build.Context
	table []uint64 // the constants
}

const randomTable = "randomTable"

// bits is a constant for all lanes.
func (c *random) bits(x uint64) operand.Mem {
	i := slices.Index(c.table, x)
	if i < 0 {
		i = len(c.table)
		c.table = append(c.table, x)
	}
	return operand.NewDataAddr(operand.NewStaticSymbol(randomTable), 8*i)
}

func (c *random) number(x float64) operand.Mem { return c.bits(math.Float64bits(x)) }

// of emits a∘b with the instruction for registers or that for a constant b.
func (c *random) of(both, constant func(...operand.Op), a reg.Register, b operand.Op) reg.VecVirtual {
	to := c.ZMM()
	if _, ok := b.(operand.Mem); ok {
		both = constant
	}
	both(b, a, to)
	return to
}

func (c *random) add(a reg.Register, b operand.Op) reg.VecVirtual {
	return c.of(c.VADDPD, c.VADDPD_BCST, a, b)
}

func (c *random) sub(a reg.Register, b operand.Op) reg.VecVirtual {
	return c.of(c.VSUBPD, c.VSUBPD_BCST, a, b)
}

func (c *random) mul(a reg.Register, b operand.Op) reg.VecVirtual {
	return c.of(c.VMULPD, c.VMULPD_BCST, a, b)
}

func (c *random) xor(a reg.Register, b operand.Op) reg.VecVirtual {
	return c.of(c.VPXORQ, c.VPXORQ_BCST, a, b)
}

func (c *random) and(a reg.Register, b operand.Op) reg.VecVirtual {
	return c.of(c.VPANDQ, c.VPANDQ_BCST, a, b)
}

func (c *random) plus(a reg.Register, b operand.Op) reg.VecVirtual { // of integers
	return c.of(c.VPADDQ, c.VPADDQ_BCST, a, b)
}

func (c *random) times(a reg.Register, b operand.Op) reg.VecVirtual { // of integers
	return c.of(c.VPMULLQ, c.VPMULLQ_BCST, a, b)
}

func (c *random) right(a reg.Register, n uint8) reg.VecVirtual {
	to := c.ZMM()
	c.VPSRLQ(operand.U8(n), a, to)
	return to
}

// convert emits an instruction of one operand.
func (c *random) convert(instruction func(...operand.Op), a reg.Register) reg.VecVirtual {
	to := c.ZMM()
	instruction(a, to)
	return to
}

// horner is (…(k₀·x + k₁)·x + …)·x + kₙ.
func (c *random) horner(x reg.Register, k ...float64) reg.VecVirtual {
	sum := c.add(c.mul(x, c.number(k[0])), c.number(k[1]))
	for _, v := range k[2:] {
		sum = c.add(c.mul(sum, x), c.number(v))
	}
	return sum
}

const golden = 0x9e3779b97f4a7c15

func (c *random) mix(h reg.Register) reg.VecVirtual {
	h = c.times(c.xor(h, c.right(h, 30)), c.bits(0xbf58476d1ce4e5b9))
	h = c.times(c.xor(h, c.right(h, 27)), c.bits(0x94d049bb133111eb))
	return c.xor(h, c.right(h, 31))
}

// log is math.Log as amd64 has it (FreeBSD's __ieee754_log), for a normal x > 0.
func (c *random) log(x reg.Register) reg.VecVirtual {
	f := c.ZMM()
	c.VPORQ_BCST(c.number(0.5), c.and(x, c.bits(1<<52-1)), f)
	k := c.convert(c.VCVTQQ2PD, c.plus(c.right(x, 52), c.bits(1<<64-0x3fe)))
	low := c.K()
	const lessOrEqual = operand.U8(2)
	c.VCMPPD_BCST(lessOrEqual, c.number(7.07106781186547524401e-01), f, low)
	c.VSUBPD_BCST(c.number(1), k, low, k)
	c.VADDPD(f, f, low, f)
	f = c.sub(f, c.number(1))
	s := c.ZMM()
	c.VDIVPD(c.add(f, c.number(2)), f, s)
	s2 := c.mul(s, s)
	s4 := c.mul(s2, s2)
	r := c.add(
		c.mul(s2, c.horner(s4, 1.479819860511658591e-01, 1.818357216161805012e-01, 2.857142874366239149e-01, 6.666666666666735130e-01)),
		c.mul(s4, c.horner(s4, 1.531383769920937332e-01, 2.222219843214978396e-01, 3.999999999940941908e-01)))
	half := c.mul(c.mul(f, c.number(0.5)), f)
	rest := c.add(c.mul(s, c.add(r, half)), c.mul(k, c.number(1.90821492927058770002e-10)))
	return c.sub(c.mul(k, c.number(6.93147180369123816490e-01)), c.sub(c.sub(half, rest), f))
}

// cos is math.Cos (Cephes) for x from 0 to 2π.
func (c *random) cos(x reg.Register) reg.VecVirtual {
	j := c.convert(c.VCVTTPD2QQ, c.mul(x, c.number(4/math.Pi)))
	j = c.plus(j, c.and(j, c.bits(1))) // the next even octant
	y := c.convert(c.VCVTQQ2PD, j)
	for _, part := range []float64{7.85398125648498535156e-1, 3.77489470793079817668e-8, 2.69515142907905952645e-15} {
		x = c.sub(x, c.mul(y, c.number(part)))
	}
	xx := c.mul(x, x)
	sine := c.K() // octants 2 and 6 take the sine's polynomial
	c.VPTESTMQ_BCST(c.bits(2), j, sine)
	poly := c.ZMM()
	for i, k := range [][2]float64{
		{-1.13585365213876817300e-11, 1.58962301576546568060e-10}, {2.08757008419747316778e-9, -2.50507477628578072866e-8},
		{-2.75573141792967388112e-7, 2.75573136213857245213e-6}, {2.48015872888517045348e-5, -1.98412698295895385996e-4},
		{-1.38888888888730564116e-3, 8.33333333332211858878e-3}, {4.16666666666665929218e-2, -1.66666666666666307295e-1},
	} {
		coefficient := c.ZMM()
		c.VBROADCASTSD(c.number(k[0]), coefficient)
		c.VBROADCASTSD(c.number(k[1]), sine, coefficient)
		if i == 0 {
			poly = coefficient
		} else {
			poly = c.add(c.mul(poly, xx), coefficient)
		}
	}
	head, factor := c.ZMM(), c.mul(xx, xx)
	c.VBROADCASTSD(c.number(1), head)
	head = c.sub(head, c.mul(xx, c.number(0.5)))
	c.VMOVAPD(x, sine, head)
	c.VMULPD(xx, x, sine, factor)
	sign := c.ZMM() // negative in octants 2 and 4
	c.VPSLLQ(operand.U8(62), c.xor(j, c.right(j, 1)), sign)
	return c.xor(c.add(head, c.mul(factor, poly)), c.and(sign, c.bits(1<<63)))
}

func randomNumbers(ctx *build.Context) {
	c := &random{Context: ctx, table: []uint64{0, 1, 2, 3, 4, 5, 6, 7}}
	c.each("normals", "std", "is Normals for n > 0 elements, with keyed(key) as state.", func(h reg.Register) reg.VecVirtual {
		u := c.ZMM()
		c.VPORQ_BCST(c.bits(1), c.right(h, 11), u)
		u = c.mul(c.convert(c.VCVTUQQ2PD, u), c.number(0x1p-53))
		v := c.mul(c.convert(c.VCVTUQQ2PD, c.right(c.mix(c.plus(h, c.bits(golden))), 11)), c.number(0x1p-53))
		radius := c.convert(c.VSQRTPD, c.mul(c.log(u), c.number(-2)))
		return c.mul(radius, c.cos(c.mul(v, c.number(2*math.Pi))))
	})
	c.each("uniforms", "a", "is Uniforms, likewise.", func(h reg.Register) reg.VecVirtual {
		u := c.mul(c.convert(c.VCVTUQQ2PD, c.right(h, 11)), c.number(0x1p-53))
		return c.sub(c.mul(u, c.number(2)), c.number(1))
	})
	c.StaticGlobal(randomTable)
	c.DataAttributes(attr.RODATA | attr.NOPTR)
	for i, x := range c.table {
		c.AddDatum(8*i, operand.U64(x))
	}
}

// each writes the kernel that sets dst[i] = factor·value(hash of address first+i).
func (c *random) each(name, factor, doc string, value func(hash reg.Register) reg.VecVirtual) {
	function(c.Context, name+"AVX512", "func(dst *float32, n int, state, first uint64, "+factor+" float64)", doc)
	dst, n, mask := c.Load(c.Param("dst"), c.GP64()), c.Load(c.Param("n"), c.GP64()), c.K()
	state, address, scale := c.ZMM(), c.ZMM(), c.ZMM()
	c.VPBROADCASTQ(param(c.Context, "state"), state)
	c.VPBROADCASTQ(param(c.Context, "first"), address)
	c.VBROADCASTSD(param(c.Context, factor), scale)
	c.VPADDQ(c.bits(0), address, address) // the first eight constants
	all := c.GP64()
	c.MOVQ(operand.I32(-1), all)
	c.Label("loop")
	lanes := c.GP64()
	c.MOVQ(all, lanes)
	c.CMPQ(n, operand.U8(8))
	c.JGE(operand.LabelRef("whole"))
	c.BZHIQ(n, all, lanes)
	c.Label("whole")
	c.KMOVB(lanes.As32(), mask)
	word := c.times(c.mix(c.plus(address, c.bits(golden))), c.bits(0xff51afd7ed558ccd))
	z := c.mul(value(c.mix(c.xor(word, state))), scale)
	narrow := c.YMM()
	c.VCVTPD2PS(z, narrow)
	c.VMOVUPS(narrow, mask, operand.Mem{Base: dst})
	c.VPADDQ_BCST(c.bits(8), address, address)
	c.ADDQ(operand.U8(32), dst)
	c.SUBQ(operand.U8(8), n)
	c.JG(operand.LabelRef("loop"))
	end(c.Context)
}
