package kernel

import "time"

// peakTime is how long Peak tries, in windows of about a millisecond: the fastest is the least disturbed.
const peakTime = 60 * time.Millisecond

// Peak measures the floating point operations per second that multiply-adds in registers reach on all threads of p, each
// counted as two, with float32 or, if bf16, with pairs of bfloat16. It is what a product's speed is a share of. Where the
// family multiplies bfloat16 by rounding, both are the same.
func Peak(p *Pool, bf16 bool) float64 {
	const loops = 10_000 // some 80 µs
	pieces, best := 12*p.Threads(), 0.0
	for start := time.Now(); time.Since(start) < peakTime; {
		window := time.Now()
		p.For(pieces, 1, func(lo, hi, _ int) { peakLoop(bf16, (hi-lo)*loops) })
		best = max(best, float64(pieces*loops)*peakLoopFLOP(bf16)/time.Since(window).Seconds())
	}
	return best
}

// peakSink keeps the compiler from dropping peakPortable.
var peakSink float32

// peakPortableSums is how many sums peakPortable works on.
const peakPortableSums = 8

// peakPortable multiplies and adds n times, eight sums side by side.
func peakPortable(n int) {
	var s [peakPortableSums]float32
	x := peakSink
	a, b, c, d, e, f, g, h := x, x, x, x, x, x, x, x
	for range n {
		a += float32(x * a)
		b += float32(x * b)
		c += float32(x * c)
		d += float32(x * d)
		e += float32(x * e)
		f += float32(x * f)
		g += float32(x * g)
		h += float32(x * h)
	}
	s = [...]float32{a, b, c, d, e, f, g, h}
	if s[0] != s[7] {
		peakSink = s[0]
	}
}
