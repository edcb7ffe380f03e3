package kernel

import (
	"testing"

	"diptych/internal/addr"

	"github.com/stretchr/testify/require"
)

func TestRandomNumbersAreThoseOfTheirAddresses(t *testing.T) {
	for _, c := range []struct {
		name       string
		n          int
		key, first uint64
		factor     float64
	}{
		{"none", 0, 1, 0, 1}, {"one", 1, 2, 3, 0.5}, {"odd", 7, 3, 1 << 40, 1}, {"registers", 64, 4, 5, 2}, {"odd end", 1001, 5, ^uint64(0) - 500, 0.02},
		{"many", 1 << 19, addr.Name("weight"), 1 << 20, 0.036},
	} {
		t.Run(c.name, func(t *testing.T) {
			eachFamily(t, func(t *testing.T) {
				z, u := make([]float32, c.n), make([]float32, c.n)
				Normals(z, c.key, c.first, c.factor)
				Uniforms(u, c.key, c.first, c.factor)
				for i := range z {
					h := addr.Hash(c.key, c.first+uint64(i))
					if z[i] != float32(c.factor*addr.Norm(h)) || u[i] != float32(c.factor*(2*addr.Float64(h)-1)) {
						require.Fail(t, "other numbers", "element %d: %v and %v", i, z[i], u[i])
					}
				}
			})
		})
	}
}
