package kernel

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
)

// Queries that are some of the rows of the keys' own sequences, of one of them none, get what Attention computes for them, forward and backward, in
// each family and for any number of threads.
func TestCrossEqualsAttention(t *testing.T) {
	offsets := []int32{0, 1, 4, 21, 38, 100, 230}
	for _, dim := range []int{1, 5, 32, 80} {
		t.Run(fmt.Sprint("float64, dim ", dim), func(t *testing.T) { crossEquals[float64](t, offsets, dim, false, 1e-12) })
		eachFamily(t, func(t *testing.T) {
			t.Run(fmt.Sprint("float32, dim ", dim), func(t *testing.T) { crossEquals[float32](t, offsets, dim, false, 2e-5) })
			t.Run(fmt.Sprint("bf16, dim ", dim), func(t *testing.T) { crossEquals[float32](t, offsets, dim, true, 1e-2) })
		})
	}
}

func crossEquals[T Float](t *testing.T, offsets []int32, dim int, bf16 bool, tol float64) {
	const heads = 2
	a, d := withBias(newAttention[T](t, offsets, heads, dim, false)), heads*dim
	a.BF16 = bf16
	rows := int(offsets[len(offsets)-1])
	var picked []int // every third row of a sequence, beginning with its first
	qOffsets := []int32{0}
	for s := range len(offsets) - 1 {
		for r := offsets[s]; r < offsets[s+1]; r++ {
			if (r-offsets[s])%3 == 0 && s != 1 {
				picked = append(picked, int(r))
			} else {
				clear(a.DOut[int(r)*d : int(r+1)*d])
			}
		}
		qOffsets = append(qOffsets, int32(len(picked)))
	}
	n := len(picked)
	c := &CrossAttention[T]{
		Q: make([]T, n*d), KV: make([]T, rows*2*d), QOffsets: qOffsets, Offsets: offsets, Heads: heads, HeadDim: dim, DOut: make([]T, n*d),
		Out: fenced[T](t, n*d), LSE: fenced[T](t, n*heads), DQ: fenced[T](t, n*d), DKV: fenced[T](t, rows*2*d), BF16: bf16,
	}
	b := *a.Bias
	b.Queries, b.DAdd, c.Bias = make([]int32, n), append([]T(nil), b.DAdd...), &b
	before := append([]T(nil), b.DAdd...)
	for i, r := range picked {
		b.Queries[i] = b.Keys[r]
		copy(c.Q[i*d:(i+1)*d], a.QKV[r*3*d:])
		copy(c.DOut[i*d:(i+1)*d], a.DOut[r*d:])
	}
	for r := range rows {
		copy(c.KV[r*2*d:(r+1)*2*d], a.QKV[r*3*d+d:])
	}
	AttentionForward(nil, a)
	AttentionBackward(nil, a)
	CrossForward(nil, c)
	CrossBackward(nil, c)
	for i, r := range picked {
		require.InDeltaSlice(t, a.Out[r*d:(r+1)*d], c.Out[i*d:(i+1)*d], tol)
		require.InDeltaSlice(t, a.DQKV[r*3*d:r*3*d+d], c.DQ[i*d:(i+1)*d], tol)
	}
	for r := range rows {
		require.InDeltaSlice(t, a.DQKV[r*3*d+d:(r+1)*3*d], c.DKV[r*2*d:(r+1)*2*d], tol)
	}
	require.InDeltaSlice(t, a.Bias.DAdd, b.DAdd, tol)
	all := func() []T { return append(append(append(append([]T(nil), c.Out...), c.DQ...), c.DKV...), b.DAdd...) }
	once := all()
	pool := NewPool(3)
	defer pool.Close()
	copy(b.DAdd, before)
	CrossForward(pool, c)
	CrossBackward(pool, c)
	require.Equal(t, once, all())
}

// Sequences that read the keys of others get what they would of keys copied for each, and the keys the sum of their gradients; what
// nobody reads gets zeros.
func TestCrossReads(t *testing.T) {
	t.Run("float64", func(t *testing.T) { crossReads[float64](t, false, 1e-12) })
	eachFamily(t, func(t *testing.T) {
		t.Run("float32", func(t *testing.T) { crossReads[float32](t, false, 2e-5) })
		t.Run("bf16", func(t *testing.T) { crossReads[float32](t, true, 2e-5) })
	})
}

func crossReads[T Float](t *testing.T, bf16 bool, tol float64) {
	const heads, dim = 2, 24
	const d = heads * dim
	offsets, qOffsets, reads := []int32{0, 37, 40, 101, 102}, []int32{0, 1, 8, 8, 21, 90, 91}, []int32{2, 0, 0, 2, 2, 3}
	rows, queries := int(offsets[4]), int(qOffsets[6])
	random := newAttention[T](t, []int32{0, 300}, heads, dim, false)
	c := &CrossAttention[T]{
		Q: random.QKV[:queries*d], KV: random.QKV[queries*d:][:rows*2*d], DOut: random.DOut[:queries*d],
		QOffsets: qOffsets, Offsets: offsets, Reads: reads, Heads: heads, HeadDim: dim, BF16: bf16,
		Out: fenced[T](t, queries*d), LSE: fenced[T](t, queries*heads), DQ: fenced[T](t, queries*d), DKV: fenced[T](t, rows*2*d),
	}
	copied := *c
	copied.KV, copied.Offsets, copied.Reads = nil, []int32{0}, nil
	for _, s := range reads {
		copied.KV = append(copied.KV, c.KV[int(offsets[s])*2*d:int(offsets[s+1])*2*d]...)
		copied.Offsets = append(copied.Offsets, int32(len(copied.KV)/(2*d)))
	}
	copied.Out, copied.LSE, copied.DQ, copied.DKV = make([]T, queries*d), make([]T, queries*heads), make([]T, queries*d), make([]T, len(copied.KV))
	CrossForward(nil, c)
	CrossBackward(nil, c)
	CrossForward(nil, &copied)
	CrossBackward(nil, &copied)
	require.Equal(t, copied.Out, c.Out)
	require.Equal(t, copied.DQ, c.DQ)
	sum := make([]T, rows*2*d)
	for i, s := range reads {
		for j, v := range copied.DKV[int(copied.Offsets[i])*2*d : int(copied.Offsets[i+1])*2*d] {
			sum[int(offsets[s])*2*d+j] += v
		}
	}
	require.InDeltaSlice(t, sum, c.DKV, tol)
	require.Equal(t, make([]T, 3*2*d), c.DKV[37*2*d:40*2*d])
	once := append(append(append([]T(nil), c.Out...), c.DQ...), c.DKV...)
	pool := NewPool(3)
	defer pool.Close()
	CrossForward(pool, c)
	CrossBackward(pool, c)
	require.Equal(t, once, append(append(append([]T(nil), c.Out...), c.DQ...), c.DKV...))
}
