package kernel

import "math"

// The losses over all pairs of N images and N texts work on blocks of a few rows of the (N, N) logits, so the matrix
// never exists as a whole. InfoNCE takes two passes over the blocks. Forward, per block: LogSumExpRows, LogSumExpColumns
// (which runs on from block to block; LogSumExpFinish ends it) and InfoNCETargets; the loss is
//
//	L = (Σ rowLSE + Σ columnLSE - Σ of InfoNCETargets)/(2N)
//
// Backward, per block computed again: InfoNCEGradient turns logits into their gradient. The sigmoid loss needs one pass
// each: SigmoidLoss, SigmoidGradient.

// LogSumExpRows writes log Σ_j exp(s_ij) of each row of s (rows, cols) to lse (rows).
func LogSumExpRows[T Float](p *Pool, lse, s []T, rows, cols int) {
	p.For(rows, rowPiece(cols), func(lo, hi, _ int) {
		for r := lo; r < hi; r++ {
			row := s[r*cols : (r+1)*cols]
			top := rowMax(row)
			lse[r] = top + T(math.Log(float64(expSum(row, top))))
		}
	})
}

// LogSumExpColumns runs the rows of s (rows, cols) into the running maximum and, relative to it, sum of exponentials of
// each column; top (cols) begins as -Inf and sum (cols) as 0. Blocks must come in one order.
func LogSumExpColumns[T Float](p *Pool, top, sum, s []T, rows, cols int) {
	p.For(cols, columnStrip, func(lo, hi, _ int) {
		columnsExpSum(top[lo:hi], sum[lo:hi], s[lo:], rows, cols)
	})
}

// LogSumExpFinish writes top + log sum to lse, which may be either of them.
func LogSumExpFinish[T Float](lse, top, sum []T) {
	for i := range lse {
		lse[i] = top[i] + T(math.Log(float64(sum[i])))
	}
}

// InfoNCEBlock is a block of rows of the logits s_ij = t·x_i·y_j. The target of row i, and by symmetry of column i, gives
// the weight Share[i] to every column of the row's group and Smooth besides to every column:
//
//	target_ij = Smooth + Share[i] if Groups[i] = Groups[j], else Smooth
//
// A target sums to 1 when Share[i] = (1-ε)/(size of the group of i) and Smooth = ε/N with label smoothing ε (Szegedy et
// al. 2016, §7).
type InfoNCEBlock[T Float] struct {
	Logits      []T // (Rows, Cols); InfoNCEGradient overwrites them
	Rows, Cols  int
	First       int     // index of the block's first row among all rows; Cols is their number
	Groups      []int32 // (Cols), or nil: every row is a group of its own
	Share       []T     // (Cols)
	Smooth      T
	RowLSE      []T // (Rows): of this block's rows
	ColumnLSE   []T // (Cols)
	GradPerTerm T   // factor of the gradient: dL/(2N)
}

// InfoNCETargets returns 2·Σ_ij target_ij·s_ij of the block, what the loss subtracts from the log-sum-exps of rows and columns.
func InfoNCETargets[T Float](p *Pool, b *InfoNCEBlock[T]) float64 {
	q := own(p)
	defer disown(p, q)
	part := scratch[float64](q, 0, slotA, b.Rows)
	q.For(b.Rows, 1, func(lo, hi, _ int) {
		for r := lo; r < hi; r++ {
			row := b.Logits[r*b.Cols : (r+1)*b.Cols]
			i := b.First + r
			same := float64(row[i])
			if b.Groups != nil {
				same = 0
				for j, g := range b.Groups[:b.Cols] {
					if g == b.Groups[i] {
						same += float64(row[j])
					}
				}
			}
			part[r] = float64(b.Share[i]) * same
			if b.Smooth != 0 {
				part[r] += float64(b.Smooth) * sum(row)
			}
		}
	})
	return 2 * sum(part)
}

// InfoNCEGradient overwrites the logits of the block with the gradient
//
//	ds_ij = GradPerTerm·(exp(s_ij - RowLSE_i) + exp(s_ij - ColumnLSE_j) - 2·target_ij)
//
// and returns Σ_ij ds_ij·s_ij, the gradient of log t.
func InfoNCEGradient[T Float](p *Pool, b *InfoNCEBlock[T]) float64 {
	q := own(p)
	defer disown(p, q)
	part := scratch[float64](q, 0, slotA, b.Rows)
	q.For(b.Rows, 1, func(lo, hi, thread int) {
		old := scratch[T](q, thread, slotB, b.Cols)
		for r := lo; r < hi; r++ {
			row := b.Logits[r*b.Cols : (r+1)*b.Cols]
			copy(old, row)
			infoNCEProbabilities(row, b.RowLSE[r], b.ColumnLSE[:b.Cols], b.GradPerTerm, 2*b.Smooth)
			i := b.First + r
			target := 2 * b.GradPerTerm * b.Share[i]
			if b.Groups == nil {
				row[i] -= target
			} else {
				for j, g := range b.Groups[:b.Cols] {
					if g == b.Groups[i] {
						row[j] -= target
					}
				}
			}
			part[r] = float64(dot(row, old))
		}
	})
	return sum(part)
}

