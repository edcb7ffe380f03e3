// Package bench measures what a user counts: how fast the chip can be at most, how close matrix products, attention and whole
// updates come to that, and how fast pictures are read. Every figure of one call is from one process, and shares are of the
// peak that was measured in it, before and after: machines differ, and so does one machine from hour to hour.
package bench

import (
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

const fp32 = "fp32"

// Peak measures multiply-adds in registers on all threads of p: the median of several short runs.
func Peak(p *kernel.Pool) PeakResult {
	const tries, pieces = 5, 16
	var rates []float64
	for range tries {
		rates = append(rates, rate(func() int64 { return kernel.Peak(p, pieces*p.Threads()) }))
	}
	slices.Sort(rates)
	return PeakResult{Kernel: kernel.Family(), Precision: fp32, Threads: p.Threads(), GFLOPs: rates[tries/2]}
}

// rate returns 10⁹ operations per second of f, which returns its operations.
func rate(f func() int64) float64 {
	begun := time.Now()
	n := f()
	return float64(n) / time.Since(begun).Seconds() / 1e9
}

// mean is the peak that figures between two measurements of it are compared with.
func mean(a, b PeakResult) PeakResult {
	a.GFLOPs = (a.GFLOPs + b.GFLOPs) / 2
	return a
}
