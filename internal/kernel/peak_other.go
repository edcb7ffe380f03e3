//go:build !amd64 || noasm

package kernel

func peakLoop(_ bool, n int) { peakPortable(n) }

func peakLoopFLOP(bool) float64 { return 2 * peakPortableSums }
