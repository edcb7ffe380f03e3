package kernel

import "math"

// columnStrip is how many columns a thread owns at a time where sums run down the rows: whole cache lines of float32.
const columnStrip = 64

// rowPiece deals rows in pieces of about 16k elements, so that a piece is worth waking a thread for.
func rowPiece(cols int) int { return max(1, 16384/max(1, cols)) }

// flatPiece is the piece of element-wise kernels. It is a multiple of every vector length.
const flatPiece = 16384

// Gather copies rows of a table: y (len(ids), cols), y[i] = table[ids[i]].
func Gather[T Float](p *Pool, y, table []T, ids []int32, cols int) {
	p.For(len(ids), rowPiece(cols), func(lo, hi, _ int) {
		for i := lo; i < hi; i++ {
			at := int(ids[i]) * cols
			copy(y[i*cols:(i+1)*cols], table[at:at+cols])
		}
	})
}

// ScatterAdd is the backward pass of Gather: dtable[ids[i]] += dy[i]. Each column is summed in the order of i.
func ScatterAdd[T Float](p *Pool, dtable, dy []T, ids []int32, cols int) {
	p.For(cols, columnStrip, func(lo, hi, _ int) {
		for i, id := range ids {
			at := int(id) * cols
			addTo(dtable[at+lo:at+hi], dy[i*cols+lo:i*cols+hi])
		}
	})
}

// AddPositions adds row t of pos (context, cols) to row t of every sequence: y = x + pos, both (R, cols). offsets holds
// the first row of each sequence and, last, R. y may be x.
func AddPositions[T Float](p *Pool, y, x, pos []T, offsets []int32, cols int) {
	p.For(len(offsets)-1, 1, func(lo, hi, _ int) {
		for s := lo; s < hi; s++ {
			from, to := int(offsets[s])*cols, int(offsets[s+1])*cols
			addInto(y[from:to], x[from:to], pos[:to-from])
		}
	})
}

// PositionsBackward adds to dpos (context, cols) the gradient of AddPositions: row t of dpos += row t of every sequence
// of dy, in the order of the sequences.
func PositionsBackward[T Float](p *Pool, dpos, dy []T, offsets []int32, cols int) {
	p.For(cols, columnStrip, func(lo, hi, _ int) {
		for s := 0; s+1 < len(offsets); s++ {
			first := int(offsets[s])
			for r := first; r < int(offsets[s+1]); r++ {
				t := r - first
				addTo(dpos[t*cols+lo:t*cols+hi], dy[r*cols+lo:r*cols+hi])
			}
		}
	})
}

// PoolMean averages the rows of each sequence, leaving out its first skip rows: x (R, cols) -> y (sequences, cols).
// A sequence with no rows left gives zeros.
func PoolMean[T Float](p *Pool, y, x []T, offsets []int32, cols, skip int) {
	p.For(len(offsets)-1, 1, func(lo, hi, _ int) {
		for s := lo; s < hi; s++ {
			out := y[s*cols : (s+1)*cols]
			clear(out)
			from, to := int(offsets[s])+skip, int(offsets[s+1])
			for r := from; r < to; r++ {
				addTo(out, x[r*cols:(r+1)*cols])
			}
			if to > from {
				scaleBy(out, 1/T(to-from))
			}
		}
	})
}

// PoolMeanBackward overwrites dx (R, cols) with the gradient of PoolMean: dy of the sequence over its number of rows, zero
// in its first skip rows.
func PoolMeanBackward[T Float](p *Pool, dx, dy []T, offsets []int32, cols, skip int) {
	p.For(len(offsets)-1, 1, func(lo, hi, _ int) {
		for s := lo; s < hi; s++ {
			first, to := int(offsets[s]), int(offsets[s+1])
			from := min(first+skip, to)
			clear(dx[first*cols : from*cols])
			if from == to {
				continue
			}
			share := 1 / T(to-from)
			for r := from; r < to; r++ {
				scaleInto(dx[r*cols:(r+1)*cols], dy[s*cols:(s+1)*cols], share)
			}
		}
	})
}

// L2Normalize divides each row by its Euclidean length: y = x/max(‖x‖, eps), y and x (rows, cols). inv (rows) keeps the
// factor for the backward pass; where eps took the place of the length it is negative, for there the length is a constant.
func L2Normalize[T Float](p *Pool, y, inv, x []T, rows, cols int, eps T) {
	p.For(rows, rowPiece(cols), func(lo, hi, _ int) {
		for r := lo; r < hi; r++ {
			row := x[r*cols : (r+1)*cols]
			length := T(math.Sqrt(float64(dot(row, row))))
			factor := 1 / length
			inv[r] = factor
			if length < eps {
				factor = 1 / eps
				inv[r] = -factor
			}
			scaleInto(y[r*cols:(r+1)*cols], row, factor)
		}
	})
}

// L2NormalizeBackward overwrites dx with the gradient of L2Normalize, from its results y and inv:
//
//	dx = (dy - y·(y·dy))/‖x‖, and dy/eps where ‖x‖ < eps
func L2NormalizeBackward[T Float](p *Pool, dx, dy, y, inv []T, rows, cols int) {
	p.For(rows, rowPiece(cols), func(lo, hi, _ int) {
		for r := lo; r < hi; r++ {
			from, to := r*cols, (r+1)*cols
			factor := inv[r]
			if factor < 0 {
				scaleInto(dx[from:to], dy[from:to], -factor)
				continue
			}
			along := dot(y[from:to], dy[from:to])
			scaleInto(dx[from:to], dy[from:to], factor)
			addScaled(dx[from:to], -along*factor, y[from:to])
		}
	})
}
