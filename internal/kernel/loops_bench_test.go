package kernel

import (
	"fmt"
	"testing"
	"time"
)

// perSecond reports a rate in billions per second.
func perSecond(b *testing.B, each float64, unit string) {
	b.ReportMetric(each*float64(b.N)/b.Elapsed().Seconds()/1e9, unit)
}

func sequences(n, length int) []int32 {
	offsets := make([]int32, n+1)
	for i := range offsets {
		offsets[i] = int32(i * length)
	}
	return offsets
}

// BenchmarkAttention is forward and backward of towers' heads; its GFLOP/s count seven products, as if nothing were causal.
func BenchmarkAttention(b *testing.B) {
	p := NewPool(2)
	defer p.Close()
	for _, c := range []struct {
		batch, length, heads, dim int
		causal                    bool
	}{{128, 17, 4, 32, false}, {32, 50, 12, 64, false}, {32, 77, 8, 64, true}, {8, 185, 12, 64, false}, {8, 197, 12, 64, false}, {4, 577, 12, 64, false}} {
		for _, bf16 := range []bool{false, true} {
			b.Run(fmt.Sprintf("%dx%d,heads=%dx%d,causal=%v,bf16=%v", c.batch, c.length, c.heads, c.dim, c.causal, bf16), func(b *testing.B) {
				a := newAttention[float32](b, sequences(c.batch, c.length), c.heads, c.dim, c.causal)
				a.BF16 = bf16
				AttentionForward(p, a)
				AttentionBackward(p, a)
				for b.Loop() {
					AttentionForward(p, a)
					AttentionBackward(p, a)
				}
				perSecond(b, 7*2*float64(c.batch*c.heads*c.length*c.length*c.dim), "GFLOP/s")
			})
		}
	}
}

func BenchmarkRows(b *testing.B) {
	const rows, cols = 2176, 256
	const n = rows * cols
	p := NewPool(1)
	defer p.Close()
	x, y, z, gamma := normals[float32]("x", n), make([]float32, n), normals[float32]("z", n), normals[float32]("gamma", cols)
	mean, rstd, dgamma, dbeta := make([]float32, rows), make([]float32, rows), make([]float32, cols), make([]float32, cols)
	for _, c := range []struct {
		name    string
		streams float64 // arrays of n floats read or written
		run     func()
	}{
		{"LayerNorm", 2, func() { LayerNorm(p, y, mean, rstd, x, gamma, gamma, rows, cols, 1e-5) }},
		{"LayerNormBackward", 3, func() { LayerNormBackward(p, y, dgamma, dbeta, z, x, mean, rstd, gamma, nil, rows, cols) }},
		{"GELU", 2, func() { ActForward(p, ActGELU, y, x) }},
		{"GELUBackward", 3, func() { ActBackward(p, ActGELU, y, z, x) }},
		{"GELUTanh", 2, func() { ActForward(p, ActGELUTanh, y, x) }},
		{"QuickGELU", 2, func() { ActForward(p, ActQuickGELU, y, x) }},
		{"QuickGELUBackward", 3, func() { ActBackward(p, ActQuickGELU, y, z, x) }},
		{"Add", 3, func() { Add(p, y, x, z) }},
		{"ColSum", 1, func() { ColSum(p, dgamma, x, rows, cols) }},
		{"SumSquares", 1, func() { SumSquares(p, x) }},
		{"LogSumExpRows", 1, func() { LogSumExpRows(p, mean, x, rows, cols) }},
		{"LogSumExpColumns", 1, func() { LogSumExpColumns(p, dgamma, dbeta, x, rows, cols) }},
		{"Dropout", 2, func() { Dropout(p, y, x, rows, cols, 0.1, 1, make([]uint64, rows)) }},
		{"AdamW", 7, func() {
			AdamW(p, y, x, z, y, AdamWStep{LR: 1e-3, Beta1: 0.9, Beta2: 0.98, Eps: 1e-6, Correction1: 0.5, Correction2: 0.5, GradScale: 1})
		}},
	} {
		b.Run(c.name, func(b *testing.B) {
			for b.Loop() {
				c.run()
			}
			perSecond(b, c.streams*4*n, "GB/s")
			b.ReportMetric(float64(b.Elapsed())/float64(time.Nanosecond)/float64(b.N)/n, "ns/element")
		})
	}
}

func BenchmarkPatchesU8(b *testing.B) {
	const n, side, patch = 128, 32, 8
	p := NewPool(1)
	defer p.Close()
	pixels, out := make([]uint8, n*side*side*3), make([]float32, n*side*side*3)
	for b.Loop() {
		PatchesU8(p, out, pixels, n, side, side, patch, [3]float32{}, [3]float32{1, 1, 1})
	}
	perSecond(b, float64(len(pixels)), "Gpixel/s")
}
