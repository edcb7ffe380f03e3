package kernel

import "sync/atomic"

// peakPiece is how many rounds of multiply-adds a thread runs at once in Peak.
const peakPiece = 1 << 15

// Peak runs multiply-adds of float32 that touch no memory, pieces times on the threads of p, and returns how many
// multiplications and additions that was. Their speed is the limit of the chip and the kernel family.
func Peak(p *Pool, pieces int) (operations int64) { return peakOf(p, pieces, false) }

// PeakBF16 is Peak with products of bfloat16, which are those of float32 where the family has none of its own.
func PeakBF16(p *Pool, pieces int) (operations int64) { return peakOf(p, pieces, true) }

func peakOf(p *Pool, pieces int, bf16 bool) (operations int64) {
	var sum atomic.Int64
	p.For(pieces, 1, func(lo, hi, _ int) {
		n, ok := peakRounds32(peakPiece, bf16)
		if !ok {
			n = peakRounds(peakPiece)
		}
		sum.Add(n)
	})
	return sum.Load()
}

// peakSink keeps the compiler from leaving peakRounds out.
var peakSink atomic.Bool

// peakRounds is the portable loop: eight chains, as the portable products have.
func peakRounds(rounds int) (operations int64) {
	var a, b, c, d, e, f, g, h float32
	x, y := float32(rounds), float32(0.5)
	for range rounds {
		a, b, c, d = a*y+x, b*y+x, c*y+x, d*y+x
		e, f, g, h = e*y+x, f*y+x, g*y+x, h*y+x
	}
	peakSink.Store(a+b+c+d+e+f+g+h > 0)
	return int64(rounds) * 8 * 2
}
