//go:build amd64 && !noasm

package kernel

import "unsafe"

// A product of bfloat16 takes pairs along the sum. So a matrix is packed in one of three ways: rows of pairs, as the left
// factor of a sum along its rows; transposed rows of pairs, as its right factor; interleaved rows, two of which make one of
// pairs, as either factor of a sum down its columns. Where a sum has an odd number of terms the last pair ends with a zero.

// matrix is rows (n, cols) in memory, stride elements apart. What is stored as bfloat16 has an even number of columns.
type matrix struct {
	x               stored[float32]
	n, cols, stride int
}

// floats is a matrix of floats.
func floats(x []float32, n, cols, stride int) matrix {
	return matrix{stored[float32]{full: x}, n, cols, stride}
}

// words is the matrix as one of words that are pairs of bfloat16.
func (m matrix) words() (first *float32, cols, rowBytes int) {
	return (*float32)(unsafe.Pointer(&m.x.half[0])), m.cols / 2, 2 * m.stride
}

// rows packs the matrix in rows of ⌈cols/2⌉ words and returns where they are and how far apart: in place if they are stored so.
func (m matrix) rows(dst []float32) (first unsafe.Pointer, rowBytes int) {
	if m.x.half != nil {
		first, _, rowBytes := m.words()
		return unsafe.Pointer(first), rowBytes
	}
	words := (m.cols + 1) / 2
	roundRowsBF16((*uint16)(unsafe.Pointer(&dst[0])), &m.x.full[0], m.n, m.cols, 2*words, 4*words, 4*m.stride)
	return at(dst, 0), 4 * words
}

// transposed packs the matrix in ⌈cols/2⌉ rows of n words, stride words apart; the rows are filled up to a multiple of 16.
func (m matrix) transposed(dst []float32, stride int) {
	if m.x.half != nil {
		first, cols, rowBytes := m.words()
		transposeAVX512(&dst[0], first, m.n, cols, 4*stride, rowBytes)
		return
	}
	var rows [16]*float32
	for i := 0; i < m.n; i += 16 {
		for r := range rows { // rows past the end repeat the last; nobody reads their results
			rows[r] = &m.x.full[min(i+r, m.n-1)*m.stride]
		}
		packTransposedBF16(&rows, m.cols, &dst[i], 4*stride)
	}
}

// interleaved packs the matrix in ⌈n/2⌉ rows of cols words, stride ≥ pad16(cols) words apart.
func (m matrix) interleaved(dst []float32, stride int) {
	for j := 0; j < m.cols; j += 32 {
		wide, mask := m.cols-j > 16, mask16(min(16, m.cols-j))
		if wide {
			mask = mask16(min(16, m.cols-j-16))
		}
		switch {
		case m.x.half != nil && wide:
			packHalves32BF16(m.n, &m.x.half[j], 2*m.stride, 128*m.stride, &dst[j], 4*stride, 1, 0, mask)
		case m.x.half != nil:
			packHalves16BF16(m.n, &m.x.half[j], 2*m.stride, 128*m.stride, &dst[j], 4*stride, 1, 0, mask)
		case wide:
			packRows32BF16(m.n, &m.x.full[j], 4*m.stride, 256*m.stride, &dst[j], 4*stride, 1, 0, mask)
		default:
			packRows16BF16(m.n, &m.x.full[j], 4*m.stride, 256*m.stride, &dst[j], 4*stride, 1, 0, mask)
		}
	}
}

// part takes n floats off the front of memory.
func part(memory *[]float32, n int) []float32 {
	n = pad16(n)
	p := (*memory)[:n]
	*memory = (*memory)[n:]
	return p
}

// forwardBF16 is forwardVectors with products of bfloat16.
func forwardBF16(h *head[float32], p *Pool, thread int, next ahead) {
	n, dim, padded, wide, words := h.keys, h.dim, scoreRow(h.keys), pad16(h.dim), (h.dim+1)/2
	block, pairs := min(h.queries, attentionBlock(n, padded)), (n+1)/2
	memory := scratch[float32](p, thread, slotA, padded*words+pairs*wide+block*(words+padded+padded/2)+pad16(block)+6*16)
	kT, v := part(&memory, padded*words), part(&memory, pairs*wide)
	q, score, prob, sum := part(&memory, block*words), part(&memory, block*padded), part(&memory, block*padded/2), part(&memory, block)
	matrix{h.k, n, dim, h.rowKV}.transposed(kT, padded)
	next.fetchKV(next.k)
	matrix{h.v, n, dim, h.rowKV}.interleaved(v, wide)
	next.fetchKV(next.v)
	for from := 0; from < h.queries; from += block {
		rows := min(block, h.queries-from)
		seen, step, width := visible(h, from, rows)
		qRows, rowQ := matrix{h.q.from(from * h.rowQ), rows, dim, h.rowQ}.rows(q)
		anyProduct(rows, width, words, true, &productArgs{
			a: qRows, rowA: rowQ, stepA: 4,
			b: at(kT, 0), rowB: 4 * padded, c: at(score, 0), rowC: 4 * padded,
		})
		next.fetchQ(next.q)
		h.bias.add(score, from, rows, width, padded, 1/h.scale())
		lse := h.lse[from : from+rows]
		softmaxForward(&softmaxArgs{
			s: at(score, 0), rows: rows, rowS: 4 * padded, seen: seen, step: step, width: width,
			top: at(lse, 0), sum: at(sum, 0), scale: h.scale(),
		})
		softmaxFinish(lse, sum)
		floats(score, rows, width, padded).rows(prob)
		half := (width + 1) / 2
		anyProduct(rows, dim, half, true, &productArgs{
			a: at(prob, 0), rowA: 4 * half, stepA: 4,
			b: at(v, 0), rowB: 4 * wide, c: at(h.out, from*h.rowOut), rowC: 4 * h.rowOut, rowScale: uintptr(at(sum, 0)),
		})
	}
}

