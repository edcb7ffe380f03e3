package main

import (
	"fmt"
	"math"

	"github.com/mmcloughlin/avo/build"
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// Offsets into productArgs (attention_amd64.go).
const (
	prodM          = 0
	prodK          = 8
	prodA          = 16
	prodB          = 24
	prodC          = 32
	prodRowA       = 40
	prodStepA      = 48
	prodRowB       = 56
	prodRowC       = 64
	prodRowScale   = 72
	prodAccumulate = 80
	prodMask       = 88
)

// Offsets into softmaxArgs (attention_amd64.go).
const (
	softS      = 0
	softRows   = 8
	softRowS   = 16
	softSeen   = 24
	softStep   = 32
	softWidth  = 40
	softTop    = 48
	softSum    = 56
	softDP     = 64
	softOut    = 72
	softDOut   = 80
	softRowOut = 88
	softDim    = 96
	softScale  = 104
)

// productTiles are the heights of the tiles of product, by the number of vectors in a row: the sums, the vectors of B and two
// broadcasts of A fit 32 registers. 9 and 8 rows are the 17 of a picture of 4 × 4 patches and its class token.
var productTiles = [][]int{1: {16, 8, 4, 1}, 2: {9, 8, 4, 2, 1}, 3: {8, 4, 2, 1}, 4: {6, 4, 2, 1}}

func attention(c *build.Context) {
	for nv := 1; nv <= 4; nv++ {
		product(c, nv, multiplyAdd)
	}
	transpose(c)
	softmaxFinish(c)
	prefetch(c)
}

// product writes the small matrix product of attention: C (m, 16·nv) from A (m, k), whose rows and columns may lie at any
// stride, and B (k, 16·nv). The products are too small to pack anything. Each element is one chain of fused multiply-adds
// over k. With products of pairs k counts words, which are pairs of bfloat16.
func product(c *build.Context, nv int, by multiplier) {
	name := fmt.Sprintf("product%d%sAVX512", nv, by.suffix)
	function(c, name, "func(p *byte)", fmt.Sprintf("computes all rows and up to %d columns of C as productArgs says.", 16*nv))
	k, b0, ldb, at, ldc, rowA, stepA := reg.RAX, reg.RBX, reg.RCX, reg.RDX, reg.RSI, reg.RDI, reg.R8
	base := []reg.GPPhysical{reg.R9, reg.R10, reg.R11, reg.R12, reg.R13, reg.R14}
	arg := operand.Mem{Base: reg.R15}
	c.Load(c.Param("p"), reg.R15)
	c.MOVQ(arg.Offset(prodA), base[0])
	c.MOVQ(arg.Offset(prodC), at)
	c.MOVQ(arg.Offset(prodRowB), ldb)
	c.MOVQ(arg.Offset(prodRowC), ldc)
	c.MOVQ(arg.Offset(prodRowA), rowA)
	c.MOVQ(arg.Offset(prodStepA), stepA)
	c.KMOVW(arg.Offset(prodMask), reg.K1)
	tiles := productTiles[nv]
	for t, mr := range tiles {
		label := fmt.Sprintf("rows%d", mr)
		sum := func(i, j int) reg.VecPhysical { return z[i*nv+j] }
		bvec := func(j int) reg.VecPhysical { return z[32-nv+j] }
		sums := mr * nv
		broadcasts := min(4, 32-sums-nv)
		bases := (mr + 2) / 3
		c.Label(label)
		c.CMPQ(arg.Offset(prodM), operand.U8(mr))
		next := "done"
		if t+1 < len(tiles) {
			next = fmt.Sprintf("rows%d", tiles[t+1])
		}
		c.JLT(operand.LabelRef(next))
		for i := 1; i < bases; i++ { // x86 addresses reach rows 0, 1 and 2 from a base
			c.LEAQ(operand.Mem{Base: base[i-1], Index: rowA, Scale: 2}, base[i])
			c.ADDQ(rowA, base[i])
		}
		for i := range sums {
			c.VPXORD(z[i], z[i], z[i])
		}
		c.MOVQ(arg.Offset(prodB), b0)
		c.MOVQ(arg.Offset(prodK), k)
		align(c, 32)
		c.Label(label + "k")
		for j := range nv {
			m := operand.Mem{Base: b0, Disp: 64 * j}
			if j == nv-1 {
				c.VMOVUPS_Z(m, reg.K1, bvec(j))
			} else {
				c.VMOVUPS(m, bvec(j))
			}
		}
		for i := range mr {
			m := operand.Mem{Base: base[i/3]}
			if i%3 > 0 {
				m.Index, m.Scale = rowA, uint8(i%3)
			}
			x := z[sums+i%broadcasts]
			c.VBROADCASTSS(m, x)
			for j := range nv {
				by.emit(c, bvec(j), x, sum(i, j))
			}
		}
		for i := range bases {
			c.ADDQ(stepA, base[i])
		}
		c.ADDQ(ldb, b0)
		c.DECQ(k)
		c.JNE(operand.LabelRef(label + "k"))

		// Scale the rows, add what was there, store.
		x := z[31]
		c.MOVQ(arg.Offset(prodRowScale), b0)
		c.TESTQ(b0, b0)
		c.JE(operand.LabelRef(label + "plain"))
		for i := range mr {
			c.VBROADCASTSS(operand.Mem{Base: b0, Disp: 4 * i}, x)
			for j := range nv {
				c.VMULPS(x, sum(i, j), sum(i, j))
			}
		}
		c.ADDQ(operand.U8(4*mr), b0)
		c.MOVQ(b0, arg.Offset(prodRowScale))
		c.Label(label + "plain")
		c.CMPQ(arg.Offset(prodAccumulate), operand.U8(0))
		c.JE(operand.LabelRef(label + "store"))
		c.MOVQ(at, b0)
		for i := range mr {
			for j := range nv {
				m := operand.Mem{Base: b0, Disp: 64 * j}
				if j == nv-1 {
					c.VMOVUPS_Z(m, reg.K1, x)
					c.VADDPS(x, sum(i, j), sum(i, j))
				} else {
					c.VADDPS(m, sum(i, j), sum(i, j))
				}
			}
			c.ADDQ(ldc, b0)
		}
		c.Label(label + "store")
		for i := range mr {
			for j := range nv {
				m := operand.Mem{Base: at, Disp: 64 * j}
				if j == nv-1 {
					c.VMOVUPS(sum(i, j), reg.K1, m)
				} else {
					c.VMOVUPS(sum(i, j), m)
				}
			}
			c.ADDQ(ldc, at)
		}
		// The first row of the next tile: back over k, down by mr rows.
		c.MOVQ(arg.Offset(prodK), k)
		c.IMULQ(stepA, k)
		c.SUBQ(k, base[0])
		c.IMUL3Q(operand.U8(mr), rowA, k)
		c.ADDQ(k, base[0])
		c.SUBQ(operand.U8(mr), arg.Offset(prodM))
		c.JMP(operand.LabelRef(label))
	}
	c.Label("done")
	end(c)
}

// transpose writes dst (cols, rows) = srcᵀ in blocks of 16 × 16. Rows of dst are written in whole vectors: where rows is no
// multiple of 16 the rest of the last holds copies of the last row of src.
func transpose(c *build.Context) {
	function(c, "transposeAVX512", "func(dst, src *float32, rows, cols, rowDst, rowSrc int)",
		"writes the transpose of src to dst, whose rows are filled up to a multiple of 16; strides are in bytes.")
	dst, src, rows, cols, rowDst, rowSrc := reg.RDI, reg.RSI, reg.RBX, reg.RCX, reg.R8, reg.R9
	load(c, []string{"dst", "src", "rows", "cols", "rowDst", "rowSrc"}, []reg.Register{dst, src, rows, cols, rowDst, rowSrc})
	colsLeft, from, to, next, p := reg.R10, reg.R11, reg.R12, reg.R13, reg.RAX
	c.Label("rows16")
	c.MOVQ(cols, colsLeft)
	c.MOVQ(src, from)
	c.MOVQ(dst, to)
	c.Label("cols16")
	c.MOVQ(operand.I32(-1), reg.R15)
	c.CMPQ(colsLeft, operand.U8(16))
	c.JGE(operand.LabelRef("whole"))
	c.BZHIQ(colsLeft, reg.R15, reg.R15)
	c.Label("whole")
	c.KMOVW(reg.R15L, reg.K1)
	c.MOVQ(from, p)
	for r := range 16 {
		c.VMOVUPS_Z(operand.Mem{Base: p}, reg.K1, z[r])
		if r < 15 {
			c.LEAQ(mem(p, rowSrc), next)
			c.CMPQ(rows, operand.U8(r+1))
			c.CMOVQGT(next, p)
		}
	}
	for i := 0; i < 16; i += 2 { // pairs of rows: columns alternate
		c.VUNPCKLPS(z[i+1], z[i], z[16+i])
		c.VUNPCKHPS(z[i+1], z[i], z[17+i])
	}
	for g := 0; g < 16; g += 4 { // fours: register g+j has columns j, 4+j, 8+j, 12+j of rows g to g+3
		c.VUNPCKLPD(z[16+g+2], z[16+g], z[g])
		c.VUNPCKHPD(z[16+g+2], z[16+g], z[g+1])
		c.VUNPCKLPD(z[16+g+3], z[16+g+1], z[g+2])
		c.VUNPCKHPD(z[16+g+3], z[16+g+1], z[g+3])
	}
	even, odd := operand.U8(0x88), operand.U8(0xdd)
	for j := range 4 { // eights: lanes 0 and 2, then 1 and 3, of two fours
		c.VSHUFF32X4(even, z[4+j], z[j], z[16+j])
		c.VSHUFF32X4(odd, z[4+j], z[j], z[20+j])
		c.VSHUFF32X4(even, z[12+j], z[8+j], z[24+j])
		c.VSHUFF32X4(odd, z[12+j], z[8+j], z[28+j])
	}
	for j := range 4 {
		c.VSHUFF32X4(even, z[24+j], z[16+j], z[j])
		c.VSHUFF32X4(odd, z[24+j], z[16+j], z[8+j])
		c.VSHUFF32X4(even, z[28+j], z[20+j], z[4+j])
		c.VSHUFF32X4(odd, z[28+j], z[20+j], z[12+j])
	}
	for j := range 16 {
		c.VMOVUPS(z[j], operand.Mem{Base: to})
		c.ADDQ(rowDst, to)
		if j < 15 {
			c.CMPQ(colsLeft, operand.U8(j+1))
			c.JLE(operand.LabelRef("nextRows"))
		}
	}
	c.ADDQ(operand.U8(64), from)
	c.SUBQ(operand.U8(16), colsLeft)
	c.JG(operand.LabelRef("cols16"))
	c.Label("nextRows")
	c.ADDQ(operand.U8(64), dst)
	c.MOVQ(rowSrc, p)
	c.SHLQ(operand.U8(4), p)
	c.ADDQ(p, src)
	c.SUBQ(operand.U8(16), rows)
	c.JG(operand.LabelRef("rows16"))
	end(c)
}

// softmaxForward turns rows of scores into exp(scale·(s - max s)) of the keys they see and zeros up to the width of the block.
func softmaxForward(c *vector) {
	c.function("softmaxForward", "func(p *byte)", "turns rows of scores into weights that lack the division by their sum, as softmaxArgs says.")
	s, rows, stride, seen, width, top, sum := reg.RSI, reg.RBX, reg.R8, reg.R9, reg.R10, reg.R11, reg.R12
	off, n, left, arg := reg.RAX, reg.RCX, reg.RDX, operand.Mem{Base: reg.RDI}
	c.Load(c.Param("p"), reg.RDI)
	for _, f := range []struct {
		offset int
		to     reg.Register
	}{{softS, s}, {softRows, rows}, {softRowS, stride}, {softSeen, seen}, {softWidth, width}, {softTop, top}, {softSum, sum}} {
		c.MOVQ(arg.Offset(f.offset), f.to)
	}
	r := expConstants(c)
	c.VBROADCASTSS(arg.Offset(softScale), z[10])
	c.constant(math.Inf(-1), z[11])
	c.zero(z[12])
	c.Label("row")
	c.VMOVAPS(z[11], z[0])
	c.MOVQ(seen, n)
	each(c, "max", n, off, func(masked bool) {
		if masked {
			c.VMAXPS(mem(s, off), z[0], reg.K1, z[0])
		} else {
			c.VMAXPS(mem(s, off), z[0], z[0])
		}
	})
	c.across(c.VMAXPS, 0, 1)
	c.VMULPS(z[10], z[0], z[0])
	c.VMOVSS(c.lowest(z[0]), operand.Mem{Base: top})
	c.zero(z[5])
	c.MOVQ(seen, n)
	c.MOVQ(width, left)
	each(c, "exp", n, off, func(masked bool) {
		get(c, mem(s, off), z[1], masked)
		c.VFMSUB213PS(z[0], z[10], z[1])
		exp(c, r, 1, 3, 2)
		if masked {
			c.VMOVAPS_Z(z[3], reg.K1, z[3])
			c.VADDPS(z[3], z[5], z[5])
			storeUpTo(c, "exp", z[3], mem(s, off), left)
			c.ADDQ(operand.U8(c.bytes()), off)
		} else {
			c.VADDPS(z[3], z[5], z[5])
			c.store(z[3], nil, mem(s, off))
		}
		c.SUBQ(operand.U8(c.lanes), left)
	})
	c.Label("zero")
	c.CMPQ(left, operand.U8(0))
	c.JLE(operand.LabelRef("filled"))
	storeUpTo(c, "zero", z[12], mem(s, off), left)
	c.ADDQ(operand.U8(c.bytes()), off)
	c.SUBQ(operand.U8(c.lanes), left)
	c.JMP(operand.LabelRef("zero"))
	c.Label("filled")
	c.across(c.VADDPS, 5, 1)
	c.VMOVSS(c.lowest(z[5]), operand.Mem{Base: sum})
	c.ADDQ(operand.U8(4), top)
	c.ADDQ(operand.U8(4), sum)
	c.ADDQ(arg.Offset(softStep), seen)
	c.ADDQ(stride, s)
	c.DECQ(rows)
	c.JNE(operand.LabelRef("row"))
	end(c.Context)
}

// storeUpTo stores the first min(left, lanes) lanes of v; left is above 0. It spoils R15 and K2.
func storeUpTo(c *vector, label string, v reg.VecPhysical, m operand.Mem, left reg.GPPhysical) {
	c.firstLanes(label, left, reg.K2)
	c.store(v, reg.K2, m)
}

// softmaxBackward turns rows of scores into probabilities and rows of their gradients into those of the scores.
func softmaxBackward(c *vector) {
	c.function("softmaxBackward", "func(p *byte)", "turns scores into probabilities P and their gradients dP into scale·P∘(dP - dO·O), as softmaxArgs says.")
	s, dp, rows, stride, seen, width, lse, out, dout := reg.RSI, reg.RDX, reg.RBX, reg.R8, reg.R9, reg.R10, reg.R11, reg.R12, reg.R13
	off, n, left, arg := reg.RAX, reg.RCX, reg.R14, operand.Mem{Base: reg.RDI}
	c.Load(c.Param("p"), reg.RDI)
	for _, f := range []struct {
		offset int
		to     reg.Register
	}{{softS, s}, {softDP, dp}, {softRows, rows}, {softRowS, stride}, {softSeen, seen}, {softWidth, width}, {softTop, lse}, {softOut, out}, {softDOut, dout}} {
		c.MOVQ(arg.Offset(f.offset), f.to)
	}
	r := expConstants(c)
	c.VBROADCASTSS(arg.Offset(softScale), z[10])
	c.zero(z[12])
	c.Label("row")
	c.zero(z[5])
	c.MOVQ(arg.Offset(softDim), n)
	each(c, "delta", n, off, func(masked bool) {
		get(c, mem(out, off), z[1], masked)
		get(c, mem(dout, off), z[2], masked)
		c.VFMADD231PS(z[2], z[1], z[5])
	})
	c.across(c.VADDPS, 5, 1)
	c.VBROADCASTSS(operand.Mem{Base: lse}, z[6])
	c.MOVQ(seen, n)
	c.MOVQ(width, left)
	each(c, "exp", n, off, func(masked bool) {
		get(c, mem(s, off), z[1], masked)
		get(c, mem(dp, off), z[4], masked)
		c.VFMSUB213PS(z[6], z[10], z[1])
		exp(c, r, 1, 3, 2)
		c.VSUBPS(z[5], z[4], z[4])
		c.VMULPS(z[3], z[4], z[4])
		c.VMULPS(z[10], z[4], z[4])
		if masked {
			c.VMOVAPS_Z(z[3], reg.K1, z[3])
			c.VMOVAPS_Z(z[4], reg.K1, z[4])
			storeUpTo(c, "exp", z[3], mem(s, off), left)
			c.store(z[4], reg.K2, mem(dp, off))
			c.ADDQ(operand.U8(c.bytes()), off)
		} else {
			c.store(z[3], nil, mem(s, off))
			c.store(z[4], nil, mem(dp, off))
		}
		c.SUBQ(operand.U8(c.lanes), left)
	})
	c.Label("zero")
	c.CMPQ(left, operand.U8(0))
	c.JLE(operand.LabelRef("filled"))
	storeUpTo(c, "zero", z[12], mem(s, off), left)
	c.store(z[12], reg.K2, mem(dp, off))
	c.ADDQ(operand.U8(c.bytes()), off)
	c.SUBQ(operand.U8(c.lanes), left)
	c.JMP(operand.LabelRef("zero"))
	c.Label("filled")
	c.ADDQ(operand.U8(4), lse)
	c.ADDQ(arg.Offset(softRowOut), out)
	c.ADDQ(arg.Offset(softRowOut), dout)
	c.ADDQ(arg.Offset(softStep), seen)
	c.ADDQ(stride, s)
	c.ADDQ(stride, dp)
	c.DECQ(rows)
	c.JNE(operand.LabelRef("row"))
	end(c.Context)
}

// softmaxFinish writes lse = top + log sum and inverse = 1/sum. The logarithm is Cephes' logf, with an error of about 1e-7;
// sum is normal or NaN here.
func softmaxFinish(b *build.Context) {
	c := atWidth(b, 16)
	c.function("softmaxFinish", "func(lse, inverse, sum *float32, n int)", "adds log sum to lse and sets inverse = 1/sum, which may be sum.")
	lse, inverse, sum, n, off := reg.RDI, reg.RSI, reg.RDX, reg.RCX, reg.RAX
	load(b, []string{"lse", "inverse", "sum", "n"}, []reg.Register{lse, inverse, sum, n})
	poly := []float64{7.0376836292e-2, -1.1514610310e-1, 1.1676998740e-1, -1.2420140846e-1, 1.4249322787e-1, -1.6668057665e-1, 2.0000714765e-1, -2.4999993993e-1, 3.3333331174e-1}
	for i, v := range poly {
		c.constant(v, z[16+i])
	}
	one, half, root2, ln2lo, ln2hi := z[31], z[30], z[29], z[28], z[27]
	c.constant(1, one)
	c.constant(0.5, half)
	c.constant(math.Sqrt2, root2)
	c.constant(-2.12194440e-4, ln2lo)
	c.constant(0.693359375, ln2hi)
	each(c, "finish", n, off, func(masked bool) {
		if masked {
			c.VMOVAPS(one, z[0])
			c.VMOVUPS(mem(sum, off), reg.K1, z[0])
		} else {
			c.VMOVUPS(mem(sum, off), z[0])
		}
		c.VDIVPS(z[0], one, z[1])
		put(c, z[1], mem(inverse, off), masked)
		c.VGETEXPPS(z[0], z[2])
		c.VGETMANTPS(operand.U8(0), z[0], z[3])         // in [1, 2)
		c.VCMPPS(operand.U8(0x1e), root2, z[3], reg.K2) // above √2: half of it, times 2
		c.VMULPS(half, z[3], reg.K2, z[3])
		c.VADDPS(one, z[2], reg.K2, z[2])
		c.VSUBPS(one, z[3], z[3])
		c.VMULPS(z[3], z[3], z[4])
		c.VMOVAPS(z[16], z[5])
		for i := 1; i < len(poly); i++ {
			c.VFMADD213PS(z[16+i], z[3], z[5])
		}
		c.VMULPS(z[3], z[5], z[5])
		c.VMULPS(z[4], z[5], z[5])
		c.VFMADD231PS(ln2lo, z[2], z[5])
		c.VFNMADD231PS(half, z[4], z[5])
		c.VADDPS(z[5], z[3], z[3])
		c.VFMADD231PS(ln2hi, z[2], z[3])
		get(c, mem(lse, off), z[0], masked)
		c.VADDPS(z[3], z[0], z[0])
		put(c, z[0], mem(lse, off), masked)
	})
	end(b)
}

// prefetch asks for rows of memory that are needed soon.
func prefetch(c *build.Context) {
	function(c, "prefetchRows", "func(p *byte, rows, bytes, stride int)", "fetches rows of memory, stride bytes apart, into the second-level cache.")
	p, rows, bytes, stride, off := reg.RDI, reg.RBX, reg.RCX, reg.R8, reg.RAX
	load(c, []string{"p", "rows", "bytes", "stride"}, []reg.Register{p, rows, bytes, stride})
	c.Label("row")
	c.XORQ(off, off)
	c.Label("line")
	c.PREFETCHT1(mem(p, off))
	c.ADDQ(operand.U8(64), off)
	c.CMPQ(off, bytes)
	c.JLT(operand.LabelRef("line"))
	c.ADDQ(stride, p)
	c.DECQ(rows)
	c.JNE(operand.LabelRef("row"))
	c.RET()
}
