//go:build amd64 && !noasm

package kernel

import (
	"math"
	"unsafe"
)

// productArgs is what a product kernel reads (offsets in asmgen/attention.go): C (m, n) = A (m, k)·B (k, n), with strides in
// bytes. It lives on the stack; the kernels change m and rowScale.
type productArgs struct {
	m, k        int
	a, b, c     unsafe.Pointer
	rowA, stepA int // from one row of A to the next, from one k to the next
	rowB, rowC  int
	rowScale    uintptr // nil, or a factor for each row; moves past the end, so it must be no pointer
	accumulate  int     // not 0: C += A·B
	mask        uint64  // of the last vector of a row
}

// softmaxArgs is what the two softmax kernels read (offsets in asmgen/attention.go): rows of scores in a block that is width
// keys wide, of which the first row sees the first seen and each further one step more. Strides are in bytes.
type softmaxArgs struct {
	s                 unsafe.Pointer
	rows, rowS        int
	seen, step, width int
	top               unsafe.Pointer // forward: out, the scaled maximum of each row; backward: in, LSE
	sum               unsafe.Pointer // forward: out
	dp                unsafe.Pointer // backward: gradient of the probabilities, like s
	out, dout         unsafe.Pointer // backward
	rowOut, dim       int            // backward
	scale             float32
}

// smallProduct is C (m, n) = A (m, k)·B (k, n), C += if accumulate; args holds the rest.
func smallProduct(m, n, k int, args *productArgs) { anyProduct(m, n, k, false, args) }

// anyProduct is smallProduct, with pairs of bfloat16 if pairs; k counts words.
func anyProduct(m, n, k int, pairs bool, args *productArgs) {
	t := *args
	t.k = k
	if !useAVX512 {
		t.productAVX2(m, n, args)
		return
	}
	for from, cols := 0, 0; from < n; from += cols {
		cols = min(64, n-from)
		if left := (n - from + 15) / 16; left == 5 {
			cols = 48 // three and two are faster than four and one
		}
		t.m, t.rowScale = m, args.rowScale
		t.b, t.c = unsafe.Add(args.b, 4*from), unsafe.Add(args.c, 4*from)
		t.mask = 1<<((cols-1)%16+1) - 1
		p := (*byte)(unsafe.Pointer(&t))
		switch vectors := (cols + 15) / 16; {
		case vectors == 1 && pairs:
			product1BF16AVX512(p)
		case vectors == 1:
			product1AVX512(p)
		case vectors == 2 && pairs:
			product2BF16AVX512(p)
		case vectors == 2:
			product2AVX512(p)
		case vectors == 3 && pairs:
			product3BF16AVX512(p)
		case vectors == 3:
			product3AVX512(p)
		case pairs:
			product4BF16AVX512(p)
		default:
			product4AVX512(p)
		}
	}
}

// productAVX2 is anyProduct with t a copy of args to spoil.
func (t *productArgs) productAVX2(m, n int, args *productArgs) {
	for from := 0; from < n; from += 16 {
		cols := min(16, n-from)
		t.m, t.rowScale = m, args.rowScale
		t.b, t.c = unsafe.Add(args.b, 4*from), unsafe.Add(args.c, 4*from)
		t.mask = 1<<((cols-1)%8+1) - 1
		if p := (*byte)(unsafe.Pointer(t)); cols > 8 {
			product2AVX2(p)
		} else {
			product1AVX2(p)
		}
	}
}

// transposeInto writes the transpose of src (n, dim), whose rows are stride floats apart, to dst, whose rows are padded ≥ n apart
// and filled up to a multiple of a vector.
func transposeInto(dst, src []float32, n, dim, padded, stride int) {
	if useAVX512 {
		transposeAVX512(&dst[0], &src[0], n, dim, 4*padded, 4*stride)
		return
	}
	var rows [16]*float32
	for i := 0; i < n; i += 8 {
		for r := range rows[:8] { // rows past the end repeat the last; nobody reads their results
			rows[r] = &src[min(i+r, n-1)*stride]
		}
		transposeAVX2(&rows, dim, &dst[i], 4*padded)
	}
}

// transposeAVX2 turns the first 8 rows of k floats into k rows of 8, or of stride if that is less, stride bytes apart.
func transposeAVX2(rows *[16]*float32, k int, dst *float32, stride int) {
	whole := k &^ 7
	if whole > 0 {
		packTransposedAVX2(rows, whole, dst, stride)
	}
	for ; whole < k; whole++ {
		to := unsafe.Slice((*float32)(unsafe.Add(unsafe.Pointer(dst), whole*stride)), min(8, stride/4))
		for i := range to {
			to[i] = *(*float32)(unsafe.Add(unsafe.Pointer(rows[i]), 4*whole))
		}
	}
}

