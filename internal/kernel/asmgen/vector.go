package main

import (
	"fmt"
	"math"
	"slices"

	"github.com/mmcloughlin/avo/attr"
	"github.com/mmcloughlin/avo/build"
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// vector writes the kernels over rows once for all widths. What they ask of it is AVX-512: registers z, masks K1 and K2. At a
// width of 8 lanes it puts AVX2 in its place: registers of the function's numbers get 256-bit ones in turn, a mask becomes a
// vector of ones, and constants, for which 16 registers are too few, stay in memory. At 4 lanes it is AVX-512 still, for neon.go
// to translate.
type vector struct {
	*build.Context
	lanes int // 16, 8 or 4

	// Of the function being written, at 8 lanes.
	used   int                     // registers given out
	regs   map[int]reg.VecPhysical // those, by the number of the 512-bit one
	masks  map[reg.Register]reg.VecPhysical
	memory map[int]operand.Mem // numbers that hold a constant
	temps  [2]reg.VecPhysical

	table []uint32    // constants in memory, eight of each
	iota  operand.Mem // the numbers of the lanes
}

// atWidth returns a vector that writes functions with the given number of lanes.
func atWidth(c *build.Context, lanes int) *vector {
	v := &vector{Context: c, lanes: lanes}
	if !v.wide() {
		v.iota = c.StaticGlobal("iota")
		c.DataAttributes(attr.RODATA | attr.NOPTR)
		for i := range 8 {
			c.AddDatum(4*i, operand.U32(i))
		}
	}
	return v
}

// wide says whether it writes AVX-512.
func (v *vector) wide() bool { return v.lanes != 8 }

// bytes is the size of a register.
func (v *vector) bytes() int { return 4 * v.lanes }

// suffix ends the names of functions.
func (v *vector) suffix() string {
	return map[int]string{16: "AVX512", 8: "AVX2", 4: "NEON"}[v.lanes]
}

// begin forgets the registers of the function before.
func (v *vector) begin() {
	v.used, v.regs, v.masks, v.memory = 0, map[int]reg.VecPhysical{}, map[reg.Register]reg.VecPhysical{}, map[int]operand.Mem{}
	v.temps = [2]reg.VecPhysical{}
}

func (v *vector) fresh() reg.VecPhysical {
	if v.used == len(y) {
		panic("asmgen: out of 256-bit registers")
	}
	v.used++
	return y[v.used-1]
}

func (v *vector) temp(i int) reg.VecPhysical {
	if v.temps[i] == nil {
		v.temps[i] = v.fresh()
	}
	return v.temps[i]
}

// to is the register an instruction writes.
func (v *vector) to(op operand.Op) reg.VecPhysical {
	n := number(op.(reg.VecPhysical))
	delete(v.memory, n)
	if v.regs[n] == nil {
		v.regs[n] = v.fresh()
	}
	return v.regs[n]
}

// from is what an instruction reads where it may read memory.
func (v *vector) from(op operand.Op) operand.Op {
	r, ok := op.(reg.VecPhysical)
	if !ok {
		return op
	}
	if m, ok := v.memory[number(r)]; ok {
		return m
	}
	return v.regs[number(r)]
}

// inRegister is what an instruction reads where it needs a register.
func (v *vector) inRegister(op operand.Op) operand.Op {
	op = v.from(op)
	if m, ok := op.(operand.Mem); ok {
		v.Context.VMOVUPS(m, v.temp(1))
		return v.temp(1)
	}
	return op
}

func (v *vector) mask(k operand.Op) reg.VecPhysical {
	r := k.(reg.Register)
	if v.masks[r] == nil {
		v.masks[r] = v.fresh()
	}
	return v.masks[r]
}

// data is a constant in memory that fills a register.
func (v *vector) data(bits uint32) operand.Mem {
	if !slices.Contains(v.table, bits) {
		v.table = append(v.table, bits)
	}
	return operand.NewDataAddr(operand.NewStaticSymbol(wordsName(bits)), 0)
}

func wordsName(bits uint32) string { return fmt.Sprintf("words%08x", bits) }

// writeData ends a file with the constants that its functions read.
func (v *vector) writeData() {
	for _, bits := range v.table {
		v.StaticGlobal(wordsName(bits))
		v.DataAttributes(attr.RODATA | attr.NOPTR)
		for i := range 8 {
			v.AddDatum(4*i, operand.U32(bits))
		}
	}
}

// constant fills a register with a number. It spoils R15. What a loop goes on from a constant begins with a copy of it
// (VMOVAPS): the narrow width would read the constant in each turn.
func (v *vector) constant(x float64, to reg.VecPhysical) { v.bits(math.Float32bits(float32(x)), to) }

// bits is constant for the bits of a number.
func (v *vector) bits(x uint32, to reg.VecPhysical) {
	if v.wide() {
		v.MOVL(operand.U32(x), reg.R15L)
		v.Context.VPBROADCASTD(reg.R15L, to)
		return
	}
	v.memory[number(to)] = v.data(x)
}

// firstLanes sets a mask to the first min(n, lanes) lanes; n > 0, and below 16 without a label. It spoils R15.
func (v *vector) firstLanes(label string, n reg.GPPhysical, k reg.OpmaskPhysical) {
	if v.wide() {
		v.MOVQ(operand.I32(-1), reg.R15)
		if label != "" {
			v.CMPQ(n, operand.U8(16))
			v.JGE(operand.LabelRef(label + "Whole"))
		}
		v.BZHIQ(n, reg.R15, reg.R15)
		if label != "" {
			v.Label(label + "Whole")
		}
		v.KMOVW(reg.R15L, k)
		return
	}
	to := v.mask(k)
	v.VMOVD(n.(reg.GP).As32(), low(to))
	v.Context.VPBROADCASTD(low(to), to)
	v.VPCMPGTD(v.iota, to, to)
}

// low is the lowest 128 bits of a register.
func low(r reg.VecPhysical) reg.Register { return r.AsX() }

// lowest is the 128-bit register that begins with the lowest lane of a register.
func (v *vector) lowest(z512 reg.VecPhysical) reg.Register {
	if v.wide() {
		return z512.AsX()
	}
	return low(v.inRegister(z512).(reg.VecPhysical))
}

// The methods below take the place of the instructions of the same name, operands in Go's order.

// binary is an instruction of two operands and a result, which may have a mask before it: other lanes keep what they had.
func (v *vector) binary(emit func(...operand.Op), ops []operand.Op) {
	if v.wide() {
		emit(ops...)
		return
	}
	if len(ops) == 3 {
		a, b := v.from(ops[0]), v.inRegister(ops[1])
		emit(a, b, v.to(ops[2]))
		return
	}
	k := v.mask(ops[2])
	a := v.from(ops[0])
	if m, ok := ops[0].(operand.Mem); ok {
		v.Context.VMASKMOVPS(m, k, v.temp(0))
		a = v.temp(0)
	}
	b, to := v.inRegister(ops[1]), v.to(ops[3])
	emit(a, b, v.temp(1))
	v.Context.VBLENDVPS(k, v.temp(1), to, to)
}

func (v *vector) VADDPS(ops ...operand.Op)       { v.binary(v.Context.VADDPS, ops) }
func (v *vector) VSUBPS(ops ...operand.Op)       { v.binary(v.Context.VSUBPS, ops) }
func (v *vector) VMULPS(ops ...operand.Op)       { v.binary(v.Context.VMULPS, ops) }
func (v *vector) VDIVPS(ops ...operand.Op)       { v.binary(v.Context.VDIVPS, ops) }
func (v *vector) VMAXPS(ops ...operand.Op)       { v.binary(v.Context.VMAXPS, ops) }
func (v *vector) VMINPS(ops ...operand.Op)       { v.binary(v.Context.VMINPS, ops) }
func (v *vector) VFMADD213PS(ops ...operand.Op)  { v.binary(v.Context.VFMADD213PS, ops) }
func (v *vector) VFMADD231PS(ops ...operand.Op)  { v.binary(v.Context.VFMADD231PS, ops) }
func (v *vector) VFMSUB213PS(ops ...operand.Op)  { v.binary(v.Context.VFMSUB213PS, ops) }
func (v *vector) VFNMADD231PS(ops ...operand.Op) { v.binary(v.Context.VFNMADD231PS, ops) }

func (v *vector) VPANDD(a, b, to operand.Op) {
	emit := func(ops ...operand.Op) { v.Context.VPANDD(ops...) }
	if !v.wide() {
		emit = func(ops ...operand.Op) { v.Context.VANDPS(ops[0], ops[1], ops[2]) }
	}
	v.binary(emit, []operand.Op{a, b, to})
}

func (v *vector) VPORD(a, b, to operand.Op) {
	emit := func(ops ...operand.Op) { v.Context.VPORD(ops...) }
	if !v.wide() {
		emit = func(ops ...operand.Op) { v.Context.VORPS(ops[0], ops[1], ops[2]) }
	}
	v.binary(emit, []operand.Op{a, b, to})
}

func (v *vector) VPADDD(a, b, to operand.Op) { v.binary(v.Context.VPADDD, []operand.Op{a, b, to}) }

// VPSRLD shifts the bits of a to the right.
func (v *vector) VPSRLD(bits operand.U8, a, to operand.Op) {
	if v.wide() {
		v.Context.VPSRLD(bits, a, to)
		return
	}
	v.Context.VPSRLD(bits, v.inRegister(a), v.to(to))
}

// zero clears a register.
func (v *vector) zero(to reg.VecPhysical) {
	if v.wide() {
		v.Context.VPXORD(to, to, to)
		return
	}
	r := v.to(to)
	v.Context.VXORPS(r, r, r)
}

// VSUBPS_Z clears the lanes that the mask leaves out.
func (v *vector) VSUBPS_Z(a, b, k, to operand.Op) {
	if v.wide() {
		v.Context.VSUBPS_Z(a, b, k, to)
		return
	}
	v.VSUBPS(a, b, to)
	v.Context.VANDPS(v.mask(k), v.to(to), v.to(to))
}

func (v *vector) VMOVAPS_Z(a, k, to operand.Op) {
	if v.wide() {
		v.Context.VMOVAPS_Z(a, k, to)
		return
	}
	v.Context.VANDPS(v.inRegister(a), v.mask(k), v.to(to))
}

func (v *vector) VMOVAPS(a, to operand.Op) {
	if v.wide() {
		v.Context.VMOVAPS(a, to)
		return
	}
	v.Context.VMOVUPS(v.from(a), v.to(to))
}

// load reads memory into a register, store writes it; both under a mask, unless that is nil.
func (v *vector) load(m operand.Mem, k reg.Register, to reg.VecPhysical) {
	switch {
	case v.wide() && k == nil:
		v.Context.VMOVUPS(m, to)
	case v.wide():
		v.Context.VMOVUPS_Z(m, k, to)
	case k == nil:
		v.Context.VMOVUPS(m, v.to(to))
	default:
		v.Context.VMASKMOVPS(m, v.mask(k), v.to(to))
	}
}

func (v *vector) store(from reg.VecPhysical, k reg.Register, m operand.Mem) {
	switch {
	case v.wide() && k == nil:
		v.Context.VMOVUPS(from, m)
	case v.wide():
		v.Context.VMOVUPS(from, k, m)
	case k == nil:
		v.Context.VMOVUPS(v.inRegister(from), m)
	default:
		v.Context.VMASKMOVPS(v.inRegister(from), v.mask(k), m)
	}
}

func (v *vector) VBROADCASTSS(m operand.Mem, to reg.VecPhysical) {
	if v.wide() {
		v.Context.VBROADCASTSS(m, to)
		return
	}
	v.Context.VBROADCASTSS(m, v.to(to))
}

// broadcastInt converts an integer to a number in all lanes.
func (v *vector) broadcastInt(n reg.GPPhysical, to reg.VecPhysical) {
	if v.wide() {
		v.Context.VPBROADCASTD(n.As32(), to)
		v.Context.VCVTDQ2PS(to, to)
		return
	}
	r := v.to(to)
	v.VMOVD(n.As32(), low(r))
	v.Context.VPBROADCASTD(low(r), r)
	v.Context.VCVTDQ2PS(r, r)
}

func (v *vector) VSQRTPS(a, to operand.Op) {
	if v.wide() {
		v.Context.VSQRTPS(a, to)
		return
	}
	v.Context.VSQRTPS(v.from(a), v.to(to))
}

// compare sets a mask where b and a are related as Intel's predicate says.
func (v *vector) compare(predicate operand.U8, a, b reg.VecPhysical, k reg.OpmaskPhysical) {
	if v.wide() {
		v.Context.VCMPPS(predicate, a, b, k)
		return
	}
	v.Context.VCMPPS(predicate, v.from(a), v.inRegister(b), v.mask(k))
}

// round rounds to the nearest integer, ties to even.
func (v *vector) round(a, to reg.VecPhysical) {
	if v.wide() {
		v.Context.VRNDSCALEPS(operand.U8(8), a, to)
		return
	}
	v.Context.VROUNDPS(operand.U8(8), v.from(a), v.to(to))
}

// scale sets to = b·2ⁿ for an integer n from -252 to 254. Without an instruction for it there are two factors, so that what
// becomes subnormal is rounded once.
func (v *vector) scale(n, b, to reg.VecPhysical) {
	if v.wide() {
		v.Context.VSCALEFPS(n, b, to)
		return
	}
	h, rest, bias := v.temp(0), v.temp(1), v.data(127)
	v.Context.VCVTPS2DQ(v.from(n), rest)
	v.Context.VPSRAD(operand.U8(1), rest, h)
	v.Context.VPSUBD(h, rest, rest)
	v.Context.VPADDD(bias, h, h)
	v.Context.VPADDD(bias, rest, rest)
	v.Context.VPSLLD(operand.U8(23), h, h)
	v.Context.VPSLLD(operand.U8(23), rest, rest)
	v.Context.VMULPS(h, v.from(b), v.to(to))
	v.Context.VMULPS(rest, v.to(to), v.to(to))
}

// across adds (or, with VMAXPS, takes the largest of) the lanes of x into its lowest; t is spoiled. The order is fixed.
func (v *vector) across(op func(ops ...operand.Op), x, t int) {
	if v.wide() {
		if v.lanes == 16 {
			v.Context.VSHUFF32X4(operand.U8(0x4e), z[x], z[x], z[t]) // lanes 8 to 15 and 0 to 7 change places
			op(z[t], z[x], z[x])
			v.Context.VSHUFF32X4(operand.U8(0xb1), z[x], z[x], z[t])
			op(z[t], z[x], z[x])
		}
		v.Context.VSHUFPS(operand.U8(0x4e), z[x], z[x], z[t])
		op(z[t], z[x], z[x])
		v.Context.VSHUFPS(operand.U8(0xb1), z[x], z[x], z[t])
		op(z[t], z[x], z[x])
		return
	}
	a, b := v.to(z[x]), v.to(z[t])
	v.Context.VPERM2F128(operand.U8(1), a, a, b)
	op(z[t], z[x], z[x])
	v.Context.VSHUFPS(operand.U8(0x4e), a, a, b)
	op(z[t], z[x], z[x])
	v.Context.VSHUFPS(operand.U8(0xb1), a, a, b)
	op(z[t], z[x], z[x])
}
