package kernel

import (
	"math"
	"slices"
)

// CrossAttention is attention whose queries have rows of their own: softmax(Q·Kᵀ/√Dh)·V in each head, the queries of a sequence,
// of which there may be none, over the keys and values of the sequence that it reads. It is what a block of cross-attention
// computes, and the last block of a tower of which only some rows are read. Rq and R are the numbers of rows of all queries and
// all keys, D = Heads·HeadDim.
type CrossAttention[T Float] struct {
	Q        []T     // (Rq, D)
	KV       []T     // (R, 2·D): k and v of a row side by side
	QOffsets []int32 // first query of each sequence and, last, Rq
	Offsets  []int32 // first key of each sequence and, last, R
	// Reads is the number of the key sequence that each query sequence reads, several perhaps the same; nil: that of its own number.
	Reads   []int32
	Heads   int
	HeadDim int

	Out []T // (Rq, D)
	LSE []T // (Heads, Rq): log of the sum of the exponentials of a row's scores, kept for the backward pass

	DOut    []T // (Rq, D): gradient of Out
	DQ, DKV []T // (Rq, D), (R, 2·D): gradients, overwritten

	begin, readers []int32 // which query sequences read key sequence s: readers[begin[s]:begin[s+1]], in order
}

// CrossForward fills Out and LSE. A work item is one head of one query sequence.
func CrossForward[T Float](p *Pool, a *CrossAttention[T]) {
	q := own(p)
	defer disown(p, q)
	q.For((len(a.QOffsets)-1)*a.Heads, 1, func(lo, hi, thread int) {
		for i := lo; i < hi; i++ {
			a.forward(q, thread, i/a.Heads, i%a.Heads)
		}
	})
}

// CrossBackward fills DQ and DKV from DOut and what CrossForward left in Out and LSE. A work item is one head of one key sequence,
// whose readers add to its gradient in order.
func CrossBackward[T Float](p *Pool, a *CrossAttention[T]) {
	a.group()
	q := own(p)
	defer disown(p, q)
	q.For((len(a.Offsets)-1)*a.Heads, 1, func(lo, hi, thread int) {
		for i := lo; i < hi; i++ {
			a.backward(q, thread, i/a.Heads, i%a.Heads)
		}
	})
}

// crossHead is one head of one sequence as the loops see it: slices that begin at its first element.
type crossHead[T Float] struct {
	q, out, dq, dout []T // rows are D apart
	k, v, dk, dv     []T // rows are 2·D apart
	lse              []T // one for each query
	queries, keys    int
}

// read returns the key sequence that a query sequence reads.
func (a *CrossAttention[T]) read(seq int) int {
	if a.Reads == nil {
		return seq
	}
	return int(a.Reads[seq])
}

// group lists the readers of each key sequence.
func (a *CrossAttention[T]) group() {
	keys, queries := len(a.Offsets)-1, len(a.QOffsets)-1
	a.begin = slices.Grow(a.begin[:0], keys+1)[:keys+1]
	a.readers = slices.Grow(a.readers[:0], queries)[:queries]
	clear(a.begin)
	for s := range queries {
		a.begin[a.read(s)]++
	}
	end := int32(0)
	for s, n := range a.begin {
		end += n
		a.begin[s] = end
	}
	for s := queries - 1; s >= 0; s-- { // a list is filled from its end
		k := a.read(s)
		a.begin[k]--
		a.readers[a.begin[k]] = int32(s)
	}
}

// head is one head of query sequence seq over key sequence keys.
func (a *CrossAttention[T]) head(seq, keys, index int) crossHead[T] {
	first, from := int(a.QOffsets[seq]), int(a.Offsets[keys])
	d := a.Heads * a.HeadDim
	h := crossHead[T]{queries: int(a.QOffsets[seq+1]) - first, keys: int(a.Offsets[keys+1]) - from}
	if h.keys == 0 {
		return h
	}
	kv := from*2*d + index*a.HeadDim
	h.k, h.v = a.KV[kv:], a.KV[kv+d:]
	if a.DKV != nil {
		h.dk, h.dv = a.DKV[kv:], a.DKV[kv+d:]
	}
	if h.queries == 0 {
		return h
	}
	at := first*d + index*a.HeadDim
	h.q, h.out, h.lse = a.Q[at:], a.Out[at:], a.LSE[index*int(a.QOffsets[len(a.QOffsets)-1])+first:]
	if a.DQ != nil {
		h.dq, h.dout = a.DQ[at:], a.DOut[at:]
	}
	return h
}

func (a *CrossAttention[T]) forward(p *Pool, thread, seq, index int) {
	if a.forward32(p, thread, seq, index) {
		return
	}
	h, dim, d := a.head(seq, a.read(seq), index), a.HeadDim, a.Heads*a.HeadDim
	scale := T(1 / math.Sqrt(float64(dim)))
	score := scratch[T](p, thread, slotA, h.keys)
	for i := range h.queries {
		q, out := h.q[i*d:i*d+dim], h.out[i*d:i*d+dim]
		for j := range score {
			score[j] = scale * dot(q, h.k[j*2*d:j*2*d+dim])
		}
		top := rowMax(score)
		sum := T(0)
		clear(out)
		for j, s := range score {
			w := T(math.Exp(float64(s - top)))
			sum += w
			addScaled(out, w, h.v[j*2*d:j*2*d+dim])
		}
		h.lse[i] = top + T(math.Log(float64(sum)))
		scaleBy(out, 1/sum)
	}
}

// backward goes over the scores again, with the formulas of Attention.
func (a *CrossAttention[T]) backward(p *Pool, thread, keys, index int) {
	if a.backward32(p, thread, keys, index) {
		return
	}
	dim, d, from := a.HeadDim, a.Heads*a.HeadDim, int(a.Offsets[keys])
	scale := T(1 / math.Sqrt(float64(dim)))
	for j := from; j < int(a.Offsets[keys+1]); j++ {
		at := j*2*d + index*dim
		clear(a.DKV[at : at+dim])
		clear(a.DKV[at+d : at+d+dim])
	}
	for _, seq := range a.readers[a.begin[keys]:a.begin[keys+1]] {
		h := a.head(int(seq), keys, index)
		for i := range h.queries {
			q, dq, dout := h.q[i*d:i*d+dim], h.dq[i*d:i*d+dim], h.dout[i*d:i*d+dim]
			clear(dq)
			delta := dot(dout, h.out[i*d:i*d+dim])
			for j := range h.keys {
				at := j * 2 * d
				k := h.k[at : at+dim]
				w := T(math.Exp(float64(scale*dot(q, k) - h.lse[i])))
				addScaled(h.dv[at:at+dim], w, dout)
				ds := scale * w * (dot(dout, h.v[at:at+dim]) - delta)
				addScaled(dq, ds, k)
				addScaled(h.dk[at:at+dim], ds, q)
			}
		}
	}
}
