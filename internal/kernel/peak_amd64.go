//go:build amd64 && !noasm

package kernel

// peakSums is how many sums of 16 lanes the assembly works on.
const peakSums = 28

func peakLoop(bf16 bool, n int) {
	switch {
	case useAVX512 && bf16 && hasBF16:
		peakBF16AVX512(n)
	case useAVX512:
		peakAVX512(n)
	default:
		peakPortable(n)
	}
}

// peakLoopFLOP is what one turn of peakLoop counts for.
func peakLoopFLOP(bf16 bool) float64 {
	switch {
	case useAVX512 && bf16 && hasBF16:
		return 2 * 32 * peakSums
	case useAVX512:
		return 2 * 16 * peakSums
	}
	return 2 * peakPortableSums
}
