package main

import (
	"fmt"

	"github.com/mmcloughlin/avo/attr"
	"github.com/mmcloughlin/avo/build"
	"github.com/mmcloughlin/avo/ir"
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// multiplyPairs adds to each lane of sum the two products of the pairs of bfloat16 in a and b.
var multiplyPairs = multiplier{"BF16", vdpbf16ps}

// bf16 writes the matrix product of bfloat16, for processors with AVX512_BF16. Everything is packed in words that are pairs.
func bf16(c *build.Context) {
	for _, mr := range tileRows {
		for nv := 2; nv >= 1; nv-- {
			tile(c, mr, nv, true, multiplyPairs)
		}
	}
	interleave := c.StaticGlobal("interleave") // words 0, 16, 1, 17, …: from two halves to pairs
	c.DataAttributes(attr.RODATA | attr.NOPTR)
	for i := range 16 {
		c.AddDatum(4*i, operand.U32(uint32(16+i)<<16|uint32(i)))
	}
	packTransposedBF16(c)
	for nv := 1; nv <= 2; nv++ {
		packRowsBF16(c, nv, interleave, false)
		packRowsBF16(c, nv, interleave, true)
	}
	for nv := 1; nv <= 4; nv++ {
		product(c, nv, multiplyPairs)
	}
	roundRows(c)
}

// raw writes an instruction that neither avo nor Go's assembler knows: its six bytes, and what they mean.
func raw(c *build.Context, bytes [6]byte, meaning string) {
	c.Comment(meaning)
	word := uint32(bytes[0]) | uint32(bytes[1])<<8 | uint32(bytes[2])<<16 | uint32(bytes[3])<<24
	c.Instruction(&ir.Instruction{Opcode: "LONG", Operands: []operand.Op{operand.U32(word)}})
	c.Instruction(&ir.Instruction{Opcode: "WORD", Operands: []operand.Op{operand.U16(uint16(bytes[4]) | uint16(bytes[5])<<8)}})
}

// evex encodes an instruction on three 512-bit registers (Intel SDM, volume 2, §2.7.1): opcode map, mandatory prefix, opcode, and
// the registers by number in Intel's order.
func evex(opMap, prefix, opcode byte, dst, a, b reg.VecPhysical) [6]byte {
	d, x, y := number(dst), number(a), number(b)
	not := func(n, bit int) byte { return byte(^n >> bit & 1) }
	return [6]byte{0x62,
		not(d, 3)<<7 | not(y, 4)<<6 | not(y, 3)<<5 | not(d, 4)<<4 | opMap,
		byte(^x&15)<<3 | 1<<2 | prefix,
		0b10<<5 | not(x, 4)<<3,
		opcode,
		0xc0 | byte(d&7)<<3 | byte(y&7)}
}

// number is the index of a 512-bit register.
func number(r reg.VecPhysical) int {
	for i := range z {
		if z[i] == r {
			return i
		}
	}
	panic("asmgen: not a 512-bit register: " + r.Asm()) // the generator's own mistake
}

// vdpbf16ps adds to each lane of sum the products of the two pairs in its lanes of a and b.
func vdpbf16ps(c *build.Context, a, b, sum reg.VecPhysical) {
	raw(c, evex(2, 2, 0x52, sum, b, a), fmt.Sprintf("VDPBF16PS %s, %s, %s", a.Asm(), b.Asm(), sum.Asm()))
}

// vcvtne2ps2bf16 rounds 16 floats of low into the low half of dst and 16 of high into its high half.
func vcvtne2ps2bf16(c *build.Context, low, high, dst reg.VecPhysical) {
	raw(c, evex(2, 3, 0x72, dst, high, low), fmt.Sprintf("VCVTNE2PS2BF16 %s, %s, %s", low.Asm(), high.Asm(), dst.Asm()))
}

// packTransposedBF16 writes words dst[k·stride + i] = (rows[i][2k], rows[i][2k+1]) for 16 rows.
func packTransposedBF16(c *build.Context) {
	function(c, "packTransposedBF16", "func(rows *[16]*float32, k int, dst *float32, stride int)",
		"rounds 16 rows of k floats to k/2 rows, rounded up, of 16 pairs, stride bytes apart; a pair lacks its second where k is odd.")
	rows, k, dst, stride, off := reg.RDI, reg.RAX, reg.RSI, reg.RBX, reg.RDX
	load(c, []string{"rows", "k", "dst", "stride"}, []reg.Register{rows, k, dst, stride})
	c.XORQ(off, off)
	c.Label("loop")
	c.CMPQ(k, operand.U8(32))
	c.JLT(operand.LabelRef("rest"))
	for i := range 16 { // a row of 32 floats becomes one of 16 pairs
		c.MOVQ(operand.Mem{Base: rows, Disp: 8 * i}, reg.R8)
		c.VMOVUPS(operand.Mem{Base: reg.R8, Index: off, Scale: 1}, z[16])
		c.VMOVUPS(operand.Mem{Base: reg.R8, Index: off, Scale: 1, Disp: 64}, z[17])
		vcvtne2ps2bf16(c, z[16], z[17], z[i])
	}
	transpose16(c)
	for i := range 16 {
		c.VMOVUPS(z[i], operand.Mem{Base: dst})
		c.ADDQ(stride, dst)
	}
	c.ADDQ(operand.U32(128), off)
	c.SUBQ(operand.U8(32), k)
	c.JMP(operand.LabelRef("loop"))
	c.Label("rest")
	c.TESTQ(k, k)
	c.JE(operand.LabelRef("end"))
	c.MOVQ(operand.I32(-1), reg.R9)
	c.BZHIQ(k, reg.R9, reg.R9)
	c.KMOVW(reg.R9.As32(), reg.K1)
	c.SHRQ(operand.U8(16), reg.R9)
	c.KMOVW(reg.R9.As32(), reg.K2)
	for i := range 16 {
		c.MOVQ(operand.Mem{Base: rows, Disp: 8 * i}, reg.R8)
		c.VMOVUPS_Z(operand.Mem{Base: reg.R8, Index: off, Scale: 1}, reg.K1, z[16])
		c.VMOVUPS_Z(operand.Mem{Base: reg.R8, Index: off, Scale: 1, Disp: 64}, reg.K2, z[17])
		vcvtne2ps2bf16(c, z[16], z[17], z[i])
	}
	transpose16(c)
	c.INCQ(k)
	c.SHRQ(operand.U8(1), k)
	for i := range 16 {
		c.VMOVUPS(z[i], operand.Mem{Base: dst})
		c.ADDQ(stride, dst)
		c.DECQ(k)
		c.JE(operand.LabelRef("end"))
	}
	c.Label("end")
	end(c)
}

// packRowsBF16 is packRows for pairs: of two rows of floats, or of bfloat16 if half, one of pairs.
func packRowsBF16(c *build.Context, nv int, interleave operand.Mem, half bool) {
	name, element, does, size := "packRows", "float32", "rounds k > 0 rows of n > 0 panels of up to %d floats", 4
	if half {
		name, element, does, size = "packHalves", "uint16", "interleaves k > 0 rows of n = 1 panel of up to %d numbers", 2
	}
	function(c, fmt.Sprintf("%s%dBF16", name, 16*nv), packRowsOf(element), fmt.Sprintf(
		does+", the last 16 of them under mask, to k/2 rows, rounded up, of pairs"+packRowsHow, 16*nv))
	p := loadPackRows(c)
	second := reg.RCX // ahead in the second row
	if !half {
		c.VMOVDQU64(interleave, z[31])
	}
	c.LEAQ(operand.Mem{Base: p.ahead, Index: p.lds, Scale: 1}, second)
	row := func(m operand.Mem, j int, to reg.VecPhysical) {
		m.Disp = 16 * size * j
		switch last := j == nv-1; {
		case half && last:
			c.VPMOVZXWD_Z(m, reg.K1, to)
		case half:
			c.VPMOVZXWD(m, to)
		case last:
			c.VMOVUPS_Z(m, reg.K1, to)
		default:
			c.VMOVUPS(m, to)
		}
	}
	pair := func(to reg.VecPhysical) { // of registers 0 and 1
		if half {
			c.VPSLLD(operand.U8(16), z[1], z[1])
			c.VPORD(z[1], z[0], to)
			return
		}
		vcvtne2ps2bf16(c, z[0], z[1], to)
		c.VPERMW(to, z[31], to)
	}
	c.SUBQ(operand.U8(2), p.k)
	c.JLT(operand.LabelRef("rest"))
	c.Label("row")
	p.panels(c, "", func(src, dst operand.Mem) {
		for j := range nv {
			if !half || j == 0 {
				c.PREFETCHT1(operand.Mem{Base: src.Base, Index: p.ahead, Scale: 1, Disp: 64*j + 52})
				c.PREFETCHT1(operand.Mem{Base: src.Base, Index: second, Scale: 1, Disp: 64*j + 52})
			}
			row(src, j, z[0])
			row(operand.Mem{Base: src.Base, Index: p.lds, Scale: 1}, j, z[1])
			pair(z[2+j])
		}
		for j := range nv {
			dst.Disp = 64 * j
			c.VMOVUPS(z[2+j], dst)
		}
	})
	c.LEAQ(operand.Mem{Base: p.src, Index: p.lds, Scale: 2}, p.src)
	c.SUBQ(operand.U8(2), p.k)
	c.JGE(operand.LabelRef("row"))
	c.Label("rest")
	c.ADDQ(operand.U8(2), p.k)
	c.JE(operand.LabelRef("end"))
	c.VPXORD(z[1], z[1], z[1])
	p.panels(c, "Rest", func(src, dst operand.Mem) {
		for j := range nv {
			row(src, j, z[0])
			pair(z[2])
			dst.Disp = 64 * j
			c.VMOVUPS(z[2], dst)
		}
	})
	c.Label("end")
	end(c)
}

// roundRows rounds rows of floats to rows of bfloat16.
func roundRows(c *build.Context) {
	function(c, "roundRowsBF16", "func(dst *uint16, src *float32, rows, cols, fill, rowDst, rowSrc int)",
		"rounds rows > 0 rows of cols > 0 floats to bfloat16, of which fill, cols or one more, are written; strides are in bytes.")
	dst, src, rows, cols, fill, rowDst, rowSrc := reg.RDI, reg.RSI, reg.RBX, reg.RDX, reg.R10, reg.R8, reg.R9
	load(c, []string{"dst", "src", "rows", "cols", "fill", "rowDst", "rowSrc"}, []reg.Register{dst, src, rows, cols, fill, rowDst, rowSrc})
	n, from, to := reg.RCX, reg.R11, reg.R12
	c.SUBQ(cols, fill)
	// The lanes of the last, partial step are the same in all rows.
	c.MOVQ(cols, n)
	c.ANDQ(operand.U8(31), n)
	c.MOVQ(operand.I32(-1), reg.RAX)
	c.BZHIQ(n, reg.RAX, reg.R15)
	c.KMOVW(reg.R15L, reg.K1)
	c.SHRQ(operand.U8(16), reg.R15)
	c.KMOVW(reg.R15L, reg.K2)
	c.ADDQ(fill, n)
	c.BZHIQ(n, reg.RAX, reg.R15)
	c.KMOVD(reg.R15L, reg.K3)
	c.Label("row")
	c.MOVQ(cols, n)
	c.MOVQ(src, from)
	c.MOVQ(dst, to)
	c.SUBQ(operand.U8(32), n)
	c.JLT(operand.LabelRef("rest"))
	c.Label("loop")
	c.VMOVUPS(operand.Mem{Base: from}, z[0])
	c.VMOVUPS(operand.Mem{Base: from, Disp: 64}, z[1])
	vcvtne2ps2bf16(c, z[0], z[1], z[2])
	c.VMOVUPS(z[2], operand.Mem{Base: to})
	c.ADDQ(operand.U32(128), from)
	c.ADDQ(operand.U8(64), to)
	c.SUBQ(operand.U8(32), n)
	c.JGE(operand.LabelRef("loop"))
	c.Label("rest")
	c.ADDQ(operand.U8(32), n)
	c.JE(operand.LabelRef("next"))
	c.VMOVUPS_Z(operand.Mem{Base: from}, reg.K1, z[0])
	c.VMOVUPS_Z(operand.Mem{Base: from, Disp: 64}, reg.K2, z[1])
	vcvtne2ps2bf16(c, z[0], z[1], z[2])
	c.VMOVDQU16(z[2], reg.K3, operand.Mem{Base: to})
	c.Label("next")
	c.ADDQ(rowSrc, src)
	c.ADDQ(rowDst, dst)
	c.DECQ(rows)
	c.JNE(operand.LabelRef("row"))
	end(c)
}
