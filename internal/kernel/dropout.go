package kernel

import "math"

// mix is the finalizer of splitmix64 (Steele, Lea and Flood 2014), a bijection of 64 bits.
func mix(x uint64) uint64 {
	x ^= x >> 30
	x *= 0xbf58476d1ce4e5b9
	x ^= x >> 27
	x *= 0x94d049bb133111eb
	return x ^ x>>31
}

// golden is 2^64 divided by the golden ratio, the step of a splitmix64 sequence.
const golden = 0x9e3779b97f4a7c15

// Dropout writes y = x·keep/(1-prob) on (rows, cols), where keep is 0 with probability prob and else 1 (Srivastava et al.
// 2014, in the inverted form). No mask is stored: whether element c of row r stays is a hash of (key, rowAddr[r], c), so
// the same call on the gradient is the backward pass. prob is in [0, 1); rowAddr (rows) holds an address of each row that
// does not depend on how rows are packed; y may be x.
//
// Elements 2i and 2i+1 take the low and the high half of number i of the splitmix64 sequence that the row's hash starts.
func Dropout[T Float](p *Pool, y, x []T, rows, cols int, prob float64, key uint64, rowAddr []uint64) {
	limit := uint32(min(math.Round(prob*(1<<32)), math.MaxUint32)) // dropped below
	factor := T(1 / (1 - prob))
	p.For(rows, rowPiece(cols), func(lo, hi, _ int) {
		for r := lo; r < hi; r++ {
			state := mix(mix(key+golden) + golden*rowAddr[r])
			in, out := x[r*cols:(r+1)*cols], y[r*cols:(r+1)*cols]
			var bits uint64
			for c, v := range in {
				if c&1 == 0 {
					state += golden
					bits = mix(state)
				} else {
					bits >>= 32
				}
				if uint32(bits) < limit {
					out[c] = 0
				} else {
					out[c] = v * factor
				}
			}
		}
	})
}
