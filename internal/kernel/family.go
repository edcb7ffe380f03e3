// Package kernel holds the loops over floats that all computing ends in: matrix products, attention, normalisation,
// activations, gathers, the optimizer's update. Package ops wraps them into differentiable operations and checks shapes
// before it calls; a bad shape here is a broken invariant and panics.
//
// Every kernel is generic over float32 and float64 and exists as portable Go; float32 also as generated AVX-512 assembly
// (asmgen), chosen when the program starts. A result is a function of its input and of the family alone: never of the number
// of threads, nor of how the work was dealt. Scratch hangs on the Pool; in steady state a call allocates a closure at most.
//
// Start reading at pool.go, then gemm.go.
package kernel

import "os"

//go:generate go run ./asmgen

// useAVX512 is set once, when the program starts.
var useAVX512 = os.Getenv("DIPTYCH_KERNEL") != "portable" && hasAVX512()

// hasBF16 tells whether the processor multiplies pairs of bfloat16 (AVX512_BF16).
var hasBF16 = useAVX512 && cpuBF16()

// Family names the kernels in use: "avx512" or "portable". The environment variable DIPTYCH_KERNEL=portable and the build
// tag noasm choose the second on any machine.
func Family() string {
	if useAVX512 {
		return "avx512"
	}
	return "portable"
}
