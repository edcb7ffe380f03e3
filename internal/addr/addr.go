// Package addr gives random numbers by address instead of by turn. No generator is ever advanced: a number is a hash of
// where it is used (seed, purpose, step, position, …), so any position of a run can be entered directly and the order in
// which threads ask does not matter.
package addr

import "math"

// mix is the finalizer of splitmix64 (Steele, Lea, Flood 2014), a bijection of 64 bits.
func mix(x uint64) uint64 {
	x ^= x >> 30
	x *= 0xbf58476d1ce4e5b9
	x ^= x >> 27
	x *= 0x94d049bb133111eb
	return x ^ x>>31
}

const golden = 0x9e3779b97f4a7c15 // 2^64 divided by the golden ratio

// Hash returns 64 random bits of an address. The order of the words matters.
func Hash(words ...uint64) uint64 {
	h := uint64(golden)
	for _, w := range words {
		h = mix(h+golden) ^ mix(w+golden)*0xff51afd7ed558ccd
	}
	return mix(h)
}

// Name turns a purpose or a layer's name into a word of an address (FNV-1a, then mixed).
func Name(s string) uint64 {
	h := uint64(14695981039346656037)
	for i := range len(s) {
		h = (h ^ uint64(s[i])) * 1099511628211
	}
	return mix(h)
}

// Float64 maps a hash to [0, 1) with 53 random bits.
func Float64(h uint64) float64 { return float64(h>>11) * 0x1p-53 }

// Below maps a hash to [0, n); n must be positive. The bias is below n/2^53.
func Below(h uint64, n int) int { return int(Float64(h) * float64(n)) }

// Norm maps a hash to a standard normal number (Box and Muller 1958).
func Norm(h uint64) float64 {
	u := float64(h>>11|1) * 0x1p-53 // in (0, 1]
	v := Float64(mix(h + golden))
	return math.Sqrt(-2*math.Log(u)) * math.Cos(2*math.Pi*v)
}

// Perm is a pseudo-random permutation of [0, n) that is computed, not stored.
type Perm struct {
	key  uint64
	n    uint64
	half uint // bits of each half of the Feistel network
}

// NewPerm returns the permutation of [0, n) that key names. n = 0 gives an empty one.
func NewPerm(key, n uint64) Perm {
	p := Perm{key: key, n: n, half: 1}
	for p.half < 32 && uint64(1)<<(2*p.half) < n {
		p.half++
	}
	return p
}

// Len returns n.
func (p Perm) Len() uint64 { return p.n }

// At returns the image of i < n: a balanced Feistel network of six rounds on the smallest even number of bits that holds n,
// walked along its cycle until the value falls below n (Black and Rogaway 2002). It takes fewer than four walks on average.
func (p Perm) At(i uint64) uint64 {
	mask := uint64(1)<<p.half - 1
	for {
		l, r := i>>p.half, i&mask
		for round := range uint64(6) {
			l, r = r, l^mix(p.key+round*golden+mix(r+golden))&mask
		}
		i = l<<p.half | r
		if i < p.n {
			return i
		}
	}
}
