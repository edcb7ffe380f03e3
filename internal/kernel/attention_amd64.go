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
type ahead struct {
	h            head[float32]
	dim, d, rows int
}

func nextHead(f *Attention[float32], seq, index int) ahead {
	if index++; index == f.Heads {
		seq, index = seq+1, 0
	}
	n := ahead{dim: f.HeadDim, d: f.Heads * f.HeadDim}
	if seq+1 < len(f.Offsets) {
		if h := f.head(seq, index); h.length <= prefetchLength {
			n.h, n.rows = h, h.length
		}
	}
	return n
}

// fetch asks for the head's part x, whose rows are wide floats apart.
func (n *ahead) fetch(x []float32, wide int) {
	if n.rows > 0 {
		prefetchAVX512(&x[0], n.rows, 4*n.dim, 4*wide)
	}
}

// forward32 is forward on AVX-512. It keeps Kᵀ and the scores of a block of rows in scratch.
func (a *Attention[T]) forward32(p *Pool, thread, seq, index int) bool {
	f, ok := any(a).(*Attention[float32])
	if !ok || !useAVX512 {
		return false
	}
	if f.BF16 {
		return f.forwardBF16(p, thread, seq, index)
	}
	h, dim, d := f.head(seq, index), f.HeadDim, f.Heads*f.HeadDim
	if h.length == 0 {
		return true
	}
	n, padded := h.length, scoreRow(h.length)
	block := attentionBlock(n, padded)
	memory := scratch[float32](p, thread, slotA, padded*(dim+block)+pad16(block))
	kT, score, sum := memory[:padded*dim], memory[padded*dim:padded*(dim+block)], memory[padded*(dim+block):]
	last := (n-1)*3*d + dim
	q, k, v, out := h.q[:last], h.k[:last], h.v[:last], h.out[:(n-1)*d+dim]
	next := nextHead(f, seq, index)
	next.fetch(next.h.k, 3*d)
	transposeAVX512(&kT[0], &k[0], n, dim, 4*padded, 12*d)
	next.fetch(next.h.q, 3*d)
	for from := 0; from < n; from += block {
		rows := min(block, n-from)
		seen, step, width := n, 0, n
		if f.Causal {
			seen, step, width = from+1, 1, from+rows
		}
		smallProduct(rows, width, dim, &productArgs{
			a: at(q, from*3*d), rowA: 12 * d, stepA: 4,
			b: at(kT, 0), rowB: 4 * padded, c: at(score, 0), rowC: 4 * padded,
		})
		next.fetch(next.h.v, 3*d)
		lse := h.lse[from : from+rows]
		softmaxForwardAVX512((*byte)(unsafe.Pointer(&softmaxArgs{
			s: at(score, 0), rows: rows, rowS: 4 * padded, seen: seen, step: step, width: width,
			top: at(lse, 0), sum: at(sum, 0), scale: float32(1 / math.Sqrt(float64(dim))),
		})))
		softmaxFinishAVX512(&lse[0], &sum[0], &sum[0], rows)
		smallProduct(rows, dim, width, &productArgs{
			a: at(score, 0), rowA: 4 * padded, stepA: 4,
			b: at(v, 0), rowB: 12 * d, c: at(out, from*d), rowC: 4 * d, rowScale: uintptr(at(sum, 0)),
		})
	}
	return true
}

// backward32 is backward on AVX-512. Blocks of rows go from the last to the first: in a causal head the last block alone sees
// all keys, so it writes the gradients of K and V that the others add to.
func (a *Attention[T]) backward32(p *Pool, thread, seq, index int) bool {
	f, ok := any(a).(*Attention[float32])
	if !ok || !useAVX512 {
		return false
	}
	if f.BF16 {
		return f.backwardBF16(p, thread, seq, index)
	}
	h, dim, d := f.head(seq, index), f.HeadDim, f.Heads*f.HeadDim
	if h.length == 0 {
		return true
	}
	n, padded := h.length, scoreRow(h.length)
	block := attentionBlock(n, padded)
	memory := scratch[float32](p, thread, slotA, 2*padded*(dim+block))
	kT, vT := memory[:padded*dim], memory[padded*dim:2*padded*dim]
	score, dscore := memory[2*padded*dim:padded*(2*dim+block)], memory[padded*(2*dim+block):]
	last := (n-1)*3*d + dim
	q, k, v, dq, dk, dv := h.q[:last], h.k[:last], h.v[:last], h.dq[:last], h.dk[:last], h.dv[:last]
	out, dout := h.out[:(n-1)*d+dim], h.dout[:(n-1)*d+dim]
	next := nextHead(f, seq, index)
	next.fetch(next.h.k, 3*d)
	transposeAVX512(&kT[0], &k[0], n, dim, 4*padded, 12*d)
	next.fetch(next.h.v, 3*d)
	transposeAVX512(&vT[0], &v[0], n, dim, 4*padded, 12*d)
	next.fetch(next.h.q, 3*d)
	accumulate := 0
	for from := (n - 1) / block * block; from >= 0; from -= block {
		rows := min(block, n-from)
		seen, step, width := n, 0, n
		if f.Causal {
			seen, step, width = from+1, 1, from+rows
		}
		smallProduct(rows, width, dim, &productArgs{
			a: at(q, from*3*d), rowA: 12 * d, stepA: 4,
			b: at(kT, 0), rowB: 4 * padded, c: at(score, 0), rowC: 4 * padded,
		})
		next.fetch(next.h.dout, d)
		smallProduct(rows, width, dim, &productArgs{
			a: at(dout, from*d), rowA: 4 * d, stepA: 4,
			b: at(vT, 0), rowB: 4 * padded, c: at(dscore, 0), rowC: 4 * padded,
		})
		next.fetch(next.h.out, d)
		softmaxBackwardAVX512((*byte)(unsafe.Pointer(&softmaxArgs{
			s: at(score, 0), rows: rows, rowS: 4 * padded, seen: seen, step: step, width: width,
			top: at(h.lse[from:from+rows], 0), dp: at(dscore, 0), out: at(out, from*d), dout: at(dout, from*d), rowOut: 4 * d, dim: dim,
			scale: float32(1 / math.Sqrt(float64(dim))),
		})))
		next.fetch(next.h.dq, 3*d)
		smallProduct(rows, dim, width, &productArgs{ // dQ = dS·K
			a: at(dscore, 0), rowA: 4 * padded, stepA: 4,
			b: at(k, 0), rowB: 12 * d, c: at(dq, from*3*d), rowC: 12 * d,
		})
		next.fetch(next.h.dk, 3*d)
		smallProduct(width, dim, rows, &productArgs{ // dK += dSᵀ·Q
			a: at(dscore, 0), rowA: 4, stepA: 4 * padded,
			b: at(q, from*3*d), rowB: 12 * d, c: at(dk, 0), rowC: 12 * d, accumulate: accumulate,
		})
		next.fetch(next.h.dv, 3*d)
		smallProduct(width, dim, rows, &productArgs{ // dV += Pᵀ·dO
			a: at(score, 0), rowA: 4, stepA: 4 * padded,
			b: at(dout, from*d), rowB: 4 * d, c: at(dv, 0), rowC: 12 * d, accumulate: accumulate,
		})
		accumulate = 1
	}
	return true
}
