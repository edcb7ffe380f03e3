package kernel

import "math"

// Attention describes softmax(Q·Kᵀ/√Dh + B)·V (Vaswani et al. 2017, §3.2.1) in each head of each of a list of packed sequences.
// R is the number of rows of all sequences, D = Heads·HeadDim.
type Attention[T Float] struct {
	QKV     []T     // (R, 3·D): q, k and v of a row side by side, each with its heads side by side
	Offsets []int32 // first row of each sequence and, last, R
	Heads   int
	HeadDim int
	Causal  bool          // a row does not see the rows after it
	Bias    *ScoreBias[T] // B, or nil for none

	// BF16 rounds what products multiply to bfloat16, as Gemm.BF16 does: Q, K, V, dO, the weights exp(s - max) before the
	// division by their sum, P and dS. Scores, B, the sums of softmax, δ and what is written stay as they are.
	BF16  bool
	QKV16 []uint16 // QKV stored as bfloat16, in its place; takes BF16 and an even HeadDim, and gives the same bits

	Out []T // (R, D)
	LSE []T // (Heads, R): log of the sum of the exponentials of a row's scores, kept for the backward pass

	DOut []T // (R, D): gradient of Out
	DQKV []T // (R, 3·D): gradient of QKV, overwritten
}

// AttentionForward fills Out and LSE. A work item is one head of one sequence.
func AttentionForward[T Float](p *Pool, a *Attention[T]) { a.run(p, (*head[T]).forward) }

// AttentionBackward fills DQKV, and adds to the gradient of the bias, from DOut and what AttentionForward left in Out and LSE.
// With a bias a work item is a head, whose sequences add to one gradient in their order.
func AttentionBackward[T Float](p *Pool, a *Attention[T]) { a.run(p, (*head[T]).backward) }

func (a *Attention[T]) run(p *Pool, f func(h *head[T], p *Pool, thread int, next *head[T])) {
	checkHalf(a.QKV16, a.BF16, a.HeadDim)
	a.Bias.prepare(a.Heads, a.Offsets, a.Offsets)
	eachHead(p, len(a.Offsets)-1, a.Heads, a.DQKV != nil && a.Bias.differentiated(), a.head, f)
}

// head returns one head of one sequence; of one past the last it is empty.
func (a *Attention[T]) head(seq, index int) head[T] {
	h := head[T]{dim: a.HeadDim, causal: a.Causal, bf16: a.BF16}
	if seq+1 >= len(a.Offsets) {
		return h
	}
	first, d := int(a.Offsets[seq]), a.Heads*a.HeadDim
	h.queries = int(a.Offsets[seq+1]) - first
	h.keys = h.queries
	h.rowQ, h.rowKV, h.rowOut = 3*d, 3*d, d
	if h.queries == 0 {
		return h
	}
	at := first*3*d + index*a.HeadDim
	qkv := stored[T]{a.QKV, a.QKV16}
	h.q, h.k, h.v = qkv.from(at), qkv.from(at+d), qkv.from(at+2*d)
	h.out, h.lse = a.Out[first*d+index*a.HeadDim:], a.LSE[index*int(a.Offsets[len(a.Offsets)-1])+first:]
	if a.DQKV != nil {
		h.dq, h.dk, h.dv = a.DQKV[at:], a.DQKV[at+d:], a.DQKV[at+2*d:]
		h.dout = a.DOut[first*d+index*a.HeadDim:]
	}
	h.bias = a.Bias.head(index, a.Offsets[seq:], a.Offsets[seq:])
	return h
}

// head is one head of one sequence as the loops see it: slices that begin at its first element.
type head[T Float] struct {
	q             stored[T] // rows are rowQ apart
	dq            []T
	k, v          stored[T] // rows are rowKV apart
	dk, dv        []T
	out, dout     []T // rows are rowOut apart
	lse           []T // one for each query
	queries, keys int
	dim           int // columns
	causal, bf16  bool
	adds          int // 1: the gradients of keys and values are added to, not overwritten
	bias          headBias[T]

	rowQ, rowKV, rowOut int
}

// stored are numbers in memory, as T or as bfloat16.
type stored[T Float] struct {
	full []T
	half []uint16
}

// from returns the numbers from the i-th on.
func (s stored[T]) from(i int) stored[T] {
	if s.half != nil {
		return stored[T]{half: s.half[i:]}
	}
	return stored[T]{full: s.full[i:]}
}

// checkHalf panics if a head cannot read what is stored as bfloat16: products take it as it is, in pairs.
func checkHalf(half []uint16, bf16 bool, dim int) {
	if half != nil && (!bf16 || dim%2 != 0) {
		panic("kernel: attention on bfloat16 in float32, or with half a pair in a head")
	}
}

// eachHead runs f on every head of every sequence; next is the head that this thread probably works on next. A work item is one
// head of one sequence, or, if whole, of all sequences in their order. Small items go by the sequence, whose heads lie side by
// side.
func eachHead[T Float](p *Pool, sequences, heads int, whole bool, describe func(seq, index int) head[T], f func(h *head[T], p *Pool, thread int, next *head[T])) {
	q := own(p)
	defer disown(p, q)
	described := make([][2]head[T], len(q.memory)) // once, for what f takes a pointer to is not on the stack
	if whole {
		q.For(heads, 1, func(lo, hi, thread int) {
			h, next := &described[thread][0], &described[thread][1]
			for index := lo; index < hi; index++ {
				*h = describe(0, index)
				for seq := range sequences {
					*next = describe(seq+1, index)
					f(h, q, thread, next)
					h, next = next, h
				}
			}
		})
		return
	}
	piece := 1
	if sequences >= 8*q.Threads() {
		piece = heads
	}
	q.For(sequences*heads, piece, func(lo, hi, thread int) {
		h, next := &described[thread][0], &described[thread][1]
		*h = describe(lo/heads, lo%heads)
		for i := lo + 1; i <= hi; i++ {
			*next = describe(i/heads, i%heads)
			f(h, q, thread, next)
			h, next = next, h
		}
	})
}

