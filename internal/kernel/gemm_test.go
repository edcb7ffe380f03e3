package kernel

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
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
				if g.BF16 {
					s += float64(roundBF16(float32(g.A[a]))) * float64(roundBF16(float32(g.B[b])))
				} else {
					s += float64(g.A[a]) * float64(g.B[b])
				}
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
	{50, 50, 64}, {77, 77, 64}, {3, 16, 300}, {100, 17, 401}, {31, 97, 1777}, {301, 200, 3}, {64, 129, 33}, {212, 160, 128}, {6, 288, 9}, {47, 130, 1024}, {1024, 97, 5}}

// tolerance bounds the rounding of a sum of k products of random numbers in [-1, 1) and of what follows it. The partial sum
// walks to about √k/3, each of the k additions errs by half a unit in its last place, and those errors walk too:
// k·eps/6 in the mean. The rest is slack for the worst of many elements.
func tolerance(k int) float64 { return 0x1p-23 * float64(8+k) }

// eachFamily runs f with every kernel family this machine has.
func eachFamily(t *testing.T, f func(t *testing.T)) {
	own := Family()
	defer func() { require.NoError(t, SetFamily(own)) }()
	for _, name := range Families() {
		require.NoError(t, SetFamily(name))
		t.Run(name, f)
	}
}

// eachMultiplier is eachFamily for products with and without BF16, the former also without the processor's instructions for it.
func eachMultiplier(t *testing.T, f func(t *testing.T, bf16 bool)) {
	eachFamily(t, func(t *testing.T) {
		t.Run("float32", func(t *testing.T) { f(t, false) })
		t.Run("bf16", func(t *testing.T) { f(t, true) })
		if useAVX512 && hasBF16 {
			defer func() { hasBF16 = true }()
			hasBF16 = false
			t.Run("bf16 by rounding", func(t *testing.T) { f(t, true) })
		}
	})
}

