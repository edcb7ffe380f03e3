package kernel

import (
	"fmt"
	"math"
	"slices"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// guarded returns a copy of s that ends, or begins, where a page begins, or ends, that nobody may touch: one element too far
// and the test dies.
func guarded[T float32 | uint16](t *testing.T, s []T, atEnd bool) []T {
	t.Helper()
	page, bytes := unix.Getpagesize(), len(s)*int(unsafe.Sizeof(T(0)))
	size := (bytes+page-1)/page*page + 2*page
	b, err := unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, unix.Munmap(b)) })
	require.NoError(t, unix.Mprotect(b[:page], unix.PROT_NONE))
	require.NoError(t, unix.Mprotect(b[size-page:], unix.PROT_NONE))
	if len(s) == 0 {
		return nil
	}
	from := page
	if atEnd {
		from = size - page - bytes
	}
	g := unsafe.Slice((*T)(unsafe.Pointer(&b[from])), len(s))
	copy(g, s)
	return g
}

func TestMatMulStaysInsideItsSlices(t *testing.T) {
	p := NewPool(2)
	defer p.Close()
	eachMultiplier(t, func(t *testing.T, bf16 bool) {
		for _, f := range forms {
			rng := newRand()
			for i, s := range sizes {
				g := product[float32](rng, s[0], s[1], s[2], 0, f.transA, f.transB)
				g.BF16 = bf16
				switch i % 3 {
				case 0:
					g.Pre, g.Act = make([]float32, len(g.C)), ActQuickGELU
				case 1:
					g.Accumulate = true
				}
				g.Bias, g.Residual = fill[float32](rng, g.N), fill[float32](rng, len(g.C))
				want, _ := run(1, g)
				for _, atEnd := range []bool{true, false} {
					h := *g
					for _, x := range []*[]float32{&h.A, &h.B, &h.C, &h.Bias, &h.Residual, &h.Pre} {
						if *x != nil {
							*x = guarded(t, *x, atEnd)
						}
					}
					MatMul(p, &h)
					require.Equal(t, want, append([]float32(nil), h.C...), fmt.Sprintf("%s %v", f.name, s))
				}
			}
		}
	})
}

// stays fails unless f gives the same results when guard lets nobody touch what lies before, and what lies behind, each slice.
func stays(t *testing.T, what string, f func(guard func([]float32) []float32) [][]float32) {
	t.Helper()
	want := f(func(s []float32) []float32 { return append([]float32(nil), s...) })
	for _, atEnd := range []bool{true, false} {
		for i, got := range f(func(s []float32) []float32 { return guarded(t, s, atEnd) }) {
			require.True(t, slices.EqualFunc(want[i], got, func(a, b float32) bool { return math.Float32bits(a) == math.Float32bits(b) }),
				"%s, result %d", what, i)
		}
	}
}

func TestRowsStayInsideTheirSlices(t *testing.T) {
	eachFamily(t, func(t *testing.T) {
		for _, n := range oddSizes {
			a, b, c, d := normals[float32]("a", n), normals[float32]("b", n), normals[float32]("c", n), normals[float32]("d", n)
			one := func(what string, f func(x, y []float32)) {
				stays(t, fmt.Sprint(what, " of ", n), func(guard func([]float32) []float32) [][]float32 {
					x, y := guard(a), guard(b)
					f(x, y)
					return [][]float32{x, y}
				})
			}
			one("add", func(x, y []float32) { addInto(x, x, y) })
			one("add scaled", func(x, y []float32) { addScaled(x, 0.5, y) })
			one("scale", func(x, y []float32) { scaleInto(x, y, 0.5) })
			one("round", func(x, y []float32) { roundInto(x, y) })
			one("lerp", func(x, y []float32) { lerp(x, y, 0.5) })
			one("dot", func(x, y []float32) { y[0] = dot(x, y) })
			one("sum of squares", func(x, y []float32) { y[0] = float32(sumSquares(x)) })
			one("maximum", func(x, y []float32) { y[0] = rowMax(x) })
			one("sum of exponentials", func(x, y []float32) { y[0] = expSum(x, 1) })
			one("gradient of softmax", func(x, _ []float32) { softmaxGradRow(x, 1, 2, 0.1) })
			for act := ActGELU; act <= ActTanh; act++ {
				one(act.String(), func(x, y []float32) { actRow(act, x, y) })
				one(act.String()+" derivative", func(x, y []float32) { actGradRow(act, x, y) })
			}
			one("softplus", func(x, y []float32) { y[0] = softplusSum(x) })
			one("normals", func(x, _ []float32) { Normals(x, 1, 2, 0.5) })
			one("uniforms", func(x, _ []float32) { Uniforms(x, 1, 2, 0.5) })
			one("sigmoid", func(x, _ []float32) { sigmoidRow(x, 0.5) })
			one("infonce", func(x, y []float32) { infoNCEProbabilities(x, 1, y, 2, 0.1) })
			one("sums of columns of exponentials", func(x, y []float32) { columnsExpSum(x, y, append([]float32(nil), y...), 1, n) })
			if n <= columnStrip {
				one("column sum", func(x, y []float32) { colSum(x, y, 1, n) })
			}
			stays(t, fmt.Sprint("adamw of ", n), func(guard func([]float32) []float32) [][]float32 {
				w, g, m, v := guard(a), guard(b), guard(c), guard(d)
				for i := range v {
					v[i] *= v[i]
				}
				k := AdamWStep{LR: 0.1, Beta1: 0.9, Beta2: 0.99, Eps: 1e-8, Correction1: 0.3, Correction2: 0.1, GradScale: 1}.constants()
				adamW(w, g, m, v, &k)
				return [][]float32{w, m, v}
			})
			const rows = 3
			x3, dy3 := normals[float32]("x", rows*n), normals[float32]("dy", rows*n)
			stays(t, fmt.Sprint("layer norm of ", n), func(guard func([]float32) []float32) [][]float32 {
				x, dy, y, dx, gamma, beta := guard(x3), guard(dy3), guard(x3), guard(x3), guard(a), guard(b)
				mean, rstd, dgamma, dbeta := guard(x3[:rows]), guard(x3[:rows]), guard(c), guard(d)
				LayerNorm(nil, y, mean, rstd, x, gamma, beta, rows, n, 1e-5)
				LayerNormBackward(nil, dx, dgamma, dbeta, dy, x, mean, rstd, gamma, nil, rows, n)
				return [][]float32{y, mean, rstd, dx, dgamma, dbeta}
			})
		}
	})
}

