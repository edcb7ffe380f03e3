package kernel

import "math"

// PooledAttention is attention with a single query to a sequence, what is left of the last block of a tower of which one row
// of each sequence is read: softmax(q·Kᵀ/√Dh)·V in each head over all rows of the sequence. B is the number of sequences, R
// that of their rows, D = Heads·HeadDim.
type PooledAttention[T Float] struct {
	Q       []T     // (B, D)
	KV      []T     // (R, 2·D): k and v of a row side by side
	Offsets []int32 // first row of each sequence and, last, R
	Heads   int
	HeadDim int
	BF16    bool     // as Attention.BF16
	KV16    []uint16 // KV stored as bfloat16, in its place, as Attention.QKV16

	Out []T // (B, D)
	LSE []T // (B, Heads): log of the sum of the exponentials of the scores, kept for the backward pass

	DOut    []T // (B, D): gradient of Out
	DQ, DKV []T // (B, D), (R, 2·D): gradients, overwritten
}

// pooledPiece is how many sequences a thread takes at once: they are short work.
const pooledPiece = 8

// PooledForward fills Out and LSE.
func PooledForward[T Float](p *Pool, a *PooledAttention[T]) {
	checkHalf(a.KV16, a.BF16, a.HeadDim)
	q := own(p)
	defer disown(p, q)
	d, dim := a.Heads*a.HeadDim, a.HeadDim
	scale := T(1 / math.Sqrt(float64(dim)))
	q.For(len(a.Offsets)-1, pooledPiece, func(lo, hi, thread int) {
		space := scratch[T](q, thread, slotB, 2*dim)
		for s := lo; s < hi; s++ {
			first, last := int(a.Offsets[s]), int(a.Offsets[s+1])
			score := scratch[T](q, thread, slotA, last-first)
			for h := range a.Heads {
				query, out := a.factor(space[:dim], a.Q[s*d+h*dim:]), a.Out[s*d+h*dim:][:dim]
				for j := range score {
					score[j] = scale * dot(query, a.kv(space[dim:], (first+j)*2*d+h*dim))
				}
				top := rowMax(score)
				sum := T(0)
				clear(out)
				for j, x := range score {
					w := T(math.Exp(float64(x - top)))
					sum += w
					addScaled(out, a.round(w), a.kv(space[dim:], (first+j)*2*d+d+h*dim))
				}
				scaleBy(out, 1/sum)
				a.LSE[s*a.Heads+h] = top + T(math.Log(float64(sum)))
			}
		}
	})
}

// PooledBackward fills DQ and DKV from DOut and what PooledForward left in Out and LSE: with p = exp(s - LSE) and δ = dO·O,
//
//	dV = p·dO;  ds = p∘(V·dO - δ);  dq = ds·K/√Dh;  dK = ds·q/√Dh
func PooledBackward[T Float](p *Pool, a *PooledAttention[T]) {
	checkHalf(a.KV16, a.BF16, a.HeadDim)
	q := own(p)
	defer disown(p, q)
	d, dim := a.Heads*a.HeadDim, a.HeadDim
	scale := T(1 / math.Sqrt(float64(dim)))
	q.For(len(a.Offsets)-1, pooledPiece, func(lo, hi, thread int) {
		space := scratch[T](q, thread, slotB, 4*dim)
		for s := lo; s < hi; s++ {
			for h := range a.Heads {
				at := s*d + h*dim
				query, dq, dout := a.factor(space[:dim], a.Q[at:]), a.DQ[at:][:dim], a.factor(space[dim:2*dim], a.DOut[at:])
				delta := dot(a.DOut[at:][:dim], a.Out[at:][:dim])
				lse := a.LSE[s*a.Heads+h]
				clear(dq)
				for r := int(a.Offsets[s]); r < int(a.Offsets[s+1]); r++ {
					k, v := r*2*d+h*dim, r*2*d+d+h*dim
					key := a.kv(space[2*dim:3*dim], k)
					w := T(math.Exp(float64(scale*dot(query, key) - lse)))
					ds := a.round(scale * w * (dot(dout, a.kv(space[3*dim:], v)) - delta))
					addScaled(dq, ds, key)
					scaleInto(a.DKV[v:][:dim], dout, a.round(w))
					scaleInto(a.DKV[k:][:dim], query, ds)
				}
			}
		}
	})
}

// factor returns what products take for the first HeadDim elements of x: a rounded copy in space if BF16.
func (a *PooledAttention[T]) factor(space, x []T) []T {
	if !a.BF16 {
		return x[:a.HeadDim]
	}
	roundInto(space[:a.HeadDim], x)
	return space[:a.HeadDim]
}

// kv returns what products take for the HeadDim elements of KV from the given one on.
func (a *PooledAttention[T]) kv(space []T, from int) []T {
	if a.KV16 == nil {
		return a.factor(space, a.KV[from:])
	}
	widen(space[:a.HeadDim], a.KV16[from:from+a.HeadDim])
	return space[:a.HeadDim]
}

func (a *PooledAttention[T]) round(v T) T {
	if a.BF16 {
		return T(roundBF16(float32(v)))
	}
	return v
}
