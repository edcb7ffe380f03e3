//go:build arm64 && !noasm

package kernel

func hasAVX512() bool { return false }

func hasAVX2() bool { return false }

func hasNEON() bool { return true }

func cpuBF16() bool { return false }