func TestAttentionStaysInsideItsSlices(t *testing.T) {
	eachMultiplier(t, func(t *testing.T, bf16 bool) {
		for _, dim := range []int{1, 15, 32, 33, 80} {
			for _, offsets := range [][]int32{{0, 1}, {0, 5, 22}, {0, 33}} {
				what := fmt.Sprintf("dim %d, offsets %v", dim, offsets)
				stays(t, what, func(guard func([]float32) []float32) [][]float32 {
					a := withBias(newAttention[float32](t, offsets, 2, dim, dim == 32))
					a.BF16 = bf16
					for _, s := range []*[]float32{&a.QKV, &a.Out, &a.LSE, &a.DOut, &a.DQKV, &a.Bias.Add, &a.Bias.DAdd} {
						*s = guard(*s)
					}
					AttentionForward(nil, a)
					AttentionBackward(nil, a)
					return [][]float32{a.Out, a.LSE, a.DQKV, a.Bias.DAdd}
				})
				stays(t, what+", pooled", func(guard func([]float32) []float32) [][]float32 {
					a := lastRows(t, newAttention[float32](t, offsets, 2, dim, false))
					a.BF16 = bf16
					c := CrossAttention[float32]{Q: guard(a.Q), KV: guard(a.KV), Offsets: offsets, Heads: 2, HeadDim: dim, BF16: bf16,
						Out: guard(a.Out), LSE: guard(a.LSE), DOut: guard(a.DOut), DQ: guard(a.DQ), DKV: guard(a.DKV)}
					for i := range offsets {
						c.QOffsets = append(c.QOffsets, int32(i))
					}
					for _, s := range []*[]float32{&a.Q, &a.KV, &a.Out, &a.LSE, &a.DOut, &a.DQ, &a.DKV} {
						*s = guard(*s)
					}
					PooledForward(nil, a)
					PooledBackward(nil, a)
					CrossForward(nil, &c)
					CrossBackward(nil, &c)
					return [][]float32{a.Out, a.LSE, a.DQ, a.DKV, c.Out, c.LSE, c.DQ, c.DKV}
				})
			}
		}
	})
}

func TestHalvesStayInsideTheirSlices(t *testing.T) {
	eachMultiplier(t, func(t *testing.T, bf16 bool) {
		for i, s := range sizes {
			f := forms[i%len(forms)]
			g := product[float32](newRand(), s[0], s[1], s[2], 0, f.transA, f.transB)
			g.BF16 = bf16
			want := *g
			switch i % 3 {
			case 0:
				g.C, g.C16 = nil, make([]uint16, len(g.C))
				want.C, want.C16 = nil, make([]uint16, len(g.C16))
			case 1:
				g.Act, g.Pre16 = ActQuickGELU, make([]uint16, len(g.C))
				want.Act, want.Pre16 = ActQuickGELU, make([]uint16, len(g.C))
			default:
				g.Act, g.ActGrad16 = ActQuickGELU, narrowed(fill[float32](newRand(), len(g.C)))
				want.Act, want.ActGrad16 = g.Act, g.ActGrad16
			}
			want.C = slices.Clone(g.C)
			MatMul(nil, &want)
			for _, atEnd := range []bool{true, false} {
				h := *g
				h.C = slices.Clone(g.C)
				for _, x := range []*[]uint16{&h.C16, &h.Pre16, &h.ActGrad16} {
					if *x != nil {
						*x = guarded(t, *x, atEnd)
					}
				}
				MatMul(nil, &h)
				require.True(t, slices.Equal(want.C, h.C) && slices.Equal(want.C16, h.C16) && slices.Equal(want.Pre16, h.Pre16), "%s %v", f.name, s)
			}
		}
		for _, n := range oddSizes {
			x := normals[float32]("x", n)
			for _, atEnd := range []bool{true, false} {
				half, back := guarded(t, make([]uint16, n), atEnd), guarded(t, x, atEnd)
				narrow(half, guarded(t, x, atEnd))
				widen(back, half)
				require.Equal(t, widened(narrowed(x)), slices.Clone(back))
			}
		}
		for _, dim := range []int{2, 16, 34, 48, 80} {
			for _, offsets := range [][]int32{{0, 1}, {0, 5, 22}, {0, 33}} {
				for _, atEnd := range []bool{true, false} {
					a := newAttention[float32](t, offsets, 2, dim, dim == 16)
					a.BF16, a.QKV16 = true, guarded(t, narrowed(a.QKV), atEnd)
					AttentionForward(nil, a)
					AttentionBackward(nil, a)
				}
			}
		}
	})
}
