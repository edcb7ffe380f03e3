package kernel

import (
	"fmt"
	"testing"
)

type benchShape struct {
	name           string
	m, n, k        int
	transA, transB bool
}

// benchShapes are the products of a small model's towers (rows of tokens × widths) and two of larger ones.
var benchShapes = []benchShape{
	{"qkv", 2176, 576, 192, false, true},
	{"fc1", 2176, 768, 192, false, true},
	{"fc2", 2176, 192, 768, false, true},
	{"fc1-dX", 2176, 192, 768, false, false},
	{"fc2-dX", 2176, 768, 192, false, false},
	{"fc1-dW", 768, 192, 2176, true, false},
	{"fc2-dW", 192, 768, 2176, true, false},
	{"qkv128", 544, 384, 128, false, true},
	{"proj128", 544, 128, 128, false, true},
	{"fc2-256", 1088, 256, 1024, false, true},
	{"fc2-256-dW", 256, 1024, 1088, true, false},
	{"fc1-vits", 2176, 1536, 384, false, true},
	{"fc2-vitb", 2176, 768, 3072, false, true},
	{"fc1-vitb-dW", 3072, 768, 2176, true, false},
	{"head", 17, 17, 64, false, true},
}

func BenchmarkMatMul(b *testing.B) {
	for _, threads := range []int{1, 2} {
		p := NewPool(threads)
		defer p.Close()
		for _, s := range benchShapes {
			for _, bf16 := range []bool{false, true} {
				b.Run(fmt.Sprintf("%s-%dx%dx%d/bf16=%v/%dt", s.name, s.m, s.n, s.k, bf16, threads), func(b *testing.B) {
					g := product[float32](newRand(), s.m, s.n, s.k, 0, s.transA, s.transB)
					g.Accumulate, g.BF16 = s.transA, bf16
					MatMul(p, g)
					b.ReportAllocs()
					for b.Loop() {
						MatMul(p, g)
					}
					flops := 2 * float64(s.m) * float64(s.n) * float64(s.k) * float64(b.N)
					b.ReportMetric(flops/b.Elapsed().Seconds()/1e9, "GFLOP/s")
				})
			}
		}
	}
}
