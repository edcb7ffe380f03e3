package kernel

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

func narrowed(x []float32) []uint16 {
	y := make([]uint16, len(x))
	for i, v := range x {
		y[i] = toBF16(v)
	}
	return y
}

func widened(x []uint16) []float32 {
	y := make([]float32, len(x))
	for i, v := range x {
		y[i] = fromBF16(v)
	}
	return y
}

func TestNarrowAndWidenMatchTwin(t *testing.T) {
	rng := newRand()
	eachMultiplier(t, func(t *testing.T, _ bool) {
		for _, n := range oddSizes {
			x := make([]float32, n)
			for i := range x {
				if x[i] = math.Float32frombits(rng.Uint32()); i%7 == 0 {
					x[i] = math.Float32frombits(rng.Uint32() & 0x807f_ffff) // subnormal
				}
			}
			half := make([]uint16, n+1)
			half[n] = 7
			narrow(half[:n], x)
			require.Equal(t, append(narrowed(x), 7), half)
			wide := fenced[float32](t, n)
			widen(wide, half[:n])
			for i, v := range wide {
				require.Equal(t, uint32(half[i])<<16, math.Float32bits(v))
			}
		}
	})
}

// A product into bfloat16, or with kept arguments of its activation in bfloat16, is the one in float32, rounded.
func TestMatMulStoresBF16(t *testing.T) {
	pools := []*Pool{nil, NewPool(2)}
	defer pools[1].Close()
	eachMultiplier(t, func(t *testing.T, bf16 bool) {
		for i, s := range append(sizes, [3]int{40, 700, 100}, [3]int{17, 300, 1601}, [3]int{150, 96, 3300}) {
			for e, epi := range epilogues {
				if (i+e)%5 != 0 {
					continue
				}
				what := fmt.Sprintf("%v %s", s, epi.name)
				f := forms[(i+e)%len(forms)]
				g := product[float32](rand.New(rand.NewPCG(uint64(i), uint64(e))), s[0], s[1], s[2], i%2, f.transA, f.transB)
				g.BF16 = bf16
				epi.set(newRand(), g)
				if g.Accumulate {
					continue
				}
				h := *g
				if g.ActGrad != nil {
					h.ActGrad, h.ActGrad16 = nil, narrowed(g.ActGrad)
					g.ActGrad = widened(h.ActGrad16)
				}
				if g.Pre != nil {
					h.Pre, h.Pre16 = nil, narrowed(g.Pre)
				}
				h.C = slices.Clone(g.C)
				into := *g
				if into.Act == ActNone && into.Pre == nil && into.Residual == nil {
					into.C, into.C16 = nil, narrowed(g.C)
				}
				MatMul(pools[0], g)
				MatMul(pools[1], &h)
				MatMul(pools[e%2], &into)
				require.True(t, slices.Equal(g.C, h.C), what)
				require.True(t, slices.Equal(narrowed(g.Pre), h.Pre16), "%s, Pre16", what)
				require.True(t, into.C16 == nil || slices.Equal(narrowed(g.C), into.C16), "%s, C16", what)
			}
		}
	})
}

func TestMatMulRefusesHalvesThatDoNotFit(t *testing.T) {
	for name, spoil := range map[string]func(g *Gemm[float32]){
		"C16":        func(g *Gemm[float32]) { g.C16 = make([]uint16, 11) },
		"Pre16":      func(g *Gemm[float32]) { g.Pre16 = make([]uint16, 11) },
		"ActGrad16":  func(g *Gemm[float32]) { g.ActGrad16 = make([]uint16, 11) },
		"accumulate": func(g *Gemm[float32]) { g.C16, g.Accumulate = make([]uint16, 12), true },
		"two uses":   func(g *Gemm[float32]) { g.Pre16, g.ActGrad16 = make([]uint16, 12), make([]uint16, 12) },
		"activation": func(g *Gemm[float32]) { g.C16, g.Act = make([]uint16, 12), ActGELU },
		"residual":   func(g *Gemm[float32]) { g.C16, g.Residual = make([]uint16, 12), make([]float32, 12) },
	} {
		g := product[float32](newRand(), 3, 4, 5, 0, false, false)
		spoil(g)
		require.Panics(t, func() { MatMul(nil, g) }, name)
	}
}

