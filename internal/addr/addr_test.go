package addr

import (
	"fmt"
	"math"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestPermIsABijection(t *testing.T) {
	for _, n := range []uint64{1, 2, 3, 4, 5, 16, 17, 1000, 4097} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			p := NewPerm(Hash(n), n)
			seen := make([]bool, n)
			for i := range n {
				j := p.At(i)
				require.Less(t, j, n)
				require.False(t, seen[j], "%d twice", j)
				seen[j] = true
			}
		})
	}
}

func TestPermDependsOnKey(t *testing.T) {
	const n = 1000
	a, b := NewPerm(1, n), NewPerm(2, n)
	same := 0
	for i := range uint64(n) {
		if a.At(i) == b.At(i) {
			same++
		}
	}
	require.Less(t, same, 10) // one fixed match is expected on average; ten have probability 1e-7
}

func TestHashOrderMatters(t *testing.T) {
	require.NotEqual(t, Hash(1, 2), Hash(2, 1))
	require.NotEqual(t, Hash(1), Hash(1, 0))
	require.NotEqual(t, Name("crop"), Name("flip"))
}

// The bounds are five standard errors of the mean of 1e5 numbers.
func TestMoments(t *testing.T) {
	const n = 100000
	var u, g, g2 float64
	for i := range uint64(n) {
		u += Float64(Hash(7, i))
		z := Norm(Hash(8, i))
		g += z
		g2 += z * z
	}
	require.InDelta(t, 0.5, u/n, 5*math.Sqrt(1.0/12/n))
	require.InDelta(t, 0, g/n, 5/math.Sqrt(n))
	require.InDelta(t, 1, g2/n, 5*math.Sqrt(2.0/n))
}
