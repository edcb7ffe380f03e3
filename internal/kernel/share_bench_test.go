package kernel

import (
	"fmt"
	"testing"
	"time"
)

// layerShapes are the products of one encoder block with rows tokens of the given width, forward and backward.
func layerShapes(name string, rows, width int) []benchShape {
	var s []benchShape
	for _, l := range []struct {
		name string
		n, k int
	}{{"qkv", 3 * width, width}, {"proj", width, width}, {"fc1", 4 * width, width}, {"fc2", width, 4 * width}} {
		s = append(s,
			benchShape{name + "/" + l.name, rows, l.n, l.k, false, true},
			benchShape{name + "/" + l.name + "-dX", rows, l.k, l.n, false, false},
			benchShape{name + "/" + l.name + "-dW", l.n, l.k, rows, true, false})
	}
	return s
}

// BenchmarkShareOfPeak reports each product's share of the peak measured just before it, the median of its runs, on two threads.
func BenchmarkShareOfPeak(b *testing.B) {
	p := NewPool(2)
	defer p.Close()
	for _, bf16 := range []bool{false, true} {
		var flops, atPeak float64
		shapes := append(layerShapes("vitb", 1600, 768), layerShapes("vits", 3200, 384)...)
		for _, s := range append(shapes, layerShapes("text", 2464, 512)...) {
			b.Run(fmt.Sprintf("bf16=%v/%s", bf16, s.name), func(b *testing.B) {
				g := product[float32](newRand(), s.m, s.n, s.k, 0, s.transA, s.transB)
				g.Accumulate, g.BF16 = s.transA, bf16
				MatMul(p, g)
				flop := 2 * float64(s.m) * float64(s.n) * float64(s.k)
				peak := peakRate(p, bf16)
				best := 0.0
				for b.Loop() {
					start := time.Now()
					MatMul(p, g)
					best = max(best, flop/time.Since(start).Seconds())
				}
				mean := flop * float64(b.N) / b.Elapsed().Seconds()
				flops += flop
				atPeak += flop / (best / peak)
				b.ReportMetric(0, "ns/op")
				b.ReportMetric(mean/1e9, "GFLOP/s")
				b.ReportMetric(100*best/peak, "%best")
				b.ReportMetric(peak/1e9, "peak")
			})
		}
		b.Logf("bf16 %v: %.1f %% of peak, weighted by time", bf16, 100*flops/atPeak)
	}
}

// peakRate is the fastest of some runs of a millisecond or two, the least disturbed.
func peakRate(p *Pool, bf16 bool) float64 {
	best := 0.0
	for range 30 {
		start := time.Now()
		n := peakOf(p, 4*p.Threads(), bf16)
		best = max(best, float64(n)/time.Since(start).Seconds())
	}
	return best
}