// softmaxForward runs the kernel of the family.
func softmaxForward(a *softmaxArgs) {
	if p := (*byte)(unsafe.Pointer(a)); useAVX512 {
		softmaxForwardAVX512(p)
	} else {
		softmaxForwardAVX2(p)
	}
}

func softmaxBackward(a *softmaxArgs) {
	if p := (*byte)(unsafe.Pointer(a)); useAVX512 {
		softmaxBackwardAVX512(p)
	} else {
		softmaxBackwardAVX2(p)
	}
}

// softmaxFinish adds log sum to lse and inverts the sums.
func softmaxFinish(lse, sum []float32) {
	if useAVX512 {
		softmaxFinishAVX512(&lse[0], &sum[0], &sum[0], len(lse))
		return
	}
	for i, s := range sum[:len(lse)] {
		lse[i] += float32(math.Log(float64(s)))
		sum[i] = 1 / s
	}
}

// scoreBlock is about how many scores a block of query rows has: with their gradients they stay in the second-level cache.
const scoreBlock = 1 << 15

// attentionBlock is how many rows of queries are worked on at a time; it depends on the length of the sequence alone.
func attentionBlock(length, padded int) int {
	if length*padded <= scoreBlock {
		return length
	}
	return max(12, scoreBlock/padded/12*12)
}

func pad16(n int) int { return (n + 15) &^ 15 }

// scoreRow is how far apart rows of n scores lie: whole vectors, but no multiple of 1 KiB, for then the rows of Kᵀ would
// compete for the same few sets of the first-level cache.
func scoreRow(n int) int {
	if n = pad16(n); n%256 == 0 {
		n += 16
	}
	return n
}

// prefetchLength is the longest sequence whose next head is fetched ahead; longer ones work long enough on what they fetch.
const prefetchLength = 256

// ahead is the head that this thread probably works on next, of which fetch brings one part into the cache at a time, while
// the current head is computed: a head's rows lie far apart, so the processor does not foresee them.
type ahead struct{ *head[float32] }

// fetch asks for a part of the head, rows of x that are stride floats apart.
func (n ahead) fetch(x stored[float32], rows, stride int) {
	switch {
	case n.queries == 0 || n.keys == 0 || n.keys > prefetchLength:
	case x.half != nil:
		prefetchRows((*byte)(unsafe.Pointer(&x.half[0])), rows, 2*n.dim, 2*stride)
	default:
		prefetchRows((*byte)(unsafe.Pointer(&x.full[0])), rows, 4*n.dim, 4*stride)
	}
}

func (n ahead) fetchQ(x stored[float32])  { n.fetch(x, n.queries, n.rowQ) }
func (n ahead) fetchKV(x stored[float32]) { n.fetch(x, n.keys, n.rowKV) }
func (n ahead) fetchDQ()                  { n.fetch(stored[float32]{full: n.dq}, n.queries, n.rowQ) }
func (n ahead) fetchDKV(x []float32)      { n.fetch(stored[float32]{full: x}, n.keys, n.rowKV) }
func (n ahead) fetchOut(x []float32)      { n.fetch(stored[float32]{full: x}, n.queries, n.rowOut) }

// vectors is the head if there is assembly for it.
func (h *head[T]) vectors() *head[float32] {
	f, ok := any(h).(*head[float32])
	if !ok || !useVectors || h.bf16 && !hasBF16 {
		return nil
	}
	return f
}

// forward32 runs forward on vectors.
func (h *head[T]) forward32(p *Pool, thread int, next *head[T]) bool {
	f := h.vectors()
	if f == nil {
		return false
	}
	if n := (ahead{any(next).(*head[float32])}); f.bf16 {
		forwardBF16(f, p, thread, n)
	} else {
		forwardVectors(f, p, thread, n)
	}
	return true
}

// backward32 runs backward on vectors.
func (h *head[T]) backward32(p *Pool, thread int, next *head[T]) bool {
	f := h.vectors()
	if f == nil {
		return false
	}
	if n := (ahead{any(next).(*head[float32])}); f.bf16 {
		backwardBF16(f, p, thread, n)
	} else {
		backwardVectors(f, p, thread, n)
	}
	return true
}

// visible returns which keys rows [from, from+rows) see, as softmaxArgs has it: those of the first row, what each further row sees
// more, those of the last.
func visible(h *head[float32], from, rows int) (seen, step, width int) {
	if h.causal {
		return from + 1, 1, from + rows
	}
	return h.keys, 0, h.keys
}

