//go:build amd64 && !noasm

package kernel

type gemmRun struct{}

func matMulASM(*Pool, *Gemm[float32]) bool { return false }
