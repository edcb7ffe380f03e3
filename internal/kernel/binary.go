package kernel

import "math"

// BinaryCrossEntropy is R rows of K scores and their soft targets, each score a decision of its own.
type BinaryCrossEntropy[T Float] struct {
	Logits     []T // (Rows, Cols)
	Targets    []T // (Rows, Cols), in [0, 1]
	Rows, Cols int
}

// BinaryCrossEntropyForward returns Σ_r Σ_k (max(z, 0) - z·q + log(1 + exp(-|z|))) and Σ_r q_r[argmax_k z_rk], of equal scores the
// first. Rows are added in order.
func BinaryCrossEntropyForward[T Float](p *Pool, c *BinaryCrossEntropy[T]) (loss, hit float64) {
	q := own(p)
	defer disown(p, q)
	part := scratch[float64](q, 0, slotA, 2*c.Rows)
	q.For(c.Rows, rowPiece(c.Cols), func(lo, hi, _ int) {
		for r := lo; r < hi; r++ {
			row, aims, sum := c.Logits[r*c.Cols:(r+1)*c.Cols], c.Targets[r*c.Cols:(r+1)*c.Cols], 0.0
			for k, v := range row {
				z := float64(v)
				sum += math.Max(z, 0) - z*float64(aims[k]) + math.Log1p(math.Exp(-math.Abs(z)))
			}
			part[2*r], part[2*r+1] = sum, 0
			if k := first(row); k >= 0 {
				part[2*r+1] = float64(aims[k])
			}
		}
	})
	for r := range c.Rows {
		loss += part[2*r]
		hit += part[2*r+1]
	}
	return loss, hit
}

// BinaryCrossEntropyBackward writes the gradient of the loss, times factor, to d (Rows, Cols): factor·(σ(z) - q).
func BinaryCrossEntropyBackward[T Float](p *Pool, c *BinaryCrossEntropy[T], d []T, factor T) {
	p.For(c.Rows, rowPiece(c.Cols), func(lo, hi, _ int) {
		for i := lo * c.Cols; i < hi*c.Cols; i++ {
			d[i] = factor * (T(1/(1+math.Exp(-float64(c.Logits[i])))) - c.Targets[i])
		}
	})
}