// forwardVectors keeps Kᵀ and the scores of a block of rows in scratch.
func forwardVectors(h *head[float32], p *Pool, thread int, next ahead) {
	n, dim, padded := h.keys, h.dim, scoreRow(h.keys)
	block := min(h.queries, attentionBlock(n, padded))
	memory := scratch[float32](p, thread, slotA, padded*(dim+block)+pad16(block))
	kT, score, sum := memory[:padded*dim], memory[padded*dim:padded*(dim+block)], memory[padded*(dim+block):]
	next.fetchKV(next.k)
	transposeInto(kT, h.k.full, n, dim, padded, h.rowKV)
	next.fetchQ(next.q)
	for from := 0; from < h.queries; from += block {
		rows := min(block, h.queries-from)
		seen, step, width := visible(h, from, rows)
		smallProduct(rows, width, dim, &productArgs{
			a: at(h.q.full, from*h.rowQ), rowA: 4 * h.rowQ, stepA: 4,
			b: at(kT, 0), rowB: 4 * padded, c: at(score, 0), rowC: 4 * padded,
		})
		next.fetchKV(next.v)
		h.bias.add(score, from, rows, width, padded, 1/h.scale())
		lse := h.lse[from : from+rows]
		softmaxForward(&softmaxArgs{
			s: at(score, 0), rows: rows, rowS: 4 * padded, seen: seen, step: step, width: width,
			top: at(lse, 0), sum: at(sum, 0), scale: h.scale(),
		})
		softmaxFinish(lse, sum)
		smallProduct(rows, dim, width, &productArgs{
			a: at(score, 0), rowA: 4 * padded, stepA: 4,
			b: at(h.v.full, 0), rowB: 4 * h.rowKV, c: at(h.out, from*h.rowOut), rowC: 4 * h.rowOut, rowScale: uintptr(at(sum, 0)),
		})
	}
}

// backwardVectors goes over blocks of rows from the last to the first: in a causal head the last block alone sees all keys, so it
// writes the gradients of K and V that the others add to.
func backwardVectors(h *head[float32], p *Pool, thread int, next ahead) {
	n, dim, padded := h.keys, h.dim, scoreRow(h.keys)
	block := min(h.queries, attentionBlock(n, padded))
	memory := scratch[float32](p, thread, slotA, 2*padded*(dim+block))
	kT, vT := memory[:padded*dim], memory[padded*dim:2*padded*dim]
	score, dscore := memory[2*padded*dim:padded*(2*dim+block)], memory[padded*(2*dim+block):]
	next.fetchKV(next.k)
	transposeInto(kT, h.k.full, n, dim, padded, h.rowKV)
	next.fetchKV(next.v)
	transposeInto(vT, h.v.full, n, dim, padded, h.rowKV)
	next.fetchQ(next.q)
	accumulate := h.adds
	for from := (h.queries - 1) / block * block; from >= 0; from -= block {
		rows := min(block, h.queries-from)
		seen, step, width := visible(h, from, rows)
		smallProduct(rows, width, dim, &productArgs{
			a: at(h.q.full, from*h.rowQ), rowA: 4 * h.rowQ, stepA: 4,
			b: at(kT, 0), rowB: 4 * padded, c: at(score, 0), rowC: 4 * padded,
		})
		next.fetchOut(next.dout)
		h.bias.add(score, from, rows, width, padded, 1/h.scale())
		smallProduct(rows, width, dim, &productArgs{
			a: at(h.dout, from*h.rowOut), rowA: 4 * h.rowOut, stepA: 4,
			b: at(vT, 0), rowB: 4 * padded, c: at(dscore, 0), rowC: 4 * padded,
		})
		next.fetchOut(next.out)
		softmaxBackward(&softmaxArgs{
			s: at(score, 0), rows: rows, rowS: 4 * padded, seen: seen, step: step, width: width,
			top: at(h.lse[from:from+rows], 0), dp: at(dscore, 0), out: at(h.out, from*h.rowOut), dout: at(h.dout, from*h.rowOut), rowOut: 4 * h.rowOut, dim: dim,
			scale: h.scale(),
		})
		next.fetchDQ()
		h.bias.addGradient(dscore, from, rows, width, padded, 1/h.scale())
		smallProduct(rows, dim, width, &productArgs{ // dQ = dS·K
			a: at(dscore, 0), rowA: 4 * padded, stepA: 4,
			b: at(h.k.full, 0), rowB: 4 * h.rowKV, c: at(h.dq, from*h.rowQ), rowC: 4 * h.rowQ,
		})
		next.fetchDKV(next.dk)
		smallProduct(width, dim, rows, &productArgs{ // dK += dSᵀ·Q
			a: at(dscore, 0), rowA: 4, stepA: 4 * padded,
			b: at(h.q.full, from*h.rowQ), rowB: 4 * h.rowQ, c: at(h.dk, 0), rowC: 4 * h.rowKV, accumulate: accumulate,
		})
		next.fetchDKV(next.dv)
		smallProduct(width, dim, rows, &productArgs{ // dV += Pᵀ·dO
			a: at(score, 0), rowA: 4, stepA: 4 * padded,
			b: at(h.dout, from*h.rowOut), rowB: 4 * h.rowOut, c: at(h.dv, 0), rowC: 4 * h.rowKV, accumulate: accumulate,
		})
		accumulate = 1
	}
}
