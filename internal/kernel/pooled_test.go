package kernel

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
)

// lastRows gives PooledAttention what Attention computes for the last row of each sequence.
func lastRows[T Float](t testing.TB, a *Attention[T]) *PooledAttention[T] {
	d, n, rows := a.Heads*a.HeadDim, len(a.Offsets)-1, int(a.Offsets[len(a.Offsets)-1])
	p := &PooledAttention[T]{
		Q: make([]T, n*d), KV: make([]T, rows*2*d), Offsets: a.Offsets, Heads: a.Heads, HeadDim: a.HeadDim, DOut: make([]T, n*d),
		Out: fenced[T](t, n*d), LSE: fenced[T](t, n*a.Heads), DQ: fenced[T](t, n*d), DKV: fenced[T](t, rows*2*d),
	}
	last := map[int]bool{}
	for s := range n {
		r := int(a.Offsets[s+1]) - 1
		if r < int(a.Offsets[s]) {
			continue
		}
		last[r] = true
		copy(p.Q[s*d:(s+1)*d], a.QKV[r*3*d:])
		copy(p.DOut[s*d:(s+1)*d], a.DOut[r*d:])
	}
	for r := range rows {
		copy(p.KV[r*2*d:(r+1)*2*d], a.QKV[r*3*d+d:])
		if !last[r] {
			clear(a.DOut[r*d : (r+1)*d]) // nothing else is read
		}
	}
	return p
}

// The last rows of a sequence see all of it, so both kernels agree on them, forward and backward, in each family and for any
// number of threads.
func TestPooledEqualsAttention(t *testing.T) {
	offsets := []int32{0, 1, 4, 21, 38, 100, 117}
	for _, dim := range []int{1, 5, 32, 64, 80} {
		t.Run(fmt.Sprint("float64, dim ", dim), func(t *testing.T) { pooledEquals[float64](t, offsets, dim, false, 1e-12) })
		eachFamily(t, func(t *testing.T) {
			t.Run(fmt.Sprint("float32, dim ", dim), func(t *testing.T) { pooledEquals[float32](t, offsets, dim, false, 2e-5) })
			t.Run(fmt.Sprint("bf16, dim ", dim), func(t *testing.T) { pooledEquals[float32](t, offsets, dim, true, 1e-2) })
		})
	}
}

func pooledEquals[T Float](t *testing.T, offsets []int32, dim int, bf16 bool, tol float64) {
	a := newAttention[T](t, offsets, 2, dim, false)
	p := lastRows(t, a)
	a.BF16, p.BF16 = bf16, bf16
	AttentionForward(nil, a)
	AttentionBackward(nil, a)
	PooledForward(nil, p)
	PooledBackward(nil, p)
	d := 2 * dim
	for s := 0; s+1 < len(offsets); s++ {
		r := int(offsets[s+1]) - 1
		require.InDeltaSlice(t, a.Out[r*d:(r+1)*d], p.Out[s*d:(s+1)*d], tol)
		require.InDeltaSlice(t, a.DQKV[r*3*d:r*3*d+d], p.DQ[s*d:(s+1)*d], tol)
	}
	for r := range int(offsets[len(offsets)-1]) {
		require.InDeltaSlice(t, a.DQKV[r*3*d+d:(r+1)*3*d], p.DKV[r*2*d:(r+1)*2*d], tol)
	}
	once := append(append([]T(nil), p.Out...), append(p.DQ, p.DKV...)...)
	pool := NewPool(3)
	defer pool.Close()
	PooledForward(pool, p)
	PooledBackward(pool, p)
	require.Equal(t, once, append(append([]T(nil), p.Out...), append(p.DQ, p.DKV...)...))
}
