package kernel

import "unsafe"

// Add writes the sum a + b to dst; all have the same length and dst may be either of them.
func Add[T Float](p *Pool, dst, a, b []T) {
	p.For(len(dst), flatPiece, func(lo, hi, _ int) { addInto(dst[lo:hi], a[lo:hi], b[lo:hi]) })
}

// AXPY adds alpha·x to dst.
func AXPY[T Float](p *Pool, dst []T, alpha T, x []T) {
	p.For(len(dst), flatPiece, func(lo, hi, _ int) { addScaled(dst[lo:hi], alpha, x[lo:hi]) })
}

// Scale multiplies dst by alpha.
func Scale[T Float](p *Pool, dst []T, alpha T) {
	p.For(len(dst), flatPiece, func(lo, hi, _ int) { scaleBy(dst[lo:hi], alpha) })
}

// Lerp moves dst towards src: dst += t·(src-dst), the update of an exponential moving average with decay 1-t.
func Lerp(p *Pool, dst, src []float32, t float32) {
	p.For(len(dst), flatPiece, func(lo, hi, _ int) { lerp(dst[lo:hi], src[lo:hi], t) })
}

// sumBlock is the fixed block of SumSquares.
const sumBlock = 1 << 16

// SumSquares returns the sum of the squares of x in float64, in fixed blocks that are added in order.
func SumSquares(p *Pool, x []float32) float64 {
	blocks := (len(x) + sumBlock - 1) / sumBlock
	q := own(p)
	defer disown(p, q)
	part := scratch[float64](q, 0, slotA, blocks)
	q.For(blocks, 1, func(lo, hi, _ int) {
		for b := lo; b < hi; b++ {
			part[b] = sumSquares(x[b*sumBlock : min(len(x), (b+1)*sumBlock)])
		}
	})
	sum := 0.0
	for _, s := range part {
		sum += s
	}
	return sum
}

// colSumRows is the fixed row block of ColSum: rows of a block are summed first, then added to the result, which bounds
// the growth of rounding errors with the number of rows.
const colSumRows = 256

// ColSum adds to dst (cols) the column sums of x (rows, cols), the gradient of a bias. A thread owns columns.
func ColSum[T Float](p *Pool, dst, x []T, rows, cols int) {
	p.For(cols, columnStrip, func(lo, hi, _ int) {
		for r := 0; r < rows; r += colSumRows {
			colSum(dst[lo:hi], x[r*cols+lo:], min(colSumRows, rows-r), cols)
		}
	})
}

// The functions below are the loops of one thread. Where a name ends in 32, assembly takes the float32 case if it can.

// isSingle tells whether T is float32. It is a constant in each instance of a generic function.
func isSingle[T Float]() bool { return unsafe.Sizeof(T(0)) == 4 }

// single is x as what it is if isSingle.
func single[T Float](x []T) []float32 {
	return unsafe.Slice((*float32)(unsafe.Pointer(unsafe.SliceData(x))), len(x))
}

// addTo adds x to dst.
func addTo[T Float](dst, x []T) { addInto(dst, dst, x) }

func addInto[T Float](dst, a, b []T) {
	if isSingle[T]() && addInto32(single(dst), single(a), single(b)) {
		return
	}
	a, b = a[:len(dst)], b[:len(dst)]
	for i := range dst {
		dst[i] = a[i] + b[i]
	}
}

func addScaled[T Float](dst []T, alpha T, x []T) {
	if isSingle[T]() && addScaled32(single(dst), float32(alpha), single(x)) {
		return
	}
	x = x[:len(dst)]
	for i := range dst {
		dst[i] += T(alpha * x[i]) // the conversion keeps a compiler from fusing
	}
}

func scaleBy[T Float](dst []T, alpha T) { scaleInto(dst, dst, alpha) }

func scaleInto[T Float](dst, x []T, alpha T) {
	if isSingle[T]() && scaleInto32(single(dst), single(x), float32(alpha)) {
		return
	}
	x = x[:len(dst)]
	for i := range dst {
		dst[i] = alpha * x[i]
	}
}

// roundInto rounds x to bfloat16, which T holds exactly; dst may be x.
func roundInto[T Float](dst, x []T) {
	if isSingle[T]() && roundInto32(single(dst), single(x)) {
		return
	}
	for i := range dst {
		dst[i] = T(roundBF16(float32(x[i])))
	}
}

func lerp(dst, src []float32, t float32) {
	if lerp32(dst, src, t) {
		return
	}
	src = src[:len(dst)]
	for i := range dst {
		dst[i] += float32(t * (src[i] - dst[i]))
	}
}

func dot[T Float](a, b []T) T {
	if isSingle[T]() {
		if s, ok := dot32(single(a), single(b)); ok {
			return T(s)
		}
	}
	b = b[:len(a)]
	var s0, s1, s2, s3 T // four sums in turn hide the latency of the addition
	for len(a) >= 4 {
		s0 += T(a[0] * b[0])
		s1 += T(a[1] * b[1])
		s2 += T(a[2] * b[2])
		s3 += T(a[3] * b[3])
		a, b = a[4:], b[4:]
	}
	for i := range a {
		s0 += T(a[i] * b[i])
	}
	return (s0 + s2) + (s1 + s3)
}

func sumSquares(x []float32) float64 {
	if s, ok := sumSquares32(x); ok {
		return s
	}
	sum := 0.0
	for _, v := range x {
		sum += float64(v) * float64(v)
	}
	return sum
}

// colSum adds to dst the sums over rows rows of x, whose rows are stride apart and len(dst) wide.
func colSum[T Float](dst, x []T, rows, stride int) {
	if isSingle[T]() && colSum32(single(dst), single(x), rows, stride) {
		return
	}
	var sum [columnStrip]T
	for r := range rows {
		for c, v := range x[r*stride : r*stride+len(dst)] {
			sum[c] += v
		}
	}
	addTo(dst, sum[:len(dst)])
}
