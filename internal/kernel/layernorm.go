package kernel

import "math"

// LayerNorm normalises each row of x (rows, cols) to mean zero and variance one, then scales and shifts it (Ba, Kiros and
// Hinton 2016, equation 4): y = (x-mean)·rstd·gamma + beta, rstd = 1/√(variance + eps), gamma and beta (cols). mean and
// rstd (rows) are kept for the backward pass. y may be x.
func LayerNorm[T Float](p *Pool, y, mean, rstd, x, gamma, beta []T, rows, cols int, eps T) {
	p.For(rows, rowPiece(cols), func(lo, hi, _ int) {
		layerNorm(y[lo*cols:hi*cols], mean[lo:hi], rstd[lo:hi], x[lo*cols:hi*cols], gamma[:cols], beta[:cols], eps)
	})
}

// layerNormRows is the fixed row block over which the gradients of gamma and beta are summed first.
const layerNormRows = 128

// LayerNormBackward is the gradient of LayerNorm. With x̂ = (x-mean)·rstd and g = dy·gamma:
//
//	dx = rstd·(g - avg(g) - x̂·avg(g·x̂)) + add;  dgamma += Σ dy·x̂;  dbeta += Σ dy
//
// averages run along a row, sums down the rows. dx (rows, cols) is overwritten; add (rows, cols), the gradient that came
// round the residual branch, may be nil, and dx may be dy or add.
func LayerNormBackward[T Float](p *Pool, dx, dgamma, dbeta, dy, x, mean, rstd, gamma, add []T, rows, cols int) {
	blocks := (rows + layerNormRows - 1) / layerNormRows
	q := own(p)
	defer disown(p, q)
	part := scratch[T](q, 0, slotA, blocks*2*cols)
	q.For(blocks, 1, func(lo, hi, _ int) {
		for b := lo; b < hi; b++ {
			sums := part[b*2*cols : (b+1)*2*cols]
			clear(sums)
			from, to := b*layerNormRows, min(rows, (b+1)*layerNormRows)
			var extra []T
			if add != nil {
				extra = add[from*cols : to*cols]
			}
			layerNormBackward(dx[from*cols:to*cols], sums[:cols], sums[cols:], dy[from*cols:to*cols], x[from*cols:to*cols],
				mean[from:to], rstd[from:to], gamma[:cols], extra)
		}
	})
	for b := range blocks {
		addTo(dgamma[:cols], part[b*2*cols:b*2*cols+cols])
		addTo(dbeta[:cols], part[b*2*cols+cols:(b+1)*2*cols])
	}
}

// layerNorm is the loop of one thread over len(mean) rows.
func layerNorm[T Float](y, mean, rstd, x, gamma, beta []T, eps T) {
	if isSingle[T]() && layerNorm32(single(y), single(mean), single(rstd), single(x), single(gamma), single(beta), float32(eps)) {
		return
	}
	cols := len(gamma)
	for r := range mean {
		row, out := x[r*cols:(r+1)*cols], y[r*cols:(r+1)*cols]
		var sum, square T
		for _, v := range row {
			sum += v
		}
		mu := sum / T(cols)
		for _, v := range row {
			d := v - mu
			square += T(d * d)
		}
		s := T(1 / math.Sqrt(float64(square/T(cols)+eps)))
		mean[r], rstd[r] = mu, s
		for c, v := range row {
			out[c] = T(T((v-mu)*s)*gamma[c]) + beta[c]
		}
	}
}

// layerNormBackward is the loop of one thread over len(mean) rows; it adds to dgamma and dbeta.
func layerNormBackward[T Float](dx, dgamma, dbeta, dy, x, mean, rstd, gamma, add []T) {
	if isSingle[T]() && layerNormBackward32(single(dx), single(dgamma), single(dbeta), single(dy), single(x), single(mean), single(rstd),
		single(gamma), single(add)) {
		return
	}
	cols := len(gamma)
	for r := range mean {
		from := r * cols
		mu, s := mean[r], rstd[r]
		var sum, along T
		for c, d := range dy[from : from+cols] {
			norm := (x[from+c] - mu) * s
			g := d * gamma[c]
			sum += g
			along += T(g * norm)
			dgamma[c] += T(d * norm)
			dbeta[c] += d
		}
		sum, along = sum/T(cols), along/T(cols)
		for c, d := range dy[from : from+cols] {
			norm := (x[from+c] - mu) * s
			v := s * (T(d*gamma[c]) - sum - T(norm*along))
			if add != nil {
				v += add[from+c]
			}
			dx[from+c] = v
		}
	}
}
