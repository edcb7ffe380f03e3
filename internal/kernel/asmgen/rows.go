package main

import (
	"math"

	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// norms writes layer normalisation, forward and backward, over a block of rows.
func norms(c *vector) {
	off, n := reg.RAX, reg.RCX

	c.function("layerNorm", "func(y, x, gamma, beta, mean, rstd *float32, rows, cols int, eps float32)", "is layerNorm.")
	y, x, gamma, beta, mean, rstd, rows, cols := reg.RDI, reg.RSI, reg.RDX, reg.RBX, reg.R8, reg.R9, reg.R10, reg.R11
	load(c.Context, []string{"y", "x", "gamma", "beta", "mean", "rstd", "rows", "cols"}, []reg.Register{y, x, gamma, beta, mean, rstd, rows, cols})
	eps, count, one := z[31], z[30], z[29]
	c.VBROADCASTSS(param(c.Context, "eps"), eps)
	c.broadcastInt(cols, count)
	c.constant(1, one)
	c.Label("row")
	c.zero(z[0])
	c.MOVQ(cols, n)
	each(c, "sum", n, off, func(masked bool) {
		get(c, mem(x, off), z[1], masked)
		c.VADDPS(z[1], z[0], z[0])
	})
	c.across(c.VADDPS, 0, 1)
	c.VDIVPS(count, z[0], z[0])
	c.VMOVSS(c.lowest(z[0]), operand.Mem{Base: mean})
	c.zero(z[2])
	c.MOVQ(cols, n)
	each(c, "square", n, off, func(masked bool) {
		get(c, mem(x, off), z[1], masked)
		if masked {
			c.VSUBPS_Z(z[0], z[1], reg.K1, z[1])
		} else {
			c.VSUBPS(z[0], z[1], z[1])
		}
		c.VFMADD231PS(z[1], z[1], z[2])
	})
	c.across(c.VADDPS, 2, 1)
	c.VDIVPS(count, z[2], z[2])
	c.VADDPS(eps, z[2], z[2])
	c.VSQRTPS(z[2], z[2])
	c.VDIVPS(z[2], one, z[2])
	c.VMOVSS(c.lowest(z[2]), operand.Mem{Base: rstd})
	c.MOVQ(cols, n)
	each(c, "write", n, off, func(masked bool) {
		get(c, mem(x, off), z[1], masked)
		get(c, mem(gamma, off), z[3], masked)
		get(c, mem(beta, off), z[4], masked)
		c.VSUBPS(z[0], z[1], z[1])
		c.VMULPS(z[2], z[1], z[1])
		c.VFMADD213PS(z[4], z[3], z[1])
		put(c, z[1], mem(y, off), masked)
	})
	nextRow(c, cols, y, x)
	c.ADDQ(operand.U8(4), mean)
	c.ADDQ(operand.U8(4), rstd)
	c.DECQ(rows)
	c.JNE(operand.LabelRef("row"))
	end(c.Context)

	c.function("layerNormBackward", "func(dx, dgamma, dbeta, dy, x, mean, rstd, gamma, add *float32, rows, cols int)",
		"is layerNormBackward; add may be nil.")
	dx, dgamma, dbeta, dy, x, mean, rstd, gamma, add, rows, cols := reg.RDI, reg.R12, reg.R13, reg.RBX, reg.RSI, reg.R8, reg.R9, reg.RDX, reg.R14, reg.R10, reg.R11
	load(c.Context, []string{"dx", "dgamma", "dbeta", "dy", "x", "mean", "rstd", "gamma", "add", "rows", "cols"},
		[]reg.Register{dx, dgamma, dbeta, dy, x, mean, rstd, gamma, add, rows, cols})
	c.broadcastInt(cols, count)
	mu, s, sum, along := z[4], z[5], z[0], z[2]
	c.Label("row")
	c.VBROADCASTSS(operand.Mem{Base: mean}, mu)
	c.VBROADCASTSS(operand.Mem{Base: rstd}, s)
	c.zero(sum)
	c.zero(along)
	c.MOVQ(cols, n)
	each(c, "sums", n, off, func(masked bool) {
		get(c, mem(dy, off), z[6], masked)
		get(c, mem(x, off), z[7], masked)
		get(c, mem(gamma, off), z[8], masked)
		get(c, mem(dgamma, off), z[9], masked)
		get(c, mem(dbeta, off), z[10], masked)
		c.VSUBPS(mu, z[7], z[7])
		c.VMULPS(s, z[7], z[7])
		c.VMULPS(z[6], z[8], z[8])
		c.VADDPS(z[8], sum, sum)
		c.VFMADD231PS(z[7], z[8], along)
		c.VFMADD231PS(z[6], z[7], z[9])
		c.VADDPS(z[6], z[10], z[10])
		put(c, z[9], mem(dgamma, off), masked)
		put(c, z[10], mem(dbeta, off), masked)
	})
	c.across(c.VADDPS, 0, 1)
	c.across(c.VADDPS, 2, 1)
	c.VDIVPS(count, sum, sum)
	c.VDIVPS(count, along, along)
	c.MOVQ(cols, n)
	each(c, "write", n, off, func(masked bool) {
		get(c, mem(dy, off), z[6], masked)
		get(c, mem(x, off), z[7], masked)
		get(c, mem(gamma, off), z[8], masked)
		c.VSUBPS(mu, z[7], z[7])
		c.VMULPS(s, z[7], z[7])
		c.VFMSUB213PS(sum, z[6], z[8])
		c.VFNMADD231PS(along, z[7], z[8])
		c.VMULPS(s, z[8], z[8])
		skip := "noAdd"
		if masked {
			skip = "noAddTail"
		}
		c.TESTQ(add, add)
		c.JE(operand.LabelRef(skip))
		get(c, mem(add, off), z[6], masked)
		c.VADDPS(z[6], z[8], z[8])
		c.Label(skip)
		put(c, z[8], mem(dx, off), masked)
	})
	nextRow(c, cols, dx, dy, x)
	c.TESTQ(add, add)
	c.JE(operand.LabelRef("advanced"))
	nextRow(c, cols, add)
	c.Label("advanced")
	c.ADDQ(operand.U8(4), mean)
	c.ADDQ(operand.U8(4), rstd)
	c.DECQ(rows)
	c.JNE(operand.LabelRef("row"))
	end(c.Context)
}

// nextRow moves pointers on by cols floats.
func nextRow(c *vector, cols reg.Register, pointers ...reg.Register) {
	for _, p := range pointers {
		c.LEAQ(operand.Mem{Base: p, Index: cols, Scale: 4}, p)
	}
}

// softmaxes writes what the losses over all pairs need.
func softmaxes(c *vector) {
	x, off, n := reg.RSI, reg.RAX, reg.RCX

	c.function("rowMax", "func(x *float32, n int) float32", "returns the largest element; a NaN may or may not win.")
	load(c.Context, []string{"x", "n"}, []reg.Register{x, n})
	c.constant(math.Inf(-1), z[11])
	c.VMOVAPS(z[11], z[0])
	each(c, "max", n, off, func(masked bool) {
		if masked {
			c.VMAXPS(mem(x, off), z[0], reg.K1, z[0])
		} else {
			c.VMAXPS(mem(x, off), z[0], z[0])
		}
	})
	c.across(c.VMAXPS, 0, 1)
	c.Store(c.lowest(z[0]), c.ReturnIndex(0))
	end(c.Context)

	c.function("expSum", "func(x *float32, n int, top float32) float32", "returns the sum of exp(x - top).")
	load(c.Context, []string{"x", "n"}, []reg.Register{x, n})
	r := expConstants(c)
	c.VBROADCASTSS(param(c.Context, "top"), z[4])
	c.zero(z[0])
	each(c, "expSum", n, off, func(masked bool) {
		get(c, mem(x, off), z[1], masked)
		c.VSUBPS(z[4], z[1], z[1])
		exp(c, r, 1, 3, 2)
		if masked {
			c.VADDPS(z[3], z[0], reg.K1, z[0])
		} else {
			c.VADDPS(z[3], z[0], z[0])
		}
	})
	c.across(c.VADDPS, 0, 1)
	c.Store(c.lowest(z[0]), c.ReturnIndex(0))
	end(c.Context)

	c.function("columnsExpSum", "func(top, sum, s *float32, cols, rows, stride int)", "is columnsExpSum; stride is in bytes.")
	top, sum, rows, stride, at, left := reg.RDI, reg.RDX, reg.RBX, reg.R8, reg.R9, reg.R10
	load(c.Context, []string{"top", "sum", "s", "cols", "rows", "stride"}, []reg.Register{top, sum, x, n, rows, stride})
	r = expConstants(c)
	each(c, "columns", n, off, func(masked bool) {
		suffix := ""
		if masked {
			suffix = "Tail"
		}
		get(c, mem(top, off), z[0], masked)
		c.VMOVAPS(z[0], z[4])
		down := func(label string, body func()) {
			c.LEAQ(mem(x, off), at)
			c.MOVQ(rows, left)
			c.Label(label + suffix)
			get(c, operand.Mem{Base: at}, z[1], masked)
			body()
			c.ADDQ(stride, at)
			c.DECQ(left)
			c.JNE(operand.LabelRef(label + suffix))
		}
		down("highest", func() { c.VMAXPS(z[1], z[4], z[4]) })
		c.VSUBPS(z[4], z[0], z[1])
		exp(c, r, 1, 3, 2)
		get(c, mem(sum, off), z[5], masked)
		c.VMULPS(z[3], z[5], z[5])
		down("total", func() {
			c.VSUBPS(z[4], z[1], z[1])
			exp(c, r, 1, 3, 2)
			c.VADDPS(z[3], z[5], z[5])
		})
		put(c, z[4], mem(top, off), masked)
		put(c, z[5], mem(sum, off), masked)
	})
	end(c.Context)

	c.function("softmaxGrad", "func(row *float32, n int, lse, factor, less float32)", "is softmaxGradRow.")
	load(c.Context, []string{"row", "n"}, []reg.Register{x, n})
	r = expConstants(c)
	c.VBROADCASTSS(param(c.Context, "lse"), z[10])
	c.VBROADCASTSS(param(c.Context, "factor"), z[11])
	c.VBROADCASTSS(param(c.Context, "less"), z[12])
	each(c, "softmaxGrad", n, off, func(masked bool) {
		get(c, mem(x, off), z[1], masked)
		c.VSUBPS(z[10], z[1], z[1])
		exp(c, r, 1, 3, 2)
		c.VSUBPS(z[12], z[3], z[3])
		c.VMULPS(z[11], z[3], z[3])
		put(c, z[3], mem(x, off), masked)
	})
	end(c.Context)

	c.function("infoNCE", "func(row, column *float32, n int, rowLSE, factor, less float32)", "is infoNCEProbabilities.")
	column := reg.RDX
	load(c.Context, []string{"row", "column", "n"}, []reg.Register{x, column, n})
	r = expConstants(c)
	c.VBROADCASTSS(param(c.Context, "rowLSE"), z[10])
	c.VBROADCASTSS(param(c.Context, "factor"), z[11])
	c.VBROADCASTSS(param(c.Context, "less"), z[12])
	each(c, "infoNCE", n, off, func(masked bool) {
		get(c, mem(x, off), z[0], masked)
		get(c, mem(column, off), z[4], masked)
		c.VSUBPS(z[4], z[0], z[4])
		c.VSUBPS(z[10], z[0], z[1])
		exp(c, r, 1, 3, 2)
		exp(c, r, 4, 5, 2)
		c.VADDPS(z[5], z[3], z[3])
		c.VSUBPS(z[12], z[3], z[3])
		c.VMULPS(z[11], z[3], z[3])
		put(c, z[3], mem(x, off), masked)
	})
	end(c.Context)
}

// pairwise writes the logistic functions of the sigmoid loss.
func pairwise(c *vector) {
	x, off, n := reg.RSI, reg.RAX, reg.RCX

	c.function("softplusSum", "func(x *float32, n int) float32", "returns the sum of log(1 + exp(x)).")
	load(c.Context, []string{"x", "n"}, []reg.Register{x, n})
	r := expConstants(c)
	const terms = 8 // of the series of artanh: with w up to 1/3 the next is below 1e-8
	for i := range terms {
		c.constant(2/float64(2*i+1), z[8+i])
	}
	c.bits(1<<31, z[16])
	c.constant(2, z[17])
	c.zero(z[18])
	c.zero(z[0])
	each(c, "softplus", n, off, func(masked bool) {
		get(c, mem(x, off), z[4], masked)
		c.VPORD(z[16], z[4], z[1])
		exp(c, r, 1, 3, 2) // e = exp(-|x|)
		c.VADDPS(z[17], z[3], z[1])
		c.VDIVPS(z[1], z[3], z[1]) // log(1 + e) = 2·artanh(w), w = e/(2 + e)
		c.VMULPS(z[1], z[1], z[2])
		c.VMOVAPS(z[8+terms-1], z[3])
		for i := terms - 2; i >= 0; i-- {
			c.VFMADD213PS(z[8+i], z[2], z[3])
		}
		c.VMAXPS(z[4], z[18], z[4]) // x last in Intel's order, so that NaN stays
		c.VFMADD231PS(z[3], z[1], z[4])
		if masked {
			c.VADDPS(z[4], z[0], reg.K1, z[0])
		} else {
			c.VADDPS(z[4], z[0], z[0])
		}
	})
	c.across(c.VADDPS, 0, 1)
	c.Store(c.lowest(z[0]), c.ReturnIndex(0))
	end(c.Context)

	c.function("sigmoid", "func(x *float32, n int, factor float32)", "sets x = factor/(1 + exp(-x)).")
	load(c.Context, []string{"x", "n"}, []reg.Register{x, n})
	r = expConstants(c)
	c.VBROADCASTSS(param(c.Context, "factor"), z[4])
	c.constant(-1, z[5])
	each(c, "sigmoid", n, off, func(masked bool) {
		get(c, mem(x, off), z[1], masked)
		c.VMULPS(z[5], z[1], z[1])
		exp(c, r, 1, 3, 2)
		c.VADDPS(z[r.one], z[3], z[3])
		c.VDIVPS(z[3], z[4], z[3])
		put(c, z[3], mem(x, off), masked)
	})
	end(c.Context)
}
