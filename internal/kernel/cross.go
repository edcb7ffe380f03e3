package kernel

import "slices"

// CrossAttention is attention whose queries have rows of their own: softmax(Q·Kᵀ/√Dh + B)·V in each head, the queries of a
// sequence over the keys and values of the one that it reads; a sequence may lack queries. It is what a block of cross-attention
// computes, and the last block of a tower of which only some rows are read. Rq and R are the numbers of rows of all queries
// and all keys, D = Heads·HeadDim.
type CrossAttention[T Float] struct {
	Q        []T     // (Rq, D)
	KV       []T     // (R, 2·D): k and v of a row side by side
	QOffsets []int32 // first query of each sequence and, last, Rq
	Offsets  []int32 // first key of each sequence and, last, R
	Reads    []int32 // the number of the keys' sequence that each sequence of queries reads; nil: its own number. Not with a bias
	Heads    int
	HeadDim  int
	Bias     *ScoreBias[T] // B, or nil for none
	BF16     bool          // as Attention.BF16
	KV16     []uint16      // KV stored as bfloat16, in its place, as Attention.QKV16

	Out []T // (Rq, D)
	LSE []T // (Heads, Rq): log of the sum of the exponentials of a row's scores, kept for the backward pass

	DOut    []T // (Rq, D): gradient of Out
	DQ, DKV []T // (Rq, D), (R, 2·D): gradients, overwritten

	begin, readers []int32 // which sequences read keys s: readers[begin[s]:begin[s+1]], in order
}

// CrossForward fills Out and LSE. Work is dealt as by AttentionForward.
func CrossForward[T Float](p *Pool, a *CrossAttention[T]) { a.run(p, (*head[T]).forward) }

// CrossBackward fills DQ and DKV, and adds to the gradient of the bias, from DOut and what CrossForward left in Out and LSE.
// With Reads a work item is one head of one sequence of keys, whose readers add to its gradient in order.
func CrossBackward[T Float](p *Pool, a *CrossAttention[T]) {
	if a.Reads != nil {
		a.backwardRead(p)
		return
	}
	a.run(p, (*head[T]).backward)
}

func (a *CrossAttention[T]) run(p *Pool, f func(h *head[T], p *Pool, thread int, next *head[T])) {
	checkHalf(a.KV16, a.BF16, a.HeadDim)
	a.Bias.prepare(a.Heads, a.QOffsets, a.Offsets)
	eachHead(p, len(a.QOffsets)-1, a.Heads, a.DQ != nil && a.Bias.differentiated(), a.head, f)
}

func (a *CrossAttention[T]) backwardRead(p *Pool) {
	checkHalf(a.KV16, a.BF16, a.HeadDim)
	a.group()
	q := own(p)
	defer disown(p, q)
	q.For((len(a.Offsets)-1)*a.Heads, 1, func(lo, hi, thread int) {
		var none head[T]
		for i := lo; i < hi; i++ {
			keys, index, written := i/a.Heads, i%a.Heads, 0
			for _, seq := range a.readers[a.begin[keys]:a.begin[keys+1]] {
				if h := a.head(int(seq), index); h.queries > 0 {
					h.adds, written = written, 1
					h.backward(q, thread, &none)
				}
			}
			if written == 0 {
				h := head[T]{dim: a.HeadDim}
				a.setKeys(&h, keys, index)
				h.backward(q, thread, &none)
			}
		}
	})
}

// group lists the readers of each sequence of keys.
func (a *CrossAttention[T]) group() {
	keys := len(a.Offsets) - 1
	a.begin = slices.Grow(a.begin[:0], keys+1)[:keys+1]
	a.readers = slices.Grow(a.readers[:0], len(a.Reads))[:len(a.Reads)]
	clear(a.begin)
	for _, k := range a.Reads {
		a.begin[k]++
	}
	end := int32(0)
	for k, n := range a.begin {
		end += n
		a.begin[k] = end
	}
	for s, k := range slices.Backward(a.Reads) { // a list is filled from its end
		a.begin[k]--
		a.readers[a.begin[k]] = int32(s)
	}
}

// head returns one head of one sequence; of one past the last it is empty.
func (a *CrossAttention[T]) head(seq, index int) head[T] {
	h := head[T]{dim: a.HeadDim, bf16: a.BF16}
	if seq+1 >= len(a.QOffsets) {
		return h
	}
	keys, first, d := seq, int(a.QOffsets[seq]), a.Heads*a.HeadDim
	if a.Reads != nil {
		keys = int(a.Reads[seq])
	}
	a.setKeys(&h, keys, index)
	h.queries, h.rowQ, h.rowOut = int(a.QOffsets[seq+1])-first, d, d
	if h.queries > 0 {
		at := first*d + index*a.HeadDim
		h.q, h.out, h.lse = stored[T]{full: a.Q[at:]}, a.Out[at:], a.LSE[index*int(a.QOffsets[len(a.QOffsets)-1])+first:]
		if a.DQ != nil {
			h.dq, h.dout = a.DQ[at:], a.DOut[at:]
		}
	}
	if a.Bias != nil {
		h.bias = a.Bias.head(index, a.QOffsets[seq:], a.Offsets[seq:])
	}
	return h
}

// setKeys gives a head the keys and values of a sequence.
func (a *CrossAttention[T]) setKeys(h *head[T], keys, index int) {
	from, d := int(a.Offsets[keys]), a.Heads*a.HeadDim
	h.keys, h.rowKV = int(a.Offsets[keys+1])-from, 2*d
	if h.keys == 0 {
		return
	}
	at := from*2*d + index*a.HeadDim
	kv := stored[T]{a.KV, a.KV16}
	h.k, h.v = kv.from(at), kv.from(at+d)
	if a.DKV != nil {
		h.dk, h.dv = a.DKV[at:], a.DKV[at+d:]
	}
}
