package kernel

import "math"

// Normals sets element i of dst to std times the standard normal number of the address (key, first+i), which is addr.Norm of
// addr.Hash: the bits are the same on every family. It runs on one thread.
func Normals(dst []float32, key, first uint64, std float64) {
	state := keyed(key)
	if normals32(dst, state, first, std) {
		return
	}
	for i := range dst {
		h := addressed(state, first+uint64(i))
		u := float64(h>>11|1) * 0x1p-53 // in (0, 1]
		v := float64(mix(h+golden)>>11) * 0x1p-53
		dst[i] = float32(std * (math.Sqrt(-2*math.Log(u)) * math.Cos(2*math.Pi*v)))
	}
}

// Uniforms is Normals for numbers of U(-a, a).
func Uniforms(dst []float32, key, first uint64, a float64) {
	state := keyed(key)
	if uniforms32(dst, state, first, a) {
		return
	}
	for i := range dst {
		u := float64(addressed(state, first+uint64(i))>>11) * 0x1p-53 // in [0, 1)
		dst[i] = float32(a * (2*u - 1))
	}
}

// wordFactor sets the words of an address apart from the hash of those before.
const wordFactor = 0xff51afd7ed558ccd

// keyed is what addr.Hash(key, word) computes before it reads word, and addressed is the rest of it.
func keyed(key uint64) uint64 {
	before := uint64(golden)
	return mix((mix(before+golden) ^ mix(key+golden)*wordFactor) + golden)
}

func addressed(state, word uint64) uint64 { return mix(state ^ mix(word+golden)*wordFactor) }
