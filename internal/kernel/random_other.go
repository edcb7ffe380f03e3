//go:build !amd64 || noasm

package kernel

func normals32([]float32, uint64, uint64, float64) bool  { return false }
func uniforms32([]float32, uint64, uint64, float64) bool { return false }
