//go:build !unix

package kernel

func newSlab(n int) []float32 {
	return aligned[float32](n)
}

func freeSlab([]float32) {}
