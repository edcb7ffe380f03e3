// Package kernel holds the loops over floats that all computing ends in: matrix products, attention, normalisation,
// activations, gathers, the optimizer's update. Package ops wraps them into differentiable operations and checks shapes
// before it calls; a bad shape here is a broken invariant and panics.
//
// Every kernel is generic over float32 and float64 and exists as portable Go; float32 also as generated AVX-512, AVX2 and, but for
// attention, NEON assembly (asmgen), chosen when the program starts. A result is a function of its input and of the family
// alone: never of the number of threads, nor of how the work was dealt. Scratch hangs on the Pool; in steady state a call
// allocates a closure at most.
//
// Start reading at pool.go, then gemm.go.
package kernel

import (
	"fmt"
	"os"
	"strings"
)

//go:generate go run ./asmgen

// The families of kernels for float32.
const (
	familyAVX512   = "avx512"
	familyAVX2     = "avx2"
	familyNEON     = "neon"
	familyPortable = "portable"
)

// The family in use, and whether it multiplies pairs of bfloat16 (AVX512_BF16).
var useAVX512, useAVX2, useNEON, hasBF16 bool

// useVectors tells whether there is assembly for the loops over rows.
var useVectors bool

func init() {
	if SetFamily(os.Getenv("DIPTYCH_KERNEL")) != nil {
		_ = SetFamily("") // the best there is
	}
}

// Families names the kernels this machine can run, the fastest first.
func Families() []string {
	var names []string
	if hasAVX512() {
		names = append(names, familyAVX512)
	}
	if hasAVX2() {
		names = append(names, familyAVX2)
	}
	if hasNEON() {
		names = append(names, familyNEON)
	}
	return append(names, familyPortable)
}

// Family names the kernels in use: "avx512", "avx2", "neon" or "portable". The environment variable DIPTYCH_KERNEL names another than
// the fastest; the build tag noasm leaves only the last.
func Family() string {
	switch {
	case useAVX512:
		return familyAVX512
	case useAVX2:
		return familyAVX2
	case useNEON:
		return familyNEON
	}
	return familyPortable
}

// SetFamily chooses the kernels by name; an empty one stands for the fastest. Nothing may be computing. A name this machine
// cannot run is an error that lists those it can.
func SetFamily(name string) error {
	names := Families()
	if name == "" {
		name = names[0]
	}
	for _, n := range names {
		if n == name {
			useAVX512, useAVX2, useNEON = name == familyAVX512, name == familyAVX2, name == familyNEON
			useVectors = useAVX512 || useAVX2 || useNEON
			hasBF16 = useAVX512 && cpuBF16()
			return nil
		}
	}
	return fmt.Errorf("kernel: no %q kernels on this machine; it has %s", name, strings.Join(names, ", "))
}
