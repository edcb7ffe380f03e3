package main

import (
	"fmt"

	"github.com/mmcloughlin/avo/attr"
	"github.com/mmcloughlin/avo/build"
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// y are the 256-bit registers by number.
var y = [16]reg.VecPhysical{reg.Y0, reg.Y1, reg.Y2, reg.Y3, reg.Y4, reg.Y5, reg.Y6, reg.Y7, reg.Y8, reg.Y9, reg.Y10, reg.Y11,
	reg.Y12, reg.Y13, reg.Y14, reg.Y15}

// tileRowsAVX2 are the heights of the tiles of AVX2; gemm_avx2_amd64.go cuts any number of rows into these.
var tileRowsAVX2 = []int{6, 4, 2, 1}

// laneBits writes the table from which masks of two vectors are made: bit i in lane i.
func laneBits(c *build.Context) operand.Mem {
	bits := c.StaticGlobal("laneBits")
	c.DataAttributes(attr.RODATA | attr.NOPTR)
	for i := range 16 {
		c.AddDatum(4*i, operand.U32(1<<i))
	}
	return bits
}

// laneMask fills a vector with ones where the mask in memory has a bit: of bits 0 to 7, or 8 to 15 if second.
func laneMask(c *build.Context, bits, mask operand.Mem, second int, to reg.VecPhysical) {
	c.VPBROADCASTD(mask, to)
	c.VPAND(bits.Offset(32*second), to, to)
	c.VPCMPEQD(bits.Offset(32*second), to, to)
}

func gemmAVX2(c *build.Context) {
	bits := laneBits(c)
	for _, mr := range tileRowsAVX2 {
		tileAVX2(c, mr, false, bits)
		tileAVX2(c, mr, true, bits)
	}
	packTransposedAVX2(c)
	productAVX2(c, 1, []int{8, 4, 2, 1}, bits)
	productAVX2(c, 2, []int{6, 4, 2, 1}, bits)
}

// tileAVX2 is tile for AVX2: mr × 16, 6 × 16 taking 12 of the 16 registers for sums. B is always packed.
func tileAVX2(c *build.Context, mr int, byK bool, bits operand.Mem) {
	const nv = 2
	name, how := fmt.Sprintf("tile%dx16AVX2", mr), "row by row"
	if byK {
		name, how = fmt.Sprintf("tile%dx16ByKAVX2", mr), "as columns"
	}
	function(c, name, "func(p *byte)", fmt.Sprintf("computes a tile of C of up to (%d, 16) as gemmArgs says, reading A %s.", mr, how))
	k, b, ldc, at, lda, ldb, cpf := reg.RAX, reg.RBX, reg.RCX, reg.RDX, reg.RSI, reg.RDI, reg.R9
	base := []reg.Register{reg.R8, reg.R10}
	p := operand.Mem{Base: reg.R15}
	c.Load(c.Param("p"), reg.R15)
	c.MOVQ(p.Offset(argK), k)
	c.MOVQ(p.Offset(argA), base[0])
	c.MOVQ(p.Offset(argB), b)
	c.MOVQ(p.Offset(argC), cpf)
	c.MOVQ(p.Offset(argLDC), ldc)
	c.MOVQ(p.Offset(argLDA), lda)
	c.MOVQ(p.Offset(argLDB), ldb)
	sum := func(i, j int) reg.VecPhysical { return y[i*nv+j] }
	bases := 1
	if !byK {
		bases = (mr + 2) / 3
		for i := 1; i < bases; i++ {
			c.LEAQ(operand.Mem{Base: base[i-1], Index: lda, Scale: 2}, base[i])
			c.ADDQ(lda, base[i])
		}
	}
	for i := range mr * nv {
		c.VXORPS(y[i], y[i], y[i])
	}
	multiply := func(u int) {
		for j := range nv {
			c.VMOVUPS(operand.Mem{Base: b, Disp: 32 * j}, y[12+j])
		}
		c.PREFETCHT0(operand.Mem{Base: b, Index: ldb, Scale: 8})
		c.ADDQ(ldb, b)
		for i := range mr {
			m := operand.Mem{Base: base[0], Disp: 4 * i}
			if !byK {
				m = operand.Mem{Base: base[i/3], Disp: 4 * u}
				if i%3 > 0 {
					m.Index, m.Scale = lda, uint8(i%3)
				}
			}
			c.VBROADCASTSS(m, y[14+i%2])
			for j := range nv {
				c.VFMADD231PS(y[12+j], y[14+i%2], sum(i, j))
			}
		}
		if byK {
			c.ADDQ(lda, base[0])
		}
	}
	advance := func(bytes int) {
		for i := 0; !byK && i < bases; i++ {
			c.ADDQ(operand.U8(bytes), base[i])
		}
	}
	c.SUBQ(operand.U8(4), k)
	c.JLT(operand.LabelRef("rest"))
	align(c, 64)
	c.Label("loop")
	for u := range 4 {
		multiply(u)
	}
	advance(16)
	c.CMPQ(k, operand.U8(4*(mr+1))) // C is wanted at the end
	c.JGT(operand.LabelRef("early"))
	c.PREFETCHT0(operand.Mem{Base: cpf})
	c.ADDQ(ldc, cpf)
	c.Label("early")
	c.SUBQ(operand.U8(4), k)
	c.JGE(operand.LabelRef("loop"))
	c.Label("rest")
	c.ADDQ(operand.U8(4), k)
	c.JE(operand.LabelRef("done"))
	c.Label("loop1")
	multiply(0)
	advance(4)
	c.DECQ(k)
	c.JNE(operand.LabelRef("loop1"))
	c.Label("done")

	// Scale, add what was there, the bias and the residual, in this order, and store.
	x := y[14]
	c.MOVL(p.Offset(argScale), reg.EAX)
	c.CMPL(reg.EAX, operand.U32(0x3f800000))
	c.JE(operand.LabelRef("one"))
	c.VBROADCASTSS(p.Offset(argScale), x)
	for i := range mr * nv {
		c.VMULPS(x, y[i], y[i])
	}
	c.Label("one")
	c.CMPQ(p.Offset(argMask), operand.U32(0xffff))
	c.JNE(operand.LabelRef("partMask"))
	for _, part := range []string{"", "part"} {
		if part != "" {
			c.Label("partMask")
			laneMask(c, bits, p.Offset(argMask), 0, y[12])
			laneMask(c, bits, p.Offset(argMask), 1, y[13])
		}
		fetch := func(j int) {
			m := operand.Mem{Base: at, Disp: 32 * j}
			if part == "" {
				c.VMOVUPS(m, x)
			} else {
				c.VMASKMOVPS(m, y[12+j], x)
			}
		}
		addMatrix := func(skip string) {
			for i := range mr {
				for j := range nv {
					fetch(j)
					c.VADDPS(x, sum(i, j), sum(i, j))
				}
				if i < mr-1 {
					c.ADDQ(ldc, at)
				}
			}
			c.Label(skip)
		}
		c.CMPQ(p.Offset(argAccumulate), operand.U8(0))
		c.JE(operand.LabelRef(part + "fresh"))
		c.MOVQ(p.Offset(argC), at)
		addMatrix(part + "fresh")
		c.MOVQ(p.Offset(argBias), at)
		c.TESTQ(at, at)
		c.JE(operand.LabelRef(part + "nobias"))
		for j := range nv {
			fetch(j)
			for i := range mr {
				c.VADDPS(x, sum(i, j), sum(i, j))
			}
		}
		c.Label(part + "nobias")
		c.MOVQ(p.Offset(argResidual), at)
		c.TESTQ(at, at)
		c.JE(operand.LabelRef(part + "store"))
		addMatrix(part + "store")
		c.MOVQ(p.Offset(argC), at)
		for i := range mr {
			for j := range nv {
				m := operand.Mem{Base: at, Disp: 32 * j}
				if part == "" {
					c.VMOVUPS(sum(i, j), m)
				} else {
					c.VMASKMOVPS(sum(i, j), y[12+j], m)
				}
			}
			if i < mr-1 {
				c.ADDQ(ldc, at)
			}
		}
		end(c)
	}
}

// transpose8 transposes the 8 × 8 block in y[0:8], using y[8:16]: by pairs, by fours, then halves.
func transpose8(c *build.Context) {
	for i := 0; i < 8; i += 2 {
		c.VUNPCKLPS(y[i+1], y[i], y[8+i])
		c.VUNPCKHPS(y[i+1], y[i], y[9+i])
	}
	for g := 0; g < 8; g += 4 {
		c.VUNPCKLPD(y[8+g+2], y[8+g], y[g])
		c.VUNPCKHPD(y[8+g+2], y[8+g], y[g+1])
		c.VUNPCKLPD(y[8+g+3], y[8+g+1], y[g+2])
		c.VUNPCKHPD(y[8+g+3], y[8+g+1], y[g+3])
	}
	// Half L of y[g+n] now holds rows g … g+3 of column 4L+n.
	for n := range 4 {
		c.VPERM2F128(operand.U8(0x20), y[4+n], y[n], y[8+n])
		c.VPERM2F128(operand.U8(0x31), y[4+n], y[n], y[12+n])
	}
}

// packTransposedAVX2 writes dst[k·stride + i] = rows[i][k] for 8 rows and k, a multiple of 8.
func packTransposedAVX2(c *build.Context) {
	function(c, "packTransposedAVX2", "func(rows *[16]*float32, k int, dst *float32, stride int)",
		"turns the first 8 rows of k > 0 floats, a multiple of 8, into k rows of 8, stride bytes apart.")
	rows, k, dst, stride, off := reg.RDI, reg.RAX, reg.RSI, reg.RBX, reg.RDX
	load(c, []string{"rows", "k", "dst", "stride"}, []reg.Register{rows, k, dst, stride})
	c.XORQ(off, off)
	c.Label("loop")
	for i := range 8 {
		c.MOVQ(operand.Mem{Base: rows, Disp: 8 * i}, reg.R8)
		c.VMOVUPS(operand.Mem{Base: reg.R8, Index: off, Scale: 1}, y[i])
	}
	transpose8(c)
	for i := range 8 {
		c.VMOVUPS(y[8+i], operand.Mem{Base: dst})
		c.ADDQ(stride, dst)
	}
	c.ADDQ(operand.U8(32), off)
	c.SUBQ(operand.U8(8), k)
	c.JNE(operand.LabelRef("loop"))
	end(c)
}

// productAVX2 is product for AVX2, with tiles of the given heights.
func productAVX2(c *build.Context, nv int, tiles []int, bits operand.Mem) {
	function(c, fmt.Sprintf("product%dAVX2", nv), "func(p *byte)", fmt.Sprintf("computes all rows and up to %d columns of C as productArgs says.", 8*nv))
	k, b, ldb, at, ldc, rowA, stepA := reg.RAX, reg.RBX, reg.RCX, reg.RDX, reg.RSI, reg.RDI, reg.R8
	base := []reg.GPPhysical{reg.R9, reg.R10, reg.R11}
	arg, mask := operand.Mem{Base: reg.R15}, y[15]
	c.Load(c.Param("p"), reg.R15)
	c.MOVQ(arg.Offset(prodA), base[0])
	c.MOVQ(arg.Offset(prodC), at)
	c.MOVQ(arg.Offset(prodRowB), ldb)
	c.MOVQ(arg.Offset(prodRowC), ldc)
	c.MOVQ(arg.Offset(prodRowA), rowA)
	c.MOVQ(arg.Offset(prodStepA), stepA)
	laneMask(c, bits, arg.Offset(prodMask), 0, mask)
	for t, mr := range tiles {
		label := fmt.Sprintf("rows%d", mr)
		sum := func(i, j int) reg.VecPhysical { return y[i*nv+j] }
		x := y[14]
		bases := (mr + 2) / 3
		c.Label(label)
		c.CMPQ(arg.Offset(prodM), operand.U8(mr))
		next := "done"
		if t+1 < len(tiles) {
			next = fmt.Sprintf("rows%d", tiles[t+1])
		}
		c.JLT(operand.LabelRef(next))
		for i := 1; i < bases; i++ {
			c.LEAQ(operand.Mem{Base: base[i-1], Index: rowA, Scale: 2}, base[i])
			c.ADDQ(rowA, base[i])
		}
		for i := range mr * nv {
			c.VXORPS(y[i], y[i], y[i])
		}
		c.MOVQ(arg.Offset(prodB), b)
		c.MOVQ(arg.Offset(prodK), k)
		align(c, 32)
		c.Label(label + "k")
		for j := range nv {
			m := operand.Mem{Base: b, Disp: 32 * j}
			if j == nv-1 {
				c.VMASKMOVPS(m, mask, y[12+j])
			} else {
				c.VMOVUPS(m, y[12+j])
			}
		}
		for i := range mr {
			m := operand.Mem{Base: base[i/3]}
			if i%3 > 0 {
				m.Index, m.Scale = rowA, uint8(i%3)
			}
			c.VBROADCASTSS(m, x)
			for j := range nv {
				c.VFMADD231PS(y[12+j], x, sum(i, j))
			}
		}
		for i := range bases {
			c.ADDQ(stepA, base[i])
		}
		c.ADDQ(ldb, b)
		c.DECQ(k)
		c.JNE(operand.LabelRef(label + "k"))

		// Scale the rows, add what was there, store.
		c.MOVQ(arg.Offset(prodRowScale), b)
		c.TESTQ(b, b)
		c.JE(operand.LabelRef(label + "plain"))
		for i := range mr {
			c.VBROADCASTSS(operand.Mem{Base: b, Disp: 4 * i}, x)
			for j := range nv {
				c.VMULPS(x, sum(i, j), sum(i, j))
			}
		}
		c.ADDQ(operand.U8(4*mr), b)
		c.MOVQ(b, arg.Offset(prodRowScale))
		c.Label(label + "plain")
		c.CMPQ(arg.Offset(prodAccumulate), operand.U8(0))
		c.JE(operand.LabelRef(label + "store"))
		c.MOVQ(at, b)
		for i := range mr {
			for j := range nv {
				m := operand.Mem{Base: b, Disp: 32 * j}
				if j == nv-1 {
					c.VMASKMOVPS(m, mask, x)
				} else {
					c.VMOVUPS(m, x)
				}
				c.VADDPS(x, sum(i, j), sum(i, j))
			}
			c.ADDQ(ldc, b)
		}
		c.Label(label + "store")
		c.CMPQ(arg.Offset(prodMask), operand.U32(0xff)) // stores under a mask are slow
		c.JNE(operand.LabelRef(label + "part"))
		for _, part := range []bool{false, true} {
			if part {
				c.Label(label + "part")
			}
			for i := range mr {
				for j := range nv {
					m := operand.Mem{Base: at, Disp: 32 * j}
					if part && j == nv-1 {
						c.VMASKMOVPS(sum(i, j), mask, m)
					} else {
						c.VMOVUPS(sum(i, j), m)
					}
				}
				c.ADDQ(ldc, at)
			}
			if !part {
				c.JMP(operand.LabelRef(label + "next"))
			}
		}
		// The first row of the next tile: back over k, down by mr rows.
		c.Label(label + "next")
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
