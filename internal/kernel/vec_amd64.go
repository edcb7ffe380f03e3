//go:build amd64 && !noasm

package kernel

import "unsafe"

// The functions below run a loop of one thread on vectors and report that they did; the portable twin runs otherwise.

func addInto32(dst, a, b []float32) bool {
	if !useVectors {
		return false
	}
	if n := len(dst); n > 0 {
		if useAVX512 {
			addAVX512(&dst[0], &a[:n][0], &b[:n][0], n)
		} else {
			addAVX2(&dst[0], &a[:n][0], &b[:n][0], n)
		}
	}
	return true
}

func addScaled32(dst []float32, alpha float32, x []float32) bool {
	if !useVectors {
		return false
	}
	if n := len(dst); n > 0 {
		if useAVX512 {
			addScaledAVX512(&dst[0], &x[:n][0], n, alpha)
		} else {
			addScaledAVX2(&dst[0], &x[:n][0], n, alpha)
		}
	}
	return true
}

func scaleInto32(dst, x []float32, alpha float32) bool {
	if !useVectors {
		return false
	}
	if n := len(dst); n > 0 {
		if useAVX512 {
			scaleAVX512(&dst[0], &x[:n][0], n, alpha)
		} else {
			scaleAVX2(&dst[0], &x[:n][0], n, alpha)
		}
	}
	return true
}

func roundInto32(dst, x []float32) bool {
	if !useVectors {
		return false
	}
	if n := len(dst); n > 0 {
		if useAVX512 {
			roundBF16AVX512(&dst[0], &x[:n][0], n)
		} else {
			roundBF16AVX2(&dst[0], &x[:n][0], n)
		}
	}
	return true
}

// narrow32 stores the first numbers of x and returns how many.
func narrow32(dst []uint16, x []float32) int {
	n := len(x) &^ 7
	if !useVectors || n == 0 {
		return 0
	}
	narrowAVX2(&dst[:n][0], &x[0], n)
	return n
}

// narrowRows stores rows of cols numbers of x, ldx apart, as bfloat16, ldDst apart.
func narrowRows(dst []uint16, x *float32, rows, cols, ldDst, ldx int) {
	if hasBF16 {
		roundRowsBF16(&dst[:(rows-1)*ldDst+cols][0], x, rows, cols, cols, 2*ldDst, 4*ldx)
		return
	}
	from := unsafe.Slice(x, (rows-1)*ldx+cols)
	for i := range rows {
		narrow(dst[i*ldDst:][:cols], from[i*ldx:][:cols])
	}
}

// widen32 reads the first numbers of x and returns how many.
func widen32(dst []float32, x []uint16) int {
	n := len(x) &^ 7
	if !useVectors || n == 0 {
		return 0
	}
	widenAVX2(&dst[:n][0], &x[0], n)
	return n
}

func lerp32(dst, src []float32, t float32) bool {
	if !useVectors {
		return false
	}
	if n := len(dst); n > 0 {
		if useAVX512 {
			lerpAVX512(&dst[0], &src[:n][0], n, t)
		} else {
			lerpAVX2(&dst[0], &src[:n][0], n, t)
		}
	}
	return true
}

func dot32(a, b []float32) (float32, bool) {
	if !useVectors || len(a) == 0 {
		return 0, false
	}
	if useAVX512 {
		return dotAVX512(&a[0], &b[:len(a)][0], len(a)), true
	}
	return dotAVX2(&a[0], &b[:len(a)][0], len(a)), true
}

func sumSquares32(x []float32) (float64, bool) {
	if !useVectors || len(x) == 0 {
		return 0, false
	}
	if useAVX512 {
		return sumSquaresAVX512(&x[0], len(x)), true
	}
	sum, whole := 0.0, len(x)&^7
	if whole > 0 {
		sum = sumSquaresAVX2(&x[0], whole)
	}
	for _, v := range x[whole:] {
		sum += float64(v) * float64(v)
	}
	return sum, true
}

func colSum32(dst, x []float32, rows, stride int) bool {
	if !useVectors {
		return false
	}
	if useAVX512 {
		colSumAVX512(&dst[0], &x[:(rows-1)*stride+len(dst)][0], len(dst), rows, 4*stride)
	} else {
		colSumAVX2(&dst[0], &x[:(rows-1)*stride+len(dst)][0], len(dst), rows, 4*stride)
	}
	return true
}

func adamW32(w, g, m, v []float32, c *adamWConst) bool {
	if !useVectors {
		return false
	}
	if n := len(w); n > 0 {
		if useAVX512 {
			adamWAVX512(&w[0], &g[:n][0], &m[:n][0], &v[:n][0], n, (*float32)(unsafe.Pointer(c)))
		} else {
			adamWAVX2(&w[0], &g[:n][0], &m[:n][0], &v[:n][0], n, (*float32)(unsafe.Pointer(c)))
		}
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
		if useAVX512 {
			geluAVX512(to, from, n)
		} else {
			geluAVX2(to, from, n)
		}
	case ActGELUTanh:
		if useAVX512 {
			geluTanhAVX512(to, from, n)
		} else {
			geluTanhAVX2(to, from, n)
		}
	case ActQuickGELU:
		if useAVX512 {
			quickGELUAVX512(to, from, n)
		} else {
			quickGELUAVX2(to, from, n)
		}
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
		if useAVX512 {
			geluGradAVX512(to, from, n)
		} else {
			geluGradAVX2(to, from, n)
		}
	case ActGELUTanh:
		if useAVX512 {
			geluTanhGradAVX512(to, from, n)
		} else {
			geluTanhGradAVX2(to, from, n)
		}
	case ActQuickGELU:
		if useAVX512 {
			quickGELUGradAVX512(to, from, n)
		} else {
			quickGELUGradAVX2(to, from, n)
		}
	default:
		return false
	}
	return true
}