// backwardBF16 is backwardVectors with products of bfloat16.
func backwardBF16(h *head[float32], p *Pool, thread int, next ahead) {
	n, dim, padded, wide, words := h.keys, h.dim, scoreRow(h.keys), pad16(h.dim), (h.dim+1)/2
	block := min(h.queries, attentionBlock(n, padded))
	pairs, blockPairs := (n+1)/2, (block+1)/2
	memory := scratch[float32](p, thread, slotA,
		2*padded*words+pairs*wide+2*block*words+2*blockPairs*wide+2*block*padded+2*blockPairs*padded+block*padded/2+13*16)
	kT, vT, k := part(&memory, padded*words), part(&memory, padded*words), part(&memory, pairs*wide)
	qRows, doutRows, q, dout := part(&memory, block*words), part(&memory, block*words), part(&memory, blockPairs*wide), part(&memory, blockPairs*wide)
	score, dscore := part(&memory, block*padded), part(&memory, block*padded)
	prob, ds, dsRows := part(&memory, blockPairs*padded), part(&memory, blockPairs*padded), part(&memory, block*padded/2)
	matrix{h.k, n, dim, h.rowKV}.transposed(kT, padded)
	matrix{h.k, n, dim, h.rowKV}.interleaved(k, wide)
	next.fetchKV(next.k)
	matrix{h.v, n, dim, h.rowKV}.transposed(vT, padded)
	next.fetchKV(next.v)
	accumulate := h.adds
	for from := (h.queries - 1) / block * block; from >= 0; from -= block {
		rows := min(block, h.queries-from)
		seen, step, width := visible(h, from, rows)
		rowPairs, half := (rows+1)/2, (width+1)/2
		queries, gradient := matrix{h.q.from(from * h.rowQ), rows, dim, h.rowQ}, floats(h.dout[from*h.rowOut:], rows, dim, h.rowOut)
		leftQ, rowQ := queries.rows(qRows)
		queries.interleaved(q, wide)
		gradient.rows(doutRows)
		gradient.interleaved(dout, wide)
		anyProduct(rows, width, words, true, &productArgs{
			a: leftQ, rowA: rowQ, stepA: 4,
			b: at(kT, 0), rowB: 4 * padded, c: at(score, 0), rowC: 4 * padded,
		})
		next.fetchQ(next.q)
		next.fetchOut(next.dout)
		h.bias.add(score, from, rows, width, padded, 1/h.scale())
		anyProduct(rows, width, words, true, &productArgs{
			a: at(doutRows, 0), rowA: 4 * words, stepA: 4,
			b: at(vT, 0), rowB: 4 * padded, c: at(dscore, 0), rowC: 4 * padded,
		})
		next.fetchOut(next.out)
		softmaxBackward(&softmaxArgs{
			s: at(score, 0), rows: rows, rowS: 4 * padded, seen: seen, step: step, width: width,
			top: at(h.lse[from:from+rows], 0), dp: at(dscore, 0), out: at(h.out, from*h.rowOut), dout: at(h.dout, from*h.rowOut), rowOut: 4 * h.rowOut, dim: dim,
			scale: h.scale(),
		})
		h.bias.addGradient(dscore, from, rows, width, padded, 1/h.scale())
		scores := floats(dscore, rows, width, padded)
		scores.rows(dsRows)
		scores.interleaved(ds, padded)
		floats(score, rows, width, padded).interleaved(prob, padded)
		next.fetchDQ()
		anyProduct(rows, dim, half, true, &productArgs{ // dQ = dS·K
			a: at(dsRows, 0), rowA: 4 * half, stepA: 4,
			b: at(k, 0), rowB: 4 * wide, c: at(h.dq, from*h.rowQ), rowC: 4 * h.rowQ,
		})
		next.fetchDKV(next.dk)
		anyProduct(width, dim, rowPairs, true, &productArgs{ // dK += dSᵀ·Q
			a: at(ds, 0), rowA: 4, stepA: 4 * padded,
			b: at(q, 0), rowB: 4 * wide, c: at(h.dk, 0), rowC: 4 * h.rowKV, accumulate: accumulate,
		})
		next.fetchDKV(next.dv)
		anyProduct(width, dim, rowPairs, true, &productArgs{ // dV += Pᵀ·dO
			a: at(prob, 0), rowA: 4, stepA: 4 * padded,
			b: at(dout, 0), rowB: 4 * wide, c: at(h.dv, 0), rowC: 4 * h.rowKV, accumulate: accumulate,
		})
		accumulate = 1
	}
}
