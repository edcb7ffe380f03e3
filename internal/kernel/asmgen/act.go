package main

import (
	"math"

	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// erfcCoefficients fit exp(z²)·erfc(z) as a polynomial of 1/(1 + erfcP·z) on z in [0, 10] with a relative error of 4e-8
// (Remez exchange in float64; the form is that of Abramowitz and Stegun, 7.1.26, with three more terms).
var erfcCoefficients = []float64{2.5943958854474243e-05, 0.2363266981800839, 0.24357205425932382, 0.17730393868447886,
	0.3142109304747078, -0.20320766821817612, 0.5103300499228798, -0.35695137391758686, 0.0783894668920601}

const erfcP = 0.42

// activations writes value and derivative of each activation over a row. In the value, x -> y; the derivative multiplies. The
// widest registers also take x in bfloat16.
func activations(c *vector) {
	y, x, n, off := reg.RDI, reg.RSI, reg.RCX, reg.RAX
	for _, act := range []struct {
		name  string
		setup func(expRegs)
		// value and slope leave their result in register 0 and take x in it; they may use 1 to 9 and what setup filled.
		value, slope func(expRegs)
	}{
		{"gelu", func(expRegs) {
			c.constant(-0.5, z[10])
			c.constant(erfcP/math.Sqrt2, z[11])
			for i, v := range erfcCoefficients[1:] {
				c.constant(v/2, z[12+i])
			}
		}, func(r expRegs) {
			cdf(c, r)
			c.VMULPS(z[5], z[0], z[0])
		}, func(r expRegs) {
			cdf(c, r)
			c.constant(1/math.Sqrt(2*math.Pi), z[1])
			c.VMULPS(z[3], z[1], z[1])
			c.VFMADD213PS(z[5], z[1], z[0]) // x·φ + Φ
		}},
		{"geluTanh", func(expRegs) {
			c.constant(-2*geluC, z[10])
			c.constant(-2*geluC*geluK, z[11])
			c.constant(2*geluC, z[12])
			c.constant(6*geluC*geluK, z[13])
			c.constant(1e30, z[14])
		}, func(r expRegs) {
			geluTanhSigmoid(c, r)
			c.VDIVPS(z[4], z[0], z[0])
		}, func(r expRegs) {
			geluTanhSigmoid(c, r)
			c.VMULPS(z[0], z[0], z[1])
			c.VMINPS(z[1], z[14], z[1])       // an infinity would meet a zero in sigmoidSlope
			c.VFMADD213PS(z[12], z[13], z[1]) // derivative of the sigmoid's argument
			sigmoidSlope(c, r)
		}},
		{"quickGELU", func(expRegs) {
			c.constant(-1.702, z[10])
			c.constant(1.702, z[12])
		}, func(r expRegs) {
			c.VMULPS(z[10], z[0], z[1])
			exp(c, r, 1, 3, 2)
			c.VADDPS(z[r.one], z[3], z[4])
			c.VDIVPS(z[4], z[0], z[0])
		}, func(r expRegs) {
			c.VMULPS(z[10], z[0], z[1])
			exp(c, r, 1, 3, 2)
			c.VADDPS(z[r.one], z[3], z[4])
			c.VMOVAPS(z[12], z[1])
			sigmoidSlope(c, r)
		}},
	} {
		for _, x16 := range []bool{false, true} {
			name, element, twin := act.name, "*float32", "Row"
			if x16 {
				if c.lanes != 16 {
					continue
				}
				name, element, twin = act.name+"Half", "*uint16", "Row16"
			}
			argument := func(masked bool) {
				if x16 {
					getHalf(c, x, off, z[0], masked)
				} else {
					get(c, mem(x, off), z[0], masked)
				}
			}
			c.function(name, "func(y *float32, x "+element+", n int)", "is act"+twin+".")
			load(c.Context, []string{"y", "x", "n"}, []reg.Register{y, x, n})
			r := expConstants(c)
			act.setup(r)
			each(c, name, n, off, func(masked bool) {
				argument(masked)
				act.value(r)
				put(c, z[0], mem(y, off), masked)
			})
			end(c.Context)

			c.function(name+"Grad", "func(dst *float32, x "+element+", n int)", "is actGrad"+twin+".")
			load(c.Context, []string{"dst", "x", "n"}, []reg.Register{y, x, n})
			act.setup(expConstants(c))
			each(c, name+"Grad", n, off, func(masked bool) {
				argument(masked)
				act.slope(r)
				get(c, mem(y, off), z[1], masked)
				c.VMULPS(z[1], z[0], z[0])
				put(c, z[0], mem(y, off), masked)
			})
			end(c.Context)
		}
	}
}

// getHalf is get of bfloat16, off bytes of floats from base on. It spoils RDX.
func getHalf(c *vector, base, off reg.GPPhysical, to reg.VecPhysical, masked bool) {
	c.MOVQ(off, reg.RDX)
	c.SHRQ(operand.U8(1), reg.RDX)
	if masked {
		c.VPMOVZXWD_Z(mem(base, reg.RDX), reg.K1, to)
	} else {
		c.VPMOVZXWD(mem(base, reg.RDX), to)
	}
	c.VPSLLD(operand.U8(16), to, to)
}

const (
	geluC = 0.7978845608028654 // √(2/π)
	geluK = 0.044715
)

// cdf takes x in register 0 and leaves exp(-x²/2) in 3 and the normal distribution Φ(x) = (1 + erf(x/√2))/2 in 5, with an
// absolute error below 2e-7. It uses 10 to 19 as activations filled them.
func cdf(c *vector, r expRegs) {
	c.VMULPS(z[0], z[0], z[1])
	c.VMULPS(z[10], z[1], z[1])
	exp(c, r, 1, 3, 2)
	c.bits(0x7fffffff, z[4])
	c.VPANDD(z[4], z[0], z[4])
	c.VFMADD213PS(z[r.one], z[11], z[4])
	c.VDIVPS(z[4], z[r.one], z[4]) // t = 1/(1 + p·|x|/√2)
	c.VMOVAPS(z[19], z[5])
	for i := 18; i >= 12; i-- {
		c.VFMADD213PS(z[i], z[4], z[5])
	}
	c.constant(erfcCoefficients[0]/2, z[6])
	c.VFMADD213PS(z[6], z[4], z[5])
	c.VMULPS(z[3], z[5], z[5]) // Φ(-|x|)
	c.zero(z[6])
	c.compare(0x1e, z[6], z[0], reg.K2) // x > 0
	c.VSUBPS(z[5], z[r.one], reg.K2, z[5])
}

// geluTanhSigmoid takes x in register 0 and leaves e = exp(-2u) in 3 and 1 + e in 4, u = √(2/π)·(x + 0.044715·x³).
func geluTanhSigmoid(c *vector, r expRegs) {
	c.VMULPS(z[0], z[0], z[1])
	c.VFMADD213PS(z[10], z[11], z[1])
	c.VMULPS(z[0], z[1], z[1])
	exp(c, r, 1, 3, 2)
	c.VADDPS(z[r.one], z[3], z[4])
}

// sigmoidSlope takes x in 0, a' in 1, e = exp(-a) in 3 and 1 + e in 4, and leaves the derivative of x·σ(a) in 0:
// σ + x·σ·(1-σ)·a'. 1-σ is taken as e·σ where that is below a half, for there the difference would cancel, and as the
// difference elsewhere, where e may be infinite.
func sigmoidSlope(c *vector, r expRegs) {
	c.VDIVPS(z[4], z[r.one], z[5])
	c.VSUBPS(z[5], z[r.one], z[4])
	c.compare(0x11, z[r.one], z[3], reg.K2) // e < 1
	c.VMULPS(z[5], z[3], reg.K2, z[4])
	c.VMULPS(z[5], z[4], z[4])
	c.VMULPS(z[0], z[4], z[4])
	c.VMULPS(z[1], z[4], z[4])
	c.VADDPS(z[5], z[4], z[0])
}
