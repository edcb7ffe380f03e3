//go:build amd64 && !noasm

package kernel

import "math"

// forward32 is forward on vectors. It keeps Kᵀ and the scores of a block of queries in scratch.
func (a *CrossAttention[T]) forward32(p *Pool, thread, seq, index int) bool {
	f, ok := any(a).(*CrossAttention[float32])
	if !ok || !useVectors {
		return false
	}
	h, dim, d := f.head(seq, f.read(seq), index), f.HeadDim, f.Heads*f.HeadDim
	if h.queries == 0 || h.keys == 0 {
		return true
	}
	n, padded := h.keys, scoreRow(h.keys)
	block := min(h.queries, attentionBlock(n, padded))
	memory := scratch[float32](p, thread, slotA, padded*(dim+block)+pad16(block))
	kT, score, sum := memory[:padded*dim], memory[padded*dim:padded*(dim+block)], memory[padded*(dim+block):]
	transposeInto(kT, h.k, n, dim, padded, 2*d)
	for from := 0; from < h.queries; from += block {
		rows := min(block, h.queries-from)
		smallProduct(rows, n, dim, &productArgs{
			a: at(h.q, from*d), rowA: 4 * d, stepA: 4,
			b: at(kT, 0), rowB: 4 * padded, c: at(score, 0), rowC: 4 * padded,
		})
		lse := h.lse[from : from+rows]
		softmaxForward(&softmaxArgs{
			s: at(score, 0), rows: rows, rowS: 4 * padded, seen: n, width: n,
			top: at(lse, 0), sum: at(sum, 0), scale: float32(1 / math.Sqrt(float64(dim))),
		})
		softmaxFinish(lse, sum)
		smallProduct(rows, dim, n, &productArgs{
			a: at(score, 0), rowA: 4 * padded, stepA: 4,
			b: at(h.v, 0), rowB: 8 * d, c: at(h.out, from*d), rowC: 4 * d, rowScale: uintptr(at(sum, 0)),
		})
	}
	return true
}

// backward32 is backward on vectors: the first block of queries writes the gradients of K and V that the others add to.
func (a *CrossAttention[T]) backward32(p *Pool, thread, keys, index int) bool {
	f, ok := any(a).(*CrossAttention[float32])
	if !ok || !useVectors {
		return false
	}
	readers, most := f.readers[f.begin[keys]:f.begin[keys+1]], 0
	for _, seq := range readers {
		most = max(most, int(f.QOffsets[seq+1]-f.QOffsets[seq]))
	}
	n := int(f.Offsets[keys+1] - f.Offsets[keys])
	if most == 0 || n == 0 {
		return false // nothing but gradients to clear
	}
	dim, d, padded := f.HeadDim, f.Heads*f.HeadDim, scoreRow(n)
	block := min(most, attentionBlock(n, padded))
	memory := scratch[float32](p, thread, slotA, 2*padded*(dim+block))
	kT, vT := memory[:padded*dim], memory[padded*dim:2*padded*dim]
	score, dscore := memory[2*padded*dim:padded*(2*dim+block)], memory[padded*(2*dim+block):]
	accumulate := 0
	for _, seq := range readers {
		h := f.head(int(seq), keys, index)
		if h.queries > 0 && accumulate == 0 {
			transposeInto(kT, h.k, n, dim, padded, 2*d)
			transposeInto(vT, h.v, n, dim, padded, 2*d)
		}
		for from := 0; from < h.queries; from += block {
			rows := min(block, h.queries-from)
			smallProduct(rows, n, dim, &productArgs{
				a: at(h.q, from*d), rowA: 4 * d, stepA: 4,
				b: at(kT, 0), rowB: 4 * padded, c: at(score, 0), rowC: 4 * padded,
			})
			smallProduct(rows, n, dim, &productArgs{
				a: at(h.dout, from*d), rowA: 4 * d, stepA: 4,
				b: at(vT, 0), rowB: 4 * padded, c: at(dscore, 0), rowC: 4 * padded,
			})
			softmaxBackward(&softmaxArgs{
				s: at(score, 0), rows: rows, rowS: 4 * padded, seen: n, width: n,
				top: at(h.lse[from:from+rows], 0), dp: at(dscore, 0), out: at(h.out, from*d), dout: at(h.dout, from*d), rowOut: 4 * d, dim: dim,
				scale: float32(1 / math.Sqrt(float64(dim))),
			})
			smallProduct(rows, dim, n, &productArgs{ // dQ = dS·K
				a: at(dscore, 0), rowA: 4 * padded, stepA: 4,
				b: at(h.k, 0), rowB: 8 * d, c: at(h.dq, from*d), rowC: 4 * d,
			})
			smallProduct(n, dim, rows, &productArgs{ // dK += dSᵀ·Q
				a: at(dscore, 0), rowA: 4, stepA: 4 * padded,
				b: at(h.q, from*d), rowB: 4 * d, c: at(h.dk, 0), rowC: 8 * d, accumulate: accumulate,
			})
			smallProduct(n, dim, rows, &productArgs{ // dV += Pᵀ·dO
				a: at(score, 0), rowA: 4, stepA: 4 * padded,
				b: at(h.dout, from*d), rowB: 4 * d, c: at(h.dv, 0), rowC: 8 * d, accumulate: accumulate,
			})
			accumulate = 1
		}
	}
	return true
}