// scale is what products of queries and keys are multiplied with.
func (h *head[T]) scale() T { return T(1 / math.Sqrt(float64(h.dim))) }

// seen is the number of keys that row i attends to.
func (h *head[T]) seen(i int) int {
	if h.causal {
		return i + 1
	}
	return h.keys
}

// forward fills out and lse. Queries without keys get zeros.
func (h *head[T]) forward(p *Pool, thread int, next *head[T]) {
	if h.keys == 0 {
		for i := range h.queries {
			clear(h.out[i*h.rowOut:][:h.dim])
			h.lse[i] = 0
		}
		return
	}
	if h.queries == 0 || h.forward32(p, thread, next) {
		return
	}
	scale := h.scale()
	score := scratch[T](p, thread, slotA, h.keys)
	q, k, v := h.rounded(p, thread, slotB, h.q, h.queries, h.rowQ), h.rounded(p, thread, slotC, h.k, h.keys, h.rowKV), h.rounded(p, thread, slotD, h.v, h.keys, h.rowKV)
	for i := range h.queries {
		query, out := q.row(i), h.out[i*h.rowOut:][:h.dim]
		row := score[:h.seen(i)]
		for j := range row {
			row[j] = scale * dot(query, k.row(j))
		}
		h.bias.add(row, i, 1, len(row), 0, 1)
		top := rowMax(row)
		sum := T(0)
		for j, s := range row {
			row[j] = T(math.Exp(float64(s - top)))
			sum += row[j]
		}
		h.lse[i] = top + T(math.Log(float64(sum)))
		clear(out)
		for j, w := range row {
			addScaled(out, h.round(w), v.row(j))
		}
		scaleBy(out, 1/sum)
	}
}

// backward goes row by row over the scores again: with P = exp(S - LSE) and δ = dO·O,
//
//	dV = Pᵀ·dO;  dS = P∘(dO·Vᵀ - δ);  dQ = dS·K/√Dh;  dK = dSᵀ·Q/√Dh;  dB += dS
func (h *head[T]) backward(p *Pool, thread int, next *head[T]) {
	if h.queries > 0 && h.keys > 0 && h.backward32(p, thread, next) {
		return
	}
	for i := range h.queries {
		clear(h.dq[i*h.rowQ:][:h.dim])
	}
	for j := range h.keys * (1 - h.adds) {
		clear(h.dk[j*h.rowKV:][:h.dim])
		clear(h.dv[j*h.rowKV:][:h.dim])
	}
	if h.keys == 0 {
		return
	}
	scale := h.scale()
	score := scratch[T](p, thread, slotE, h.keys)
	q, k, v := h.rounded(p, thread, slotA, h.q, h.queries, h.rowQ), h.rounded(p, thread, slotB, h.k, h.keys, h.rowKV), h.rounded(p, thread, slotC, h.v, h.keys, h.rowKV)
	dO := h.rounded(p, thread, slotD, stored[T]{full: h.dout}, h.queries, h.rowOut)
	for i := range h.queries {
		query, dq, dout := q.row(i), h.dq[i*h.rowQ:][:h.dim], dO.row(i)
		delta := dot(h.dout[i*h.rowOut:][:h.dim], h.out[i*h.rowOut:][:h.dim])
		row := score[:h.seen(i)]
		for j := range row {
			row[j] = scale * dot(query, k.row(j))
		}
		h.bias.add(row, i, 1, len(row), 0, 1)
		for j, s := range row {
			at := j * h.rowKV
			w := T(math.Exp(float64(s - h.lse[i])))
			addScaled(h.dv[at:][:h.dim], h.round(w), dout)
			row[j] = w * (dot(dout, v.row(j)) - delta)
			ds := h.round(scale * row[j])
			addScaled(dq, ds, k.row(j))
			addScaled(h.dk[at:][:h.dim], ds, query)
		}
		h.bias.addGradient(row, i, 1, len(row), 0, 1)
	}
}

// rowsOf are rows of dim numbers, stride apart.
type rowsOf[T Float] struct {
	x           []T
	stride, dim int
}

func (r rowsOf[T]) row(i int) []T { return r.x[i*r.stride : i*r.stride+r.dim] }

// rounded returns the rows of a head, of which x begins with the first: a rounded copy in the thread's scratch if bf16.
func (h *head[T]) rounded(p *Pool, thread int, s slot, x stored[T], rows, stride int) rowsOf[T] {
	r := rowsOf[T]{x.full, stride, h.dim}
	if !h.bf16 || rows == 0 {
		return r
	}
	y := rowsOf[T]{scratch[T](p, thread, s, rows*h.dim), h.dim, h.dim}
	for i := range rows {
		if x.half != nil {
			widen(y.row(i), x.half[i*stride:i*stride+h.dim])
		} else {
			roundInto(y.row(i), r.row(i))
		}
	}
	return y
}

func (h *head[T]) round(v T) T {
	if h.bf16 {
		return T(roundBF16(float32(v)))
	}
	return v
}
