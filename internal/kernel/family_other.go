//go:build (!amd64 && !arm64) || noasm

package kernel

func hasAVX512() bool { return false }

func hasAVX2() bool { return false }

func hasNEON() bool { return false }

func cpuBF16() bool { return false }