// actHalf32 is actRow16 or, if grad, actGradRow16.
func actHalf32(act Act, grad bool, y []float32, x []uint16) bool {
	n := len(x)
	if !useAVX512 || n == 0 {
		return n == 0
	}
	switch to, from := &y[:n][0], &x[0]; {
	case act == ActGELU && grad:
		geluHalfGradAVX512(to, from, n)
	case act == ActGELU:
		geluHalfAVX512(to, from, n)
	case act == ActGELUTanh && grad:
		geluTanhHalfGradAVX512(to, from, n)
	case act == ActGELUTanh:
		geluTanhHalfAVX512(to, from, n)
	case act == ActQuickGELU && grad:
		quickGELUHalfGradAVX512(to, from, n)
	case act == ActQuickGELU:
		quickGELUHalfAVX512(to, from, n)
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
	if useAVX512 {
		layerNormAVX512(&y[:n][0], &x[:n][0], &gamma[0], &beta[:cols][0], &mean[0], &rstd[:rows][0], rows, cols, eps)
	} else {
		layerNormAVX2(&y[:n][0], &x[:n][0], &gamma[0], &beta[:cols][0], &mean[0], &rstd[:rows][0], rows, cols, eps)
	}
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
	if useAVX512 {
		layerNormBackwardAVX512(&dx[:n][0], &dgamma[:cols][0], &dbeta[:cols][0], &dy[:n][0], &x[:n][0], &mean[0], &rstd[:rows][0], &gamma[0], extra, rows, cols)
	} else {
		layerNormBackwardAVX2(&dx[:n][0], &dgamma[:cols][0], &dbeta[:cols][0], &dy[:n][0], &x[:n][0], &mean[0], &rstd[:rows][0], &gamma[0], extra, rows, cols)
	}
	return true
}

func rowMax32(row []float32) (float32, bool) {
	if !useVectors || len(row) == 0 {
		return 0, false
	}
	if useAVX512 {
		return rowMaxAVX512(&row[0], len(row)), true
	}
	return rowMaxAVX2(&row[0], len(row)), true
}

func expSum32(row []float32, top float32) (float32, bool) {
	if !useVectors || len(row) == 0 {
		return 0, false
	}
	if useAVX512 {
		return expSumAVX512(&row[0], len(row), top), true
	}
	return expSumAVX2(&row[0], len(row), top), true
}

func columnsExpSum32(top, sum, s []float32, rows, stride int) bool {
	cols := len(top)
	if !useVectors || rows*cols == 0 {
		return false
	}
	if useAVX512 {
		columnsExpSumAVX512(&top[0], &sum[:cols][0], &s[:(rows-1)*stride+cols][0], cols, rows, 4*stride)
	} else {
		columnsExpSumAVX2(&top[0], &sum[:cols][0], &s[:(rows-1)*stride+cols][0], cols, rows, 4*stride)
	}
	return true
}

func infoNCEProbabilities32(row []float32, rowLSE float32, columnLSE []float32, factor, less float32) bool {
	n := len(row)
	if !useVectors || n == 0 {
		return false
	}
	if useAVX512 {
		infoNCEAVX512(&row[0], &columnLSE[:n][0], n, rowLSE, factor, less)
	} else {
		infoNCEAVX2(&row[0], &columnLSE[:n][0], n, rowLSE, factor, less)
	}
	return true
}

func softmaxGrad32(row []float32, lse, factor, less float32) bool {
	n := len(row)
	if !useVectors || n == 0 {
		return false
	}
	if useAVX512 {
		softmaxGradAVX512(&row[0], n, lse, factor, less)
	} else {
		softmaxGradAVX2(&row[0], n, lse, factor, less)
	}
	return true
}

func softplusSum32(row []float32) (float32, bool) {
	if !useVectors || len(row) == 0 {
		return 0, false
	}
	if useAVX512 {
		return softplusSumAVX512(&row[0], len(row)), true
	}
	return softplusSumAVX2(&row[0], len(row)), true
}

func sigmoid32(row []float32, factor float32) bool {
	if !useVectors || len(row) == 0 {
		return false
	}
	if useAVX512 {
		sigmoidAVX512(&row[0], len(row), factor)
	} else {
		sigmoidAVX2(&row[0], len(row), factor)
	}
	return true
}

func peakRounds32(rounds int, bf16 bool) (operations int64, ok bool) {
	switch {
	case bf16 && hasBF16:
		peakBF16AVX512(rounds)
		return int64(rounds) * peakChains * 32 * 2, true
	case useAVX512:
		peakAVX512(rounds)
		return int64(rounds) * peakChains * 16 * 2, true
	case useAVX2:
		peakAVX2(rounds)
		return int64(rounds) * peakChainsAVX2 * 8 * 2, true
	}
	return 0, false
}

// peakChains and peakChainsAVX2 are how many chains the loops of peak have.
const (
	peakChains     = 24
	peakChainsAVX2 = 14
)
