package kernel

import "slices"

// CrossEntropy is R rows of K scores and their targets
//
//	q_rk = (1-ε)·((1-λ_r)·[k = Classes[r]] + λ_r·[k = Others[r]]) + ε/K
type CrossEntropy[T Float] struct {
	Logits     []T // (Rows, Cols)
	Rows, Cols int
	Classes    []int32 // (Rows)
	Others     []int32 // (Rows), nil without mixed targets
	Mix        []T     // (Rows): λ; nil without mixed targets
	Weights    []T     // (Rows), nil: all 1
	Smoothing  T       // ε
	LSE        []T     // (Rows): log Σ_k exp(z_rk), written forward, read backward
}

// weight returns w_r.
func (c *CrossEntropy[T]) weight(r int) float64 {
	if c.Weights == nil {
		return 1
	}
	return float64(c.Weights[r])
}

// share returns λ_r.
func (c *CrossEntropy[T]) share(r int) T {
	if c.Mix == nil {
		return 0
	}
	return c.Mix[r]
}

// CrossEntropyForward returns Σ_r w_r·(LSE_r - Σ_k q_rk·z_rk) and how many rows with a weight have their highest score, of
// equal ones the first, at the class of the larger share. Rows are added in order.
func CrossEntropyForward[T Float](p *Pool, c *CrossEntropy[T]) (loss float64, right int) {
	q := own(p)
	defer disown(p, q)
	LogSumExpRows(q, c.LSE, c.Logits, c.Rows, c.Cols)
	part := scratch[float64](q, 0, slotA, 2*c.Rows)
	q.For(c.Rows, rowPiece(c.Cols), func(lo, hi, _ int) {
		for r := lo; r < hi; r++ {
			row := c.Logits[r*c.Cols : (r+1)*c.Cols]
			part[2*r], part[2*r+1] = 0, 0
			w := c.weight(r)
			if w == 0 {
				continue
			}
			class, share := c.Classes[r], float64(c.share(r))
			aim := (1 - share) * float64(row[class])
			if share > 0 {
				aim += share * float64(row[c.Others[r]])
			}
			eps := float64(c.Smoothing)
			aim *= 1 - eps
			if eps > 0 {
				aim += eps / float64(c.Cols) * sum(row)
			}
			part[2*r] = w * (float64(c.LSE[r]) - aim)
			if share > 0.5 {
				class = c.Others[r]
			}
			if first(row) == int(class) {
				part[2*r+1] = 1
			}
		}
	})
	for r := range c.Rows {
		loss += part[2*r]
		right += int(part[2*r+1])
	}
	return loss, right
}

// first returns the index of the largest element, the lowest of equal ones; -1 if all are NaN.
func first[T Float](row []T) int { return slices.Index(row, rowMax(row)) }

// CrossEntropyBackward writes the gradient of the loss, times factor, to d (Rows, Cols): d_rk = factor·w_r·(softmax_rk - q_rk).
func CrossEntropyBackward[T Float](p *Pool, c *CrossEntropy[T], d []T, factor T) {
	smooth := c.Smoothing / T(c.Cols)
	p.For(c.Rows, rowPiece(c.Cols), func(lo, hi, _ int) {
		for r := lo; r < hi; r++ {
			row, out := c.Logits[r*c.Cols:(r+1)*c.Cols], d[r*c.Cols:(r+1)*c.Cols]
			f := factor * T(c.weight(r))
			if f == 0 {
				clear(out)
				continue
			}
			copy(out, row)
			softmaxGradRow(out, c.LSE[r], f, smooth)
			share := c.share(r)
			out[c.Classes[r]] -= f * (1 - c.Smoothing) * (1 - share)
			if share > 0 {
				out[c.Others[r]] -= f * (1 - c.Smoothing) * share
			}
		}
	})
}
