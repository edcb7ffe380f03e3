// Package bench measures what a user counts: how fast the chip can be at most, how close matrix products, attention and whole
// updates come to that, and how fast pictures are read. Every figure of one call is from one process, and shares are of the
// peak that was measured in it, before and after: machines differ, and so does one machine from hour to hour.
package bench

import (
	"fmt"
	"slices"
	"time"

	"diptych/internal/kernel"
)

// PeakResult is the speed limit of the chip.
type PeakResult struct {
	Kernel    string  `json:"kernel"`    // family
	Precision string  `json:"precision"` // of the operands
	Threads   int     `json:"threads"`
	GFLOPs    float64 `json:"gflops"` // per second
}

// Spread sums up repeated measurements of a time, in seconds.
type Spread struct {
	Median float64 `json:"median"`
	Min    float64 `json:"min"`
	Max    float64 `json:"max"`
	Count  int     `json:"count"`
}

func spread(seconds []float64) Spread {
	s := slices.Sorted(slices.Values(seconds))
	return Spread{Median: s[len(s)/2], Min: s[0], Max: s[len(s)-1], Count: len(s)}
}

// Precisions of the operands of products: float32, or float32 rounded to bfloat16.
const (
	FP32 = "fp32"
	BF16 = "bf16"
)

// CheckPrecision refuses what is neither.
func CheckPrecision(p string) error {
	if p != FP32 && p != BF16 {
		return fmt.Errorf("precision %q is unknown; known: %s, %s", p, FP32, BF16)
	}
	return nil
}

// Peak measures multiply-adds in registers on all threads of p: the fastest of many short runs, which nobody disturbed.
func Peak(p *kernel.Pool, precision string) PeakResult {
	const tries, pieces = 25, 8
	r := PeakResult{Kernel: kernel.Family(), Precision: precision, Threads: p.Threads()}
	run := kernel.Peak
	if precision == BF16 {
		run = kernel.PeakBF16
	}
	for range tries {
		begun := time.Now()
		n := run(p, pieces*p.Threads())
		r.GFLOPs = max(r.GFLOPs, float64(n)/time.Since(begun).Seconds()/1e9)
	}
	return r
}

// atMost is the peak that figures between two measurements of it are compared with: the higher.
func (r *PeakResult) atMost(later PeakResult) { r.GFLOPs = max(r.GFLOPs, later.GFLOPs) }