// SigmoidBlock is a block of rows of the logits s_ij = t·x_i·y_j + b of the pairwise sigmoid loss (Zhai et al. 2023, §3.2).
// z_ij is +1 where i and j are of one group, else -1.
type SigmoidBlock[T Float] struct {
	Logits     []T // (Rows, Cols); SigmoidGradient overwrites them
	Rows, Cols int
	First      int     // index of the block's first row among all rows
	Groups     []int32 // (Cols), or nil: every row is a group of its own
	Grad       T       // factor of the gradient: dL/N
}

// positives calls f with each column of a positive pair of the block's row r.
func (b *SigmoidBlock[T]) positives(r int, f func(j int)) {
	if b.Groups == nil {
		f(b.First + r)
		return
	}
	own := b.Groups[b.First+r]
	for j, g := range b.Groups[:b.Cols] {
		if g == own {
			f(j)
		}
	}
}

// SigmoidLoss returns -Σ_ij log σ(z_ij·s_ij) of the block.
func SigmoidLoss[T Float](p *Pool, b *SigmoidBlock[T]) float64 {
	q := own(p)
	defer disown(p, q)
	part := scratch[float64](q, 0, slotA, b.Rows)
	q.For(b.Rows, 1, func(lo, hi, _ int) {
		for r := lo; r < hi; r++ {
			row := b.Logits[r*b.Cols : (r+1)*b.Cols]
			loss := float64(softplusSum(row))                       // as if all were negative
			b.positives(r, func(j int) { loss -= float64(row[j]) }) // softplus(-x) = softplus(x) - x
			part[r] = loss
		}
	})
	return sum(part)
}

// SigmoidGradient overwrites the logits with the gradient ds_ij = -Grad·z_ij·σ(-z_ij·s_ij). It returns Σ ds_ij·s_ij and
// Σ ds_ij: the latter is the gradient of the bias b, and the former less b times the latter that of log t.
func SigmoidGradient[T Float](p *Pool, b *SigmoidBlock[T]) (along, bias float64) {
	q := own(p)
	defer disown(p, q)
	part := scratch[float64](q, 0, slotA, 2*b.Rows)
	q.For(b.Rows, 1, func(lo, hi, thread int) {
		old := scratch[T](q, thread, slotB, b.Cols)
		for r := lo; r < hi; r++ {
			row := b.Logits[r*b.Cols : (r+1)*b.Cols]
			copy(old, row)
			sigmoidRow(row, b.Grad)
			b.positives(r, func(j int) { row[j] = -b.Grad / (1 + T(math.Exp(float64(old[j])))) })
			part[2*r], part[2*r+1] = float64(dot(row, old)), sum(row)
		}
	})
	for r := range b.Rows {
		along += part[2*r]
		bias += part[2*r+1]
	}
	return along, bias
}

// The functions below are the loops of one thread.

// rowMax returns the largest element, and -Inf of none. A NaN may or may not win.
func rowMax[T Float](row []T) T {
	if isSingle[T]() {
		if top, ok := rowMax32(single(row)); ok {
			return T(top)
		}
	}
	top := T(math.Inf(-1))
	for _, v := range row {
		top = max(top, v)
	}
	return top
}

// expSum returns Σ exp(row - top), where top is the row's maximum.
func expSum[T Float](row []T, top T) T {
	if isSingle[T]() {
		if total, ok := expSum32(single(row), float32(top)); ok {
			return T(total)
		}
	}
	var total T
	for _, v := range row {
		total += T(math.Exp(float64(v - top)))
	}
	return total
}

// columnsExpSum is LogSumExpColumns on len(top) columns of s, whose rows are stride apart.
func columnsExpSum[T Float](top, sum, s []T, rows, stride int) {
	if isSingle[T]() && columnsExpSum32(single(top), single(sum), single(s), rows, stride) {
		return
	}
	for c := range top {
		high := top[c]
		for r := range rows {
			high = max(high, s[r*stride+c])
		}
		total := T(0)
		if sum[c] != 0 { // not the first block
			total = sum[c] * T(math.Exp(float64(top[c]-high)))
		}
		for r := range rows {
			total += T(math.Exp(float64(s[r*stride+c] - high)))
		}
		top[c], sum[c] = high, total
	}
}

// infoNCEProbabilities turns a row of logits into factor·(exp(s - rowLSE) + exp(s - columnLSE) - less).
func infoNCEProbabilities[T Float](row []T, rowLSE T, columnLSE []T, factor, less T) {
	if isSingle[T]() && infoNCEProbabilities32(single(row), float32(rowLSE), single(columnLSE), float32(factor), float32(less)) {
		return
	}
	for j, s := range row {
		e := T(math.Exp(float64(s-rowLSE))) + T(math.Exp(float64(s-columnLSE[j])))
		row[j] = factor * (e - less)
	}
}

// sum adds in float64, in order.
func sum[T Float](x []T) float64 {
	total := 0.0
	for _, v := range x {
		total += float64(v)
	}
	return total
}

// softplusSum returns Σ log(1 + exp(row)).
func softplusSum[T Float](row []T) T {
	if isSingle[T]() {
		if total, ok := softplusSum32(single(row)); ok {
			return T(total)
		}
	}
	var total T
	for _, v := range row {
		x := float64(v)
		total += T(max(x, 0) + math.Log1p(math.Exp(-math.Abs(x)))) // does not overflow
	}
	return total
}

// sigmoidRow sets row = factor·σ(row).
func sigmoidRow[T Float](row []T, factor T) {
	if isSingle[T]() && sigmoid32(single(row), float32(factor)) {
		return
	}
	for i, v := range row {
		row[i] = factor / (1 + T(math.Exp(-float64(v))))
	}
}
