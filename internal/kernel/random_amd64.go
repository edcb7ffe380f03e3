//go:build amd64 && !noasm

package kernel

func normals32(dst []float32, state, first uint64, std float64) bool {
	if useAVX512 && len(dst) > 0 {
		normalsAVX512(&dst[0], len(dst), state, first, std)
	}
	return useAVX512
}

func uniforms32(dst []float32, state, first uint64, a float64) bool {
	if useAVX512 && len(dst) > 0 {
		uniformsAVX512(&dst[0], len(dst), state, first, a)
	}
	return useAVX512
}
