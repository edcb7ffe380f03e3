package main

import (
	"fmt"

	"github.com/mmcloughlin/avo/attr"
	"github.com/mmcloughlin/avo/build"
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// Offsets into gemmArgs (gemm_amd64.go).
const (
	argK          = 0
	argA          = 8
	argB          = 16
	argC          = 24
	argLDC        = 32
	argLDA        = 40
	argLDB        = 48
	argMask       = 56
	argBias       = 64
	argResidual   = 72
	argPrefetch   = 80
	argStep       = 88
	argFetch      = 96
	argAccumulate = 104
	argScale      = 112
)

// tileRows are the heights of the tiles; gemm_amd64.go cuts any number of rows into these.
var tileRows = []int{14, 8, 4, 2, 1}

func gemm(c *build.Context) {
	for _, mr := range tileRows {
		for nv := 2; nv >= 1; nv-- {
			tile(c, mr, nv, false, multiplyAdd)
			tile(c, mr, nv, true, multiplyAdd)
		}
	}
	packTransposed(c)
	packRows(c, 1)
	packRows(c, 2)
}

// multiplier is the instruction that adds products of lanes of a and b to c.
type multiplier struct {
	suffix string
	emit   func(c *build.Context, a, b, sum reg.VecPhysical)
}

var multiplyAdd = multiplier{"", func(c *build.Context, a, b, sum reg.VecPhysical) { c.VFMADD231PS(a, b, sum) }}

// tile writes the kernel of an mr × 16·nv tile of C. A is read where it lies: row by row (lda bytes apart), or, if byK, as
// columns of mr neighbours (lda bytes apart from one k to the next), which is how a packed or a transposed A lies. B gives
// one row of 16·nv floats for each k. All sums of the tile stay in registers, each one chain of fused
// multiply-adds over k, so an element has the same bits whatever tile it falls into.
//
// 14 × 32 takes 28 of the 32 registers for sums, two for B and two for broadcasts of A. The broadcast is an instruction of its
// own: as an operand of the multiply-add it would be loaded once for each vector.
//
// With products of pairs a 32-bit word of A and of B is a pair of bfloat16 of two k that follow each other.
func tile(c *build.Context, mr, nv int, byK bool, m multiplier) {
	name, how := fmt.Sprintf("tile%dx%d", mr, 16*nv), "row by row"
	if byK {
		name, how = name+"ByK", "as columns"
	}
	name += m.suffix
	c.Function(name)
	c.Attributes(attr.NOSPLIT)
	c.SignatureExpr("func(p *byte)")
	c.Pragma("noescape")
	c.Doc(fmt.Sprintf("%s computes a tile of C of up to (%d, %d) as gemmArgs says, reading A %s.", name, mr, 16*nv, how))

	k, b, ldc, cpf, lda, ldb, pf := reg.RAX, reg.RBX, reg.RCX, reg.RDX, reg.RSI, reg.RDI, reg.R9
	base := []reg.Register{reg.R8, reg.R10, reg.R11, reg.R12, reg.R13}
	p := operand.Mem{Base: reg.R15}
	c.Load(c.Param("p"), reg.R15)
	c.MOVQ(p.Offset(argK), k)
	c.MOVQ(p.Offset(argA), base[0])
	c.MOVQ(p.Offset(argB), b)
	c.MOVQ(p.Offset(argC), cpf)
	c.MOVQ(p.Offset(argLDC), ldc)
	c.MOVQ(p.Offset(argLDA), lda)
	c.MOVQ(p.Offset(argLDB), ldb)
	c.MOVQ(p.Offset(argPrefetch), pf)
	c.KMOVW(p.Offset(argMask), reg.K1)

	// also is where fetch lies, seen from C, or 0. R14 is the goroutine, which Go restores after assembly.
	also := reg.R14
	c.MOVQ(p.Offset(argFetch), also)
	c.TESTQ(also, also)
	c.CMOVQEQ(cpf, also)
	c.SUBQ(cpf, also)
	step := reg.R15
	c.MOVQ(p.Offset(argStep), step) // the last of p, which is loaded again at the end

	sum := func(i, j int) reg.VecPhysical { return z[i*nv+j] }
	bvec := func(j int) reg.VecPhysical { return z[32-nv+j] }
	sums := mr * nv
	broadcasts := min(4, 32-sums-nv)
	bases := 1
	if !byK {
		// x86 addresses reach rows 0, 1 and 2 from a base: base, base+lda, base+2·lda.
		bases = (mr + 2) / 3
		for i := 1; i < bases; i++ {
			c.LEAQ(operand.Mem{Base: base[i-1], Index: lda, Scale: 2}, base[i])
			c.ADDQ(lda, base[i])
		}
	}
	for i := range sums {
		c.VPXORD(z[i], z[i], z[i])
	}
	multiply := func(u int) {
		for j := range nv {
			if nv == 1 { // the narrow kernel reads unpacked B, so it must not read past the end
				c.VMOVUPS_Z(operand.Mem{Base: b}, reg.K1, bvec(j))
			} else {
				c.VMOVUPS(operand.Mem{Base: b, Disp: 64 * j}, bvec(j))
			}
			c.PREFETCHT0(operand.Mem{Base: b, Index: ldb, Scale: 8, Disp: 64 * j})
		}
		c.ADDQ(ldb, b)
		for i := range mr {
			at := operand.Mem{Base: base[0], Disp: 4 * i}
			if !byK {
				at = operand.Mem{Base: base[i/3], Disp: 4 * u}
				if i%3 > 0 {
					at.Index, at.Scale = lda, uint8(i%3)
				}
			}
			x := z[sums+i%broadcasts]
			c.VBROADCASTSS(at, x)
			for j := range nv {
				m.emit(c, bvec(j), x, sum(i, j))
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
		c.PREFETCHT1(operand.Mem{Base: pf})
		c.ADDQ(step, pf)
	}
	advance(16)
	// C is wanted at the end: fetched at the beginning it would be evicted again by the panels.
	c.CMPQ(k, operand.U8(4*(mr+1)))
	c.JGT(operand.LabelRef("early"))
	for j := range nv {
		c.PREFETCHT0(operand.Mem{Base: cpf, Disp: 64 * j})
		c.PREFETCHT0(operand.Mem{Base: cpf, Index: also, Scale: 1, Disp: 64 * j})
	}
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
	c.Load(c.Param("p"), reg.R15)
	finishTile(c, p, mr, nv)
}

// finishTile scales the sums, adds what was there, the bias and the residual, in this order, and stores: sums are in z[0:mr·nv].
func finishTile(c *build.Context, p operand.Mem, mr, nv int) {
	sum := func(i, j int) reg.VecPhysical { return z[i*nv+j] }
	x, at, ldc := z[31], reg.RDX, reg.RCX
	c.MOVL(p.Offset(argScale), reg.EAX)
	c.CMPL(reg.EAX, operand.U32(0x3f800000))
	c.JE(operand.LabelRef("one"))
	c.VBROADCASTSS(p.Offset(argScale), x)
	for i := range mr * nv {
		c.VMULPS(x, z[i], z[i])
	}
	c.Label("one")

	addMatrix := func(skip string) {
		for i := range mr {
			for j := range nv {
				m := operand.Mem{Base: at, Disp: 64 * j}
				if j == nv-1 {
					c.VMOVUPS_Z(m, reg.K1, x)
					c.VADDPS(x, sum(i, j), sum(i, j))
				} else {
					c.VADDPS(m, sum(i, j), sum(i, j))
				}
			}
			if i < mr-1 {
				c.ADDQ(ldc, at)
			}
		}
		c.Label(skip)
	}
	c.CMPQ(p.Offset(argAccumulate), operand.U8(0))
	c.JE(operand.LabelRef("fresh"))
	c.MOVQ(p.Offset(argC), at)
	addMatrix("fresh")

	c.MOVQ(p.Offset(argBias), at)
	c.TESTQ(at, at)
	c.JE(operand.LabelRef("nobias"))
	for j := range nv {
		m := operand.Mem{Base: at, Disp: 64 * j}
		if j == nv-1 {
			c.VMOVUPS_Z(m, reg.K1, x)
		} else {
			c.VMOVUPS(m, x)
		}
		for i := range mr {
			c.VADDPS(x, sum(i, j), sum(i, j))
		}
	}
	c.Label("nobias")
	c.MOVQ(p.Offset(argResidual), at)
	c.TESTQ(at, at)
	c.JE(operand.LabelRef("store"))
	addMatrix("store")

	c.MOVQ(p.Offset(argC), at)
	for i := range mr {
		for j := range nv {
			m := operand.Mem{Base: at, Disp: 64 * j}
			if j == nv-1 {
				c.VMOVUPS(sum(i, j), reg.K1, m)
			} else {
				c.VMOVUPS(sum(i, j), m)
			}
		}
		if i < mr-1 {
			c.ADDQ(ldc, at)
		}
	}
	c.VZEROUPPER()
	c.RET()
}

// transpose16 transposes the 16 × 16 block in z[0:16], using z[16:32]: by pairs, by fours, then lanes of four.
func transpose16(c *build.Context) {
	for i := 0; i < 16; i += 2 {
		c.VUNPCKLPS(z[i+1], z[i], z[16+i])
		c.VUNPCKHPS(z[i+1], z[i], z[17+i])
	}
	for g := 0; g < 16; g += 4 {
		c.VUNPCKLPD(z[16+g+2], z[16+g], z[g])
		c.VUNPCKHPD(z[16+g+2], z[16+g], z[g+1])
		c.VUNPCKLPD(z[16+g+3], z[16+g+1], z[g+2])
		c.VUNPCKHPD(z[16+g+3], z[16+g+1], z[g+3])
	}
	// Lane L of z[g+n] now holds rows g … g+3 of column 4L+n.
	const even, odd = operand.U8(0x88), operand.U8(0xdd)
	for n := range 4 {
		c.VSHUFF32X4(even, z[4+n], z[n], z[16+n])
		c.VSHUFF32X4(odd, z[4+n], z[n], z[20+n])
		c.VSHUFF32X4(even, z[12+n], z[8+n], z[24+n])
		c.VSHUFF32X4(odd, z[12+n], z[8+n], z[28+n])
	}
	for n := range 4 {
		c.VSHUFF32X4(even, z[24+n], z[16+n], z[n])
		c.VSHUFF32X4(odd, z[24+n], z[16+n], z[8+n])
		c.VSHUFF32X4(even, z[28+n], z[20+n], z[4+n])
		c.VSHUFF32X4(odd, z[28+n], z[20+n], z[12+n])
	}
}

// packTransposed writes dst[k·stride + i] = rows[i][k] for 16 rows.
func packTransposed(c *build.Context) {
	c.Function("packTransposed")
	c.Attributes(attr.NOSPLIT)
	c.SignatureExpr("func(rows *[16]*float32, k int, dst *float32, stride int)")
	c.Pragma("noescape")
	c.Doc("packTransposed turns 16 rows of k floats into k rows of 16, stride bytes apart.")
	rows, k, dst, stride, off := reg.RDI, reg.RAX, reg.RSI, reg.RBX, reg.RDX
	c.Load(c.Param("rows"), rows)
	c.Load(c.Param("k"), k)
	c.Load(c.Param("dst"), dst)
	c.Load(c.Param("stride"), stride)
	c.XORQ(off, off)
	c.Label("loop")
	c.CMPQ(k, operand.U8(16))
	c.JLT(operand.LabelRef("rest"))
	for i := range 16 {
		c.MOVQ(operand.Mem{Base: rows, Disp: 8 * i}, reg.R8)
		c.VMOVUPS(operand.Mem{Base: reg.R8, Index: off, Scale: 1}, z[i])
	}
	transpose16(c)
	for i := range 16 {
		c.VMOVUPS(z[i], operand.Mem{Base: dst})
		c.ADDQ(stride, dst)
	}
	c.ADDQ(operand.U8(64), off)
	c.SUBQ(operand.U8(16), k)
	c.JMP(operand.LabelRef("loop"))
	c.Label("rest")
	c.TESTQ(k, k)
	c.JE(operand.LabelRef("end"))
	c.MOVQ(k, reg.RCX)
	c.MOVQ(operand.U32(1), reg.R9)
	c.SHLQ(reg.CL, reg.R9)
	c.DECQ(reg.R9)
	c.KMOVW(reg.R9.As32(), reg.K1)
	for i := range 16 {
		c.MOVQ(operand.Mem{Base: rows, Disp: 8 * i}, reg.R8)
		c.VMOVUPS_Z(operand.Mem{Base: reg.R8, Index: off, Scale: 1}, reg.K1, z[i])
	}
	transpose16(c)
	for i := range 15 {
		c.VMOVUPS(z[i], operand.Mem{Base: dst})
		c.ADDQ(stride, dst)
		c.DECQ(k)
		c.JE(operand.LabelRef("end"))
	}
	c.Label("end")
	c.VZEROUPPER()
	c.RET()
}

// packRows copies rows of some panels of up to 16·nv floats; a panel gets whole vectors, zeros past the mask of its last one.
func packRows(c *build.Context, nv int) {
	function(c, fmt.Sprintf("packRows%d", 16*nv), packRowsOf("float32"), fmt.Sprintf(
		"copies k > 0 rows of n > 0 panels of up to %d floats, the last 16 of them under mask"+packRowsHow, 16*nv))
	p := loadPackRows(c)
	c.Label("row")
	p.panels(c, "", func(src, dst operand.Mem) {
		for j := range nv {
			m := src
			m.Disp = 64 * j
			c.PREFETCHT1(operand.Mem{Base: src.Base, Index: p.ahead, Scale: 1, Disp: 64*j + 52})
			if j == nv-1 {
				c.VMOVUPS_Z(m, reg.K1, z[j])
			} else {
				c.VMOVUPS(m, z[j])
			}
		}
		for j := range nv {
			dst.Disp = 64 * j
			c.VMOVUPS(z[j], dst)
		}
	})
	c.ADDQ(p.lds, p.src)
	c.DECQ(p.k)
	c.JNE(operand.LabelRef("row"))
	end(c)
}

// packing is what the kernels packRows have in registers: their parameters and, in a row, the panel read, the panel written and
// how many are left.
type packing struct {
	k, src, lds, ahead, dst, stride, n, step, from, to, left reg.GPPhysical
}

// packRowsHow ends their descriptions.
const packRowsHow = `.
// Rows are lds bytes apart in src, stride bytes in a panel of dst; in a row of src panels begin stride bytes apart, in dst step
// bytes. What lies ahead bytes further is fetched.`

// packRowsOf is the signature of the one that reads elements.
func packRowsOf(element string) string {
	return "func(k int, src *" + element + ", lds, ahead int, dst *float32, stride, n, step int, mask uint64)"
}

// loadPackRows loads the parameters, and the mask into K1.
func loadPackRows(c *build.Context) *packing {
	p := &packing{reg.RAX, reg.RSI, reg.RBX, reg.R8, reg.RDI, reg.RDX, reg.R9, reg.R10, reg.R11, reg.R12, reg.R13}
	load(c, []string{"k", "src", "lds", "ahead", "dst", "stride", "n", "step", "mask"},
		[]reg.Register{p.k, p.src, p.lds, p.ahead, p.dst, p.stride, p.n, p.step, p.from})
	c.KMOVW(p.from.As32(), reg.K1)
	return p
}

// panels writes what packs a row of one panel for all panels, and goes on to the next row of dst.
func (p *packing) panels(c *build.Context, label string, one func(src, dst operand.Mem)) {
	c.MOVQ(p.src, p.from)
	c.MOVQ(p.dst, p.to)
	c.MOVQ(p.n, p.left)
	c.Label("panel" + label)
	one(operand.Mem{Base: p.from}, operand.Mem{Base: p.to})
	c.ADDQ(p.stride, p.from)
	c.ADDQ(p.step, p.to)
	c.DECQ(p.left)
	c.JNE(operand.LabelRef("panel" + label))
	c.ADDQ(p.stride, p.dst)
}
