package kernel

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
)

// fill returns n numbers in [-1, 1), the same at each run.
func fill[T Float](rng *rand.Rand, n int) []T {
	s := make([]T, n)
	for i := range s {
		s[i] = T(rng.Float64()*2 - 1)
	}
	return s
}

func newRand() *rand.Rand { return rand.New(rand.NewPCG(1, 2)) }

// reference computes g in float64, straight from the definition. It returns what C and Pre must hold.
func reference[T Float](g *Gemm[T]) (c, pre []float64) {
	c, pre = make([]float64, len(g.C)), make([]float64, len(g.C))
	for i := range g.M {
		for j := range g.N {
			var s float64
			for k := range g.K {
				a, b := i*g.LDA+k, k*g.LDB+j
				if g.TransA {
					a = k*g.LDA + i
				}
				if g.TransB {
					b = j*g.LDB + k
				}
				s += float64(g.A[a]) * float64(g.B[b])
			}
			if g.Scale != 0 {
				s *= float64(g.Scale)
			}
			at := i*g.LDC + j
			if g.Accumulate {
				s += float64(g.C[at])
			}
			if g.Bias != nil {
				s += float64(g.Bias[j])
			}
			pre[at] = s
			if g.ActGrad != nil {
				s *= actGrad(g.Act, float64(g.ActGrad[at]))
			} else {
				s = actValue(g.Act, s)
			}
			if g.Residual != nil {
				s += float64(g.Residual[at])
			}
			c[at] = s
		}
	}
	return c, pre
}

// product returns a random product of the given form; pad is added to each stride.
func product[T Float](rng *rand.Rand, m, n, k, pad int, transA, transB bool) *Gemm[T] {
	g := &Gemm[T]{M: m, N: n, K: k, TransA: transA, TransB: transB, LDA: k + pad, LDB: n + pad, LDC: n + pad}
	g.A, g.B, g.C = fill[T](rng, m*g.LDA), fill[T](rng, k*g.LDB), fill[T](rng, m*g.LDC)
	if transA {
		g.LDA = m + pad
		g.A = fill[T](rng, k*g.LDA)
	}
	if transB {
		g.LDB = k + pad
		g.B = fill[T](rng, n*g.LDB)
	}
	return g
}

var forms = []struct {
	name           string
	transA, transB bool
}{{"NN", false, false}, {"NT", false, true}, {"TN", true, false}, {"TT", true, true}}

// epilogues sets each way to finish a product on a fresh one.
var epilogues = []struct {
	name string
	set  func(rng *rand.Rand, g *Gemm[float32])
}{
	{"plain", func(*rand.Rand, *Gemm[float32]) {}},
	{"accumulate", func(_ *rand.Rand, g *Gemm[float32]) { g.Accumulate = true }},
	{"accumulate, scale, bias, residual", func(rng *rand.Rand, g *Gemm[float32]) {
		g.Accumulate, g.Scale, g.Bias, g.Residual = true, -0.5, fill[float32](rng, g.N), fill[float32](rng, len(g.C))
	}},
	{"scale", func(_ *rand.Rand, g *Gemm[float32]) { g.Scale = 0.25 }},
	{"bias", func(rng *rand.Rand, g *Gemm[float32]) { g.Bias = fill[float32](rng, g.N) }},
	{"bias and residual", func(rng *rand.Rand, g *Gemm[float32]) {
		g.Bias, g.Residual = fill[float32](rng, g.N), fill[float32](rng, len(g.C))
	}},
	{"gelu", func(rng *rand.Rand, g *Gemm[float32]) { g.Act, g.Bias = ActGELU, fill[float32](rng, g.N) }},
	{"gelu kept", func(rng *rand.Rand, g *Gemm[float32]) {
		g.Act, g.Bias, g.Pre = ActGELU, fill[float32](rng, g.N), fill[float32](rng, len(g.C))
	}},
	{"tanh gelu kept, residual", func(rng *rand.Rand, g *Gemm[float32]) {
		g.Act, g.Pre, g.Residual = ActGELUTanh, fill[float32](rng, len(g.C)), fill[float32](rng, len(g.C))
	}},
	{"quick gelu", func(_ *rand.Rand, g *Gemm[float32]) { g.Act, g.Scale = ActQuickGELU, 0.5 }},
	{"derivative", func(rng *rand.Rand, g *Gemm[float32]) { g.Act, g.ActGrad = ActGELU, fill[float32](rng, len(g.C)) }},
	{"derivative, bias, residual", func(rng *rand.Rand, g *Gemm[float32]) {
		g.Act, g.ActGrad = ActQuickGELU, fill[float32](rng, len(g.C))
		g.Bias, g.Residual = fill[float32](rng, g.N), fill[float32](rng, len(g.C))
	}},
	{"kept without activation", func(rng *rand.Rand, g *Gemm[float32]) {
		g.Pre, g.Residual = fill[float32](rng, len(g.C)), fill[float32](rng, len(g.C))
	}},
}

