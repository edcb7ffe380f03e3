package kernel

// CrossAttention is attention whose queries have rows of their own: softmax(Q·Kᵀ/√Dh + B)·V in each head, the queries of
// sequence i over the keys and values of sequence i; a sequence may lack queries. It is what a block of cross-attention
// computes, and the last block of a tower of which only some rows are read. Rq and R are the numbers of rows of all queries
// and all keys, D = Heads·HeadDim.
type CrossAttention[T Float] struct {
	Q        []T     // (Rq, D)
	KV       []T     // (R, 2·D): k and v of a row side by side
	QOffsets []int32 // first query of each sequence and, last, Rq
	Offsets  []int32 // first key of each sequence and, last, R
	Heads    int
	HeadDim  int
	Bias     *ScoreBias[T] // B, or nil for none
	BF16     bool          // as Attention.BF16

	Out []T // (Rq, D)
	LSE []T // (Heads, Rq): log of the sum of the exponentials of a row's scores, kept for the backward pass

	DOut    []T // (Rq, D): gradient of Out
	DQ, DKV []T // (Rq, D), (R, 2·D): gradients, overwritten
}

// CrossForward fills Out and LSE. Work is dealt as by AttentionForward.
func CrossForward[T Float](p *Pool, a *CrossAttention[T]) { a.run(p, (*head[T]).forward) }

// CrossBackward fills DQ and DKV, and adds to the gradient of the bias, from DOut and what CrossForward left in Out and LSE.
func CrossBackward[T Float](p *Pool, a *CrossAttention[T]) { a.run(p, (*head[T]).backward) }

func (a *CrossAttention[T]) run(p *Pool, f func(h *head[T], p *Pool, thread int, next *head[T])) {
	a.Bias.prepare(a.Heads, a.QOffsets, a.Offsets)
	eachHead(p, len(a.Offsets)-1, a.Heads, a.DQ != nil && a.Bias.differentiated(), a.head, f)
}

// head returns one head of one sequence; of one past the last it is empty.
func (a *CrossAttention[T]) head(seq, index int) head[T] {
	h := head[T]{dim: a.HeadDim, bf16: a.BF16}
	if seq+1 >= len(a.Offsets) {
		return h
	}
	first, from, d := int(a.QOffsets[seq]), int(a.Offsets[seq]), a.Heads*a.HeadDim
	h.queries, h.keys = int(a.QOffsets[seq+1])-first, int(a.Offsets[seq+1])-from
	h.rowQ, h.rowKV, h.rowOut = d, 2*d, d
	if h.keys > 0 {
		at := from*2*d + index*a.HeadDim
		h.k, h.v = a.KV[at:], a.KV[at+d:]
		if a.DKV != nil {
			h.dk, h.dv = a.DKV[at:], a.DKV[at+d:]
		}
	}
	if h.queries > 0 {
		at := first*d + index*a.HeadDim
		h.q, h.out, h.lse = a.Q[at:], a.Out[at:], a.LSE[index*int(a.QOffsets[len(a.QOffsets)-1])+first:]
		if a.DQ != nil {
			h.dq, h.dout = a.DQ[at:], a.DOut[at:]
		}
	}
	h.bias = a.Bias.head(index, a.QOffsets[seq:], a.Offsets[seq:])
	return h
}
