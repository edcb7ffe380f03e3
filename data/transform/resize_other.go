//go:build !amd64 || noasm

package transform

func acrossVector(*Image, *Image, int, *axis, *Scratch) int { return 0 }

func downVector([]uint8, *Image, int, []int32) bool { return false }
