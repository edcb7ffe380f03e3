//go:build amd64 && !noasm

package kernel

import "golang.org/x/sys/cpu"

func hasAVX512() bool {
	x := &cpu.X86
	return x.HasAVX512F && x.HasAVX512BW && x.HasAVX512VL && x.HasAVX512DQ && x.HasFMA
}

func hasAVX2() bool { return cpu.X86.HasAVX2 && cpu.X86.HasFMA && cpu.X86.HasBMI2 }

func hasNEON() bool { return false }

func cpuBF16() bool { return cpu.X86.HasAVX512BF16 }
