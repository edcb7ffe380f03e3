//go:build arm64 && !noasm

package kernel

import "unsafe"

// The functions below run a loop of one thread on vectors and report that they did, as those of vec_amd64.go.

func addInto32(dst, a, b []float32) bool {
	if !useVectors {
		return false
	}
	if n := len(dst); n > 0 {
		addNEON(&dst[0], &a[:n][0], &b[:n][0], n)
	}
	return true
}

func addScaled32(dst []float32, alpha float32, x []float32) bool {
	if !useVectors {
		return false
	}
	if n := len(dst); n > 0 {
		addScaledNEON(&dst[0], &x[:n][0], n, alpha)
	}
	return true
}

func scaleInto32(dst, x []float32, alpha float32) bool {
	if !useVectors {
		return false
	}
	if n := len(dst); n > 0 {
		scaleNEON(&dst[0], &x[:n][0], n, alpha)
	}
	return true
}

func roundInto32(dst, x []float32) bool {
	if !useVectors {
		return false
	}
	if n := len(dst); n > 0 {
		roundBF16NEON(&dst[0], &x[:n][0], n)
	}
	return true
}

func lerp32(dst, src []float32, t float32) bool {
	if !useVectors {
		return false
	}
	if n := len(dst); n > 0 {
		lerpNEON(&dst[0], &src[:n][0], n, t)
	}
	return true
}

func dot32(a, b []float32) (float32, bool) {
	if !useVectors || len(a) == 0 {
		return 0, false
	}
	return dotNEON(&a[0], &b[:len(a)][0], len(a)), true
}

func sumSquares32([]float32) (float64, bool) { return 0, false }

func colSum32(dst, x []float32, rows, stride int) bool {
	if !useVectors {
		return false
	}
	colSumNEON(&dst[0], &x[:(rows-1)*stride+len(dst)][0], len(dst), rows, 4*stride)
	return true
}

func adamW32(w, g, m, v []float32, c *adamWConst) bool {
	if !useVectors {
		return false
	}
	if n := len(w); n > 0 {
		adamWNEON(&w[0], &g[:n][0], &m[:n][0], &v[:n][0], n, (*float32)(unsafe.Pointer(c)))
	}
	return true
}

func actRow32(act Act, y, x []float32) bool {
	n := len(x)
	if !useVectors || n == 0 {
		return n == 0
	}
	switch to, from := &y[:n][0], &x[0]; act {
	case ActGELU:
		geluNEON(to, from, n)
	case ActGELUTanh:
		geluTanhNEON(to, from, n)
	case ActQuickGELU:
		quickGELUNEON(to, from, n)
	default:
		return false
	}
	return true
}

func actGradRow32(act Act, dst, x []float32) bool {
	n := len(x)
	if !useVectors || n == 0 {
		return n == 0
	}
	switch to, from := &dst[:n][0], &x[0]; act {
	case ActGELU:
		geluGradNEON(to, from, n)
	case ActGELUTanh:
		geluTanhGradNEON(to, from, n)
	case ActQuickGELU:
		quickGELUGradNEON(to, from, n)
	default:
		return false
	}
	return true
}

func layerNorm32(y, mean, rstd, x, gamma, beta []float32, eps float32) bool {
	rows, cols := len(mean), len(gamma)
	if !useVectors || rows*cols == 0 {
		return false
	}
	n := rows * cols
	layerNormNEON(&y[:n][0], &x[:n][0], &gamma[0], &beta[:cols][0], &mean[0], &rstd[:rows][0], rows, cols, eps)
	return true
}

func layerNormBackward32(dx, dgamma, dbeta, dy, x, mean, rstd, gamma, add []float32) bool {
	rows, cols := len(mean), len(gamma)
	if !useVectors || rows*cols == 0 {
		return false
	}
	n := rows * cols
	var extra *float32
	if add != nil {
		extra = &add[:n][0]
	}
	layerNormBackwardNEON(&dx[:n][0], &dgamma[:cols][0], &dbeta[:cols][0], &dy[:n][0], &x[:n][0], &mean[0], &rstd[:rows][0], &gamma[0], extra, rows, cols)
	return true
}

func rowMax32(row []float32) (float32, bool) {
	if !useVectors || len(row) == 0 {
		return 0, false
	}
	return rowMaxNEON(&row[0], len(row)), true
}

func expSum32(row []float32, top float32) (float32, bool) {
	if !useVectors || len(row) == 0 {
		return 0, false
	}
	return expSumNEON(&row[0], len(row), top), true
}

func columnsExpSum32(top, sum, s []float32, rows, stride int) bool {
	cols := len(top)
	if !useVectors || rows*cols == 0 {
		return false
	}
	columnsExpSumNEON(&top[0], &sum[:cols][0], &s[:(rows-1)*stride+cols][0], cols, rows, 4*stride)
	return true
}

func infoNCEProbabilities32(row []float32, rowLSE float32, columnLSE []float32, factor, less float32) bool {
	n := len(row)
	if !useVectors || n == 0 {
		return false
	}
	infoNCENEON(&row[0], &columnLSE[:n][0], n, rowLSE, factor, less)
	return true
}

func softmaxGrad32(row []float32, lse, factor, less float32) bool {
	n := len(row)
	if !useVectors || n == 0 {
		return false
	}
	softmaxGradNEON(&row[0], n, lse, factor, less)
	return true
}

func softplusSum32(row []float32) (float32, bool) {
	if !useVectors || len(row) == 0 {
		return 0, false
	}
	return softplusSumNEON(&row[0], len(row)), true
}

func sigmoid32(row []float32, factor float32) bool {
	if !useVectors || len(row) == 0 {
		return false
	}
	sigmoidNEON(&row[0], len(row), factor)
	return true
}

// peakRounds32 multiplies tiles that stay in the first-level cache.
func peakRounds32(rounds int, _ bool) (operations int64, ok bool) {
	if !useVectors {
		return 0, false
	}
	const k = 128
	var a [8 * k]float32
	var b [12 * k]float32
	var c [8 * 12]float32
	rounds /= k
	for range rounds {
		tile8x12NEON(k, &a[0], &b[0], &c[0])
	}
	return int64(rounds) * k * 8 * 12 * 2, true
}

// tileNEON sets c (8, 12) to the product of packed a (k, 8) and b (k, 12).
func tileNEON(c, a, b []float32) { tile8x12NEON(len(a)/8, &a[0], &b[0], &c[:8*12][0]) }

// What is stored as bfloat16 has no vectors.

func actHalf32(Act, bool, []float32, []uint16) bool { return false }
func narrow32([]uint16, []float32) int              { return 0 }
func widen32([]float32, []uint16) int               { return 0 }
