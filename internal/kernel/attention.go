package kernel

import "math"

// Attention describes softmax(Q·Kᵀ/√Dh)·V (Vaswani et al. 2017, §3.2.1) in each head of each of a list of packed sequences.
// R is the number of rows of all sequences, D = Heads·HeadDim.
type Attention[T Float] struct {
	QKV     []T     // (R, 3·D): q, k and v of a row side by side, each with its heads side by side
	Offsets []int32 // first row of each sequence and, last, R
	Heads   int
	HeadDim int
	Causal  bool // a row does not see the rows after it

	// BF16 rounds what products multiply to bfloat16, as Gemm.BF16 does: Q, K, V, dO, the weights exp(s - max) before the
	// division by their sum, P and dS. Scores, the sums of softmax, δ and what is written stay as they are.
	BF16 bool

	Out []T // (R, D)
	LSE []T // (Heads, R): log of the sum of the exponentials of a row's scores, kept for the backward pass

	DOut []T // (R, D): gradient of Out
	DQKV []T // (R, 3·D): gradient of QKV, overwritten
}

// AttentionForward fills Out and LSE. A work item is one head of one sequence.
func AttentionForward[T Float](p *Pool, a *Attention[T]) {
	q := own(p)
	defer disown(p, q)
	q.For((len(a.Offsets)-1)*a.Heads, a.piece(q), func(lo, hi, thread int) {
		for i := lo; i < hi; i++ {
			a.forward(q, thread, i/a.Heads, i%a.Heads)
		}
	})
}

// AttentionBackward fills DQKV from DOut and what AttentionForward left in Out and LSE.
func AttentionBackward[T Float](p *Pool, a *Attention[T]) {
	q := own(p)
	defer disown(p, q)
	q.For((len(a.Offsets)-1)*a.Heads, a.piece(q), func(lo, hi, thread int) {
		for i := lo; i < hi; i++ {
			a.backward(q, thread, i/a.Heads, i%a.Heads)
		}
	})
}

// piece is how many work items a thread takes at a time: small ones go by the sequence, whose heads lie side by side.
func (a *Attention[T]) piece(p *Pool) int {
	if sequences := len(a.Offsets) - 1; sequences >= 8*p.Threads() {
		return a.Heads
	}
	return 1
}

// head is one head of one sequence as the loops see it: slices that begin at its first element.
type head[T Float] struct {
	q, k, v, dq, dk, dv []T // rows are 3·D apart
	out, dout           []T // rows are D apart
	lse                 []T // one for each row
	length              int
}

func (a *Attention[T]) head(seq, index int) head[T] {
	first := int(a.Offsets[seq])
	d := a.Heads * a.HeadDim
	h := head[T]{length: int(a.Offsets[seq+1]) - first}
	if h.length == 0 {
		return h
	}
	at := first*3*d + index*a.HeadDim
	h.q, h.k, h.v = a.QKV[at:], a.QKV[at+d:], a.QKV[at+2*d:]
	h.out, h.lse = a.Out[first*d+index*a.HeadDim:], a.LSE[index*int(a.Offsets[len(a.Offsets)-1])+first:]
	if a.DQKV != nil {
		h.dq, h.dk, h.dv = a.DQKV[at:], a.DQKV[at+d:], a.DQKV[at+2*d:]
		h.dout = a.DOut[first*d+index*a.HeadDim:]
	}
	return h
}

// seen is the number of keys that row i attends to.
func (a *Attention[T]) seen(i, length int) int {
	if a.Causal {
		return i + 1
	}
	return length
}

func (a *Attention[T]) forward(p *Pool, thread, seq, index int) {
	if a.forward32(p, thread, seq, index) {
		return
	}
	h, dim, d := a.head(seq, index), a.HeadDim, a.Heads*a.HeadDim
	scale := T(1 / math.Sqrt(float64(dim)))
	score := scratch[T](p, thread, slotA, h.length)
	q3, k3, v3 := a.rounded(p, thread, slotB, h.q, h.length, 3*d), a.rounded(p, thread, slotC, h.k, h.length, 3*d), a.rounded(p, thread, slotD, h.v, h.length, 3*d)
	for i := range h.length {
		q, out := q3.row(i), h.out[i*d:i*d+dim]
		row := score[:a.seen(i, h.length)]
		for j := range row {
			row[j] = scale * dot(q, k3.row(j))
		}
		top := rowMax(row)
		sum := T(0)
		for j, s := range row {
			row[j] = T(math.Exp(float64(s - top)))
			sum += row[j]
		}
		h.lse[i] = top + T(math.Log(float64(sum)))
		clear(out)
		for j, w := range row {
			addScaled(out, a.round(w), v3.row(j))
		}
		scaleBy(out, 1/sum)
	}
}

// backward goes row by row over the scores again: with P = exp(S - LSE) and δ = dO·O,
//
//	dV = Pᵀ·dO;  dS = P∘(dO·Vᵀ - δ);  dQ = dS·K/√Dh;  dK = dSᵀ·Q/√Dh
func (a *Attention[T]) backward(p *Pool, thread, seq, index int) {
	if a.backward32(p, thread, seq, index) {
		return
	}
	h, dim, d := a.head(seq, index), a.HeadDim, a.Heads*a.HeadDim
	scale := T(1 / math.Sqrt(float64(dim)))
	for i := range h.length {
		clear(h.dq[i*3*d : i*3*d+dim])
		clear(h.dk[i*3*d : i*3*d+dim])
		clear(h.dv[i*3*d : i*3*d+dim])
	}
	q3, k3, v3 := a.rounded(p, thread, slotA, h.q, h.length, 3*d), a.rounded(p, thread, slotB, h.k, h.length, 3*d), a.rounded(p, thread, slotC, h.v, h.length, 3*d)
	d1 := a.rounded(p, thread, slotD, h.dout, h.length, d)
	for i := range h.length {
		q, dq, dout := q3.row(i), h.dq[i*3*d:i*3*d+dim], d1.row(i)
		delta := dot(h.dout[i*d:i*d+dim], h.out[i*d:i*d+dim])
		lse := h.lse[i]
		for j := range a.seen(i, h.length) {
			at := j * 3 * d
			k := k3.row(j)
			w := T(math.Exp(float64(scale*dot(q, k) - lse)))
			addScaled(h.dv[at:at+dim], a.round(w), dout)
			ds := a.round(scale * w * (dot(dout, v3.row(j)) - delta))
			addScaled(dq, ds, k)
			addScaled(h.dk[at:at+dim], ds, q)
		}
	}
}

// rowsOf are rows of dim numbers, stride apart.
type rowsOf[T Float] struct {
	x           []T
	stride, dim int
}

func (r rowsOf[T]) row(i int) []T { return r.x[i*r.stride : i*r.stride+r.dim] }

// rounded returns the rows of a head, of which x begins with the first: a rounded copy in the thread's scratch if BF16.
func (a *Attention[T]) rounded(p *Pool, thread int, s slot, x []T, rows, stride int) rowsOf[T] {
	r := rowsOf[T]{x, stride, a.HeadDim}
	if !a.BF16 || rows == 0 {
		return r
	}
	y := rowsOf[T]{scratch[T](p, thread, s, rows*a.HeadDim), a.HeadDim, a.HeadDim}
	for i := range rows {
		to := y.row(i)
		for c, v := range r.row(i) {
			to[c] = a.round(v)
		}
	}
	return y
}

func (a *Attention[T]) round(v T) T {
	if a.BF16 {
		return T(roundBF16(float32(v)))
	}
	return v
}