var sizes = [][3]int{{1, 1, 1}, {1, 33, 7}, {17, 32, 17}, {13, 31, 5}, {14, 32, 16}, {15, 33, 17}, {29, 65, 31}, {5, 3, 0},
	{50, 50, 64}, {77, 77, 64}, {3, 16, 300}, {100, 17, 401}, {31, 97, 1777}, {301, 200, 3}, {64, 129, 33}, {212, 160, 128}, {6, 288, 9}}

// tolerance bounds the rounding of a sum of k products of random numbers in [-1, 1) and of what follows it. The partial sum
// walks to about √k/3, each of the k additions errs by half a unit in its last place, and those errors walk too:
// k·eps/6 in the mean. The rest is slack for the worst of many elements.
func tolerance(k int) float64 { return 0x1p-23 * float64(8+k) }

func TestMatMulMatchesReference(t *testing.T) {
	pools := []*Pool{nil, NewPool(2)}
	defer pools[1].Close()
	for _, f := range forms {
		t.Run(f.name, func(t *testing.T) {
			rng := newRand()
			for i, s := range sizes {
				for e, epi := range epilogues {
					g := product[float32](rng, s[0], s[1], s[2], (i+e)%3, f.transA, f.transB)
					epi.set(rng, g)
					before := append([]float32(nil), g.C...)
					c, pre := reference(g)
					MatMul(pools[(i+e)%2], g)
					requireMatrix(t, g, g.C, c, before, fmt.Sprintf("%v %s", s, epi.name))
					if g.Pre != nil {
						requireMatrix(t, g, g.Pre, pre, g.Pre, fmt.Sprintf("%v %s: Pre", s, epi.name))
					}
				}
			}
		})
	}
}

// requireMatrix compares the (M, N) elements of got with want and the gaps between its rows with before.
func requireMatrix(t *testing.T, g *Gemm[float32], got []float32, want []float64, before []float32, what string) {
	t.Helper()
	tol := tolerance(g.K)
	for at, v := range got {
		if at%g.LDC >= g.N {
			require.Equal(t, before[at], v, "%s: wrote into the gap after row %d", what, at/g.LDC)
		} else if d := math.Abs(float64(v) - want[at]); !(d <= tol) {
			require.Failf(t, "wrong element", "%s: row %d, column %d: got %v, want %v", what, at/g.LDC, at%g.LDC, v, want[at])
		}
	}
}

func TestMatMulFloat64(t *testing.T) {
	for _, f := range forms {
		g := product[float64](newRand(), 19, 23, 41, 2, f.transA, f.transB)
		g.Bias, g.Act = fill[float64](newRand(), 23), ActGELU
		c, _ := reference(g)
		MatMul(nil, g)
		for i := range g.M {
			require.InDeltaSlice(t, c[i*g.LDC:][:g.N], g.C[i*g.LDC:][:g.N], 1e-13, f.name)
		}
	}
}
