//go:build !arm64 || noasm

package kernel

func tileNEON(_, _, _ []float32) { panic("kernel: no NEON here") }