func TestMatMulMatchesReference(t *testing.T) {
	pools := []*Pool{nil, NewPool(2)}
	defer pools[1].Close()
	eachMultiplier(t, func(t *testing.T, bf16 bool) {
		for _, f := range forms {
			t.Run(f.name, func(t *testing.T) {
				rng := newRand()
				for i, s := range sizes {
					for e, epi := range epilogues {
						if e > 0 && s[0]*s[1]*s[2] > 1<<20 && (i+e)%3 != 0 || bf16 && (i+e)%5 != 0 {
							continue // the large ones take a third of the epilogues each, bfloat16 a fifth
						}
						g := product[float32](rng, s[0], s[1], s[2], (i+e)%3, f.transA, f.transB)
						g.BF16 = bf16
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
	})
}

// run computes a copy of g with a C of its own on n threads and returns C and Pre.
func run(n int, g *Gemm[float32]) (c, pre []float32) {
	h := *g
	h.C = append([]float32(nil), g.C...)
	if g.Pre != nil {
		h.Pre = make([]float32, len(g.Pre))
		copy(h.Pre, g.Pre)
	}
	p := NewPool(n)
	defer p.Close()
	MatMul(p, &h)
	return h.C, h.Pre
}

func TestMatMulBitsDoNotDependOnThreads(t *testing.T) {
	eachMultiplier(t, func(t *testing.T, bf16 bool) {
		for _, f := range forms {
			rng := newRand()
			for _, s := range [][3]int{{544, 130, 33}, {40, 700, 100}, {17, 300, 1601}, {200, 96, 777}} {
				for _, epi := range []int{0, 2, 7} {
					epi := epilogues[epi]
					g := product[float32](rng, s[0], s[1], s[2], 0, f.transA, f.transB)
					g.BF16 = bf16
					epi.set(rng, g)
					c1, pre1 := run(1, g)
					for _, threads := range []int{2, 3} {
						c, pre := run(threads, g)
						require.True(t, slices.Equal(c1, c), "%s %v %s: C on %d threads", f.name, s, epi.name, threads)
						require.True(t, slices.Equal(pre1, pre), "%s %v %s: Pre on %d threads", f.name, s, epi.name, threads)
					}
				}
			}
		}
	})
}

func TestMatMulBitsDoNotDependOnHowRowsAndColumnsAreCut(t *testing.T) {
	eachMultiplier(t, func(t *testing.T, bf16 bool) {
		for _, f := range forms {
			for _, k := range []int{5, 100, 1601} {
				g := product[float32](newRand(), 90, 150, k, 0, f.transA, f.transB)
				g.BF16 = bf16
				g.Bias, g.Residual = fill[float32](newRand(), g.N), fill[float32](newRand(), len(g.C))
				want, _ := run(1, g)
				for _, cut := range []int{1, 13, 47, 86} {
					top, bottom := *g, *g
					top.M, bottom.M = cut, g.M-cut
					if g.TransA {
						bottom.A = g.A[cut:]
					} else {
						bottom.A = g.A[cut*g.LDA:]
					}
					top.C, bottom.C, bottom.Residual = g.C[:cut*g.LDC], g.C[cut*g.LDC:], g.Residual[cut*g.LDC:]
					c0, _ := run(1, &top)
					c1, _ := run(1, &bottom)
					require.True(t, slices.Equal(want, append(c0, c1...)), "%s, k %d, rows cut at %d", f.name, k, cut)

					right := *g
					right.N, right.Bias, right.C, right.Residual = g.N-cut, g.Bias[cut:], g.C[cut:], g.Residual[cut:]
					if g.TransB {
						right.B = g.B[cut*g.LDB:]
					} else {
						right.B = g.B[cut:]
					}
					c, _ := run(1, &right)
					for i := range g.M {
						require.True(t, slices.Equal(want[i*g.LDC+cut:(i+1)*g.LDC], c[i*g.LDC:][:right.N]),
							"%s, k %d, row %d, columns cut at %d", f.name, k, i, cut)
					}
				}
			}
		}
	})
}

func TestMatMulSpreadsNaNAndInfOnlyWhereTheyBelong(t *testing.T) {
	inf, nan := float32(math.Inf(1)), float32(math.NaN())
	eachMultiplier(t, func(t *testing.T, bf16 bool) {
		for _, f := range forms {
			for _, m := range []int{33, 61} { // B in place and packed
				g := product[float32](newRand(), m, 47, 19, 0, f.transA, f.transB)
				ai, bi := 32*g.LDA+18, 18*g.LDB+46 // the last k: row 32 of A, the last column of B
				if f.transA {
					ai = 18*g.LDA + 32
				}
				if f.transB {
					bi = 46*g.LDB + 18
				}
				g.A[ai], g.B[bi] = nan, inf
				g.BF16 = bf16
				MatMul(nil, g)
				for i := range g.M {
					for j := range g.N {
						v := float64(g.C[i*g.LDC+j])
						switch {
						case i == 32:
							require.True(t, math.IsNaN(v), "%s: row %d, column %d: %v", f.name, i, j, v)
						case j == 46:
							require.True(t, math.IsInf(v, 0), "%s: row %d, column %d: %v", f.name, i, j, v)
						default:
							require.False(t, math.IsNaN(v) || math.IsInf(v, 0), "%s: row %d, column %d: %v", f.name, i, j, v)
						}
					}
				}
			}
		}
	})
}

func TestMatMulDoesNotReadC(t *testing.T) {
	eachFamily(t, func(t *testing.T) {
		for _, k := range []int{0, 7, 900} {
			g := product[float32](newRand(), 20, 40, k, 0, false, true)
			for i := range g.C {
				g.C[i] = float32(math.NaN())
			}
			c, _ := reference(g)
			MatMul(nil, g)
			requireMatrix(t, g, g.C, c, g.C, fmt.Sprintf("k %d", k))
		}
	})
}

func TestMatMulRefusesShortSlices(t *testing.T) {
	for name, spoil := range map[string]func(g *Gemm[float32]){
		"A":          func(g *Gemm[float32]) { g.A = g.A[1:] },
		"B":          func(g *Gemm[float32]) { g.B = g.B[1:] },
		"C":          func(g *Gemm[float32]) { g.C = g.C[1:] },
		"stride":     func(g *Gemm[float32]) { g.LDB-- },
		"bias":       func(g *Gemm[float32]) { g.Bias = make([]float32, g.N-1) },
		"residual":   func(g *Gemm[float32]) { g.Residual = g.C[1:] },
		"negative":   func(g *Gemm[float32]) { g.K = -1 },
		"accumulate": func(g *Gemm[float32]) { g.Accumulate, g.Act = true, ActGELU },
		"two uses":   func(g *Gemm[float32]) { g.Pre, g.ActGrad = make([]float32, 12), make([]float32, 12) },
	} {
		g := product[float32](newRand(), 3, 4, 5, 0, false, false)
		spoil(g)
		require.Panics(t, func() { MatMul(nil, g) }, name)
	}
}

func TestMatMulAllocatesNothing(t *testing.T) {
	p := NewPool(2)
	defer p.Close()
	eachFamily(t, func(t *testing.T) {
		for _, f := range forms {
			g := product[float32](newRand(), 200, 200, 50, 0, f.transA, f.transB)
			require.Zero(t, testing.AllocsPerRun(20, func() { MatMul(p, g) }), f.name)
		}
	})
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

// Sums of subnormal products stay subnormal, but for products of bfloat16 (Gemm.BF16).
func TestMatMulKeepsSubnormals(t *testing.T) {
	eachFamily(t, func(t *testing.T) {
		const n, k = 37, 5
		g := product[float32](newRand(), n, n, k, 0, false, false)
		for i := range g.A {
			g.A[i] = float32(i%7) * 1e-45
			g.B[i] = 1
		}
		MatMul(nil, g)
		for i := range n {
			want := float32(0)
			for _, v := range g.A[i*k : (i+1)*k] {
				want += v
			}
			for j := range n {
				require.Equal(t, want, g.C[i*n+j])
			}
		}
	})
}