func TestActivationsOfBF16(t *testing.T) {
	eachFamily(t, func(t *testing.T) {
		for _, n := range []int{1, 511, 513, flatPiece + 3} {
			x, dy := narrowed(normals[float32]("x", n)), normals[float32]("dy", n)
			for act := ActGELU; act <= ActTanh; act++ {
				y, dx, want, dwant := make([]float32, n), slices.Clone(dy), make([]float32, n), make([]float32, n)
				ActForward16(nil, act, y, x)
				ActBackward16(nil, act, dx, dx, x)
				ActForward(nil, act, want, widened(x))
				ActBackward(nil, act, dwant, dy, widened(x))
				require.True(t, slices.Equal(want, y), "%s of %d", act, n)
				require.True(t, slices.Equal(dwant, dx), "derivative of %s of %d", act, n)
			}
		}
	})
}

// Attention rounds what it multiplies, so it makes no difference whether that was stored in bfloat16.
func TestAttentionReadsBF16(t *testing.T) {
	p := NewPool(2)
	defer p.Close()
	eachMultiplier(t, func(t *testing.T, bf16 bool) {
		if !bf16 {
			return
		}
		for i, dim := range []int{2, 16, 30, 34, 48, 64, 80} {
			for j, offsets := range [][]int32{{0, 1}, {0, 2, 5}, {0, 17, 34, 35}, {0, 50}, {0, 210}} {
				a := newAttention[float32](t, offsets, 2, dim, j%2 == 0)
				b := newAttention[float32](t, offsets, 2, dim, j%2 == 0)
				a.BF16, b.BF16 = true, true
				results := [][]float32{b.Out, b.LSE, b.DQKV}
				if i%3 == 0 {
					withBias(a)
					results = append(results, withBias(b).Bias.DAdd)
				}
				b.QKV, b.QKV16 = nil, narrowed(b.QKV)
				for _, x := range []*Attention[float32]{a, b} {
					AttentionForward(p, x)
					AttentionBackward(p, x)
				}
				for k, want := range [][]float32{a.Out, a.LSE, a.DQKV} {
					require.True(t, slices.Equal(want, results[k]), "dim %d, offsets %v, result %d", dim, offsets, k)
				}
				require.True(t, a.Bias == nil || slices.Equal(a.Bias.DAdd, results[3]), "dim %d, offsets %v, bias", dim, offsets)
			}
		}
	})
	for name, spoil := range map[string]func(a *Attention[float32]){
		"float32":  func(a *Attention[float32]) { a.BF16 = false },
		"odd head": func(a *Attention[float32]) { a.Heads, a.HeadDim = 4, 1 },
	} {
		a := newAttention[float32](t, []int32{0, 3}, 1, 4, false)
		a.QKV16, a.BF16 = narrowed(a.QKV), true
		spoil(a)
		require.Panics(t, func() { AttentionForward(nil, a) }, name)
	}
}

// The same holds for keys and values that other rows attend to: those of their own sequence, of another one, or one row of each.
func TestCrossAttentionReadsBF16(t *testing.T) {
	const heads = 2
	offsets, qOffsets, reads := []int32{0, 37, 40, 101, 102}, []int32{0, 1, 8, 8, 21}, []int32{2, 0, 0, 2}
	eachMultiplier(t, func(t *testing.T, bf16 bool) {
		if !bf16 {
			return
		}
		for _, dim := range []int{2, 24, 64} {
			pooled := lastRows(t, newAttention[float32](t, offsets, heads, dim, false))
			q := normals[float32]("queries", 21*heads*dim)
			for _, reads := range [][]int32{nil, reads} {
				cross := func(kv []float32, kv16 []uint16) [][]float32 {
					c := CrossAttention[float32]{Q: q, KV: kv, KV16: kv16, QOffsets: qOffsets, Offsets: offsets, Reads: reads, Heads: heads, HeadDim: dim, BF16: true,
						Out: fenced[float32](t, len(q)), LSE: fenced[float32](t, 21*heads), DOut: q, DQ: fenced[float32](t, len(q)), DKV: fenced[float32](t, len(pooled.KV))}
					CrossForward(nil, &c)
					CrossBackward(nil, &c)
					return [][]float32{c.Out, c.LSE, c.DQ, c.DKV}
				}
				require.Equal(t, cross(pooled.KV, nil), cross(nil, narrowed(pooled.KV)), "dim %d, reads %v", dim, reads)
			}
			one := func(kv []float32, kv16 []uint16) [][]float32 {
				a := *pooled
				a.KV, a.KV16, a.BF16 = kv, kv16, true
				a.Out, a.LSE, a.DQ, a.DKV = slices.Clone(a.Out), slices.Clone(a.LSE), slices.Clone(a.DQ), slices.Clone(a.DKV)
				PooledForward(nil, &a)
				PooledBackward(nil, &a)
				return [][]float32{a.Out, a.LSE, a.DQ, a.DKV}
			}
			require.Equal(t, one(pooled.KV, nil), one(nil, narrowed(pooled.KV)), "dim %d, pooled", dim)
		}
	})
}
