package main

import (
	"fmt"

	"github.com/mmcloughlin/avo/build"
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// peakChains is how many fused multiply-adds wait for nothing but themselves: more than latency times ports of any chip.
const peakChains = 24

// peak writes the loops whose speed is the chip's limit: multiply-adds in registers, that depend on no memory.
func peak(c *build.Context) {
	peakLoop(c, multiplyAdd)
	peakLoop(c, multiplyPairs)
	peakAVX2(c)
}

// peakChainsAVX2 is peakChains for 16 registers.
const peakChainsAVX2 = 14

func peakAVX2(c *build.Context) {
	function(c, "peakAVX2", "func(n int)", fmt.Sprintf("runs n rounds of %d multiply-adds of 8 lanes.", peakChainsAVX2))
	n := reg.RCX
	c.Load(c.Param("n"), n)
	for i := range y {
		c.VXORPS(y[i], y[i], y[i])
	}
	align(c, 64)
	c.Label("loop")
	for i := range peakChainsAVX2 {
		c.VFMADD231PS(y[14], y[15], y[i])
	}
	c.DECQ(n)
	c.JNE(operand.LabelRef("loop"))
	end(c)
}

func peakLoop(c *build.Context, by multiplier) {
	function(c, "peak"+by.suffix+"AVX512", "func(n int)", fmt.Sprintf("runs n rounds of %d multiply-adds of 16 words.", peakChains))
	n := reg.RCX
	c.Load(c.Param("n"), n)
	for i := range peakChains + 2 {
		c.VPXORD(z[i], z[i], z[i])
	}
	align(c, 64)
	c.Label("loop")
	for i := range peakChains {
		by.emit(c, z[peakChains], z[peakChains+1], z[i])
	}
	c.DECQ(n)
	c.JNE(operand.LabelRef("loop"))
	end(c)
}
