//go:build (!amd64 && !arm64) || noasm

package kernel

// Without assembly the portable loops run everywhere; see vec_amd64.go.

func addInto32(dst, a, b []float32) bool                           { return false }
func addScaled32(dst []float32, alpha float32, x []float32) bool   { return false }
func scaleInto32(dst, x []float32, alpha float32) bool             { return false }
func lerp32(dst, src []float32, t float32) bool                    { return false }
func dot32(a, b []float32) (float32, bool)                         { return 0, false }
func sumSquares32(x []float32) (float64, bool)                     { return 0, false }
func colSum32(dst, x []float32, rows, stride int) bool             { return false }
func adamW32(w, g, m, v []float32, c *adamWConst) bool             { return false }
func actRow32(act Act, y, x []float32) bool                        { return false }
func actGradRow32(act Act, dst, x []float32) bool                  { return false }
func rowMax32(row []float32) (float32, bool)                       { return 0, false }
func softmaxGrad32([]float32, float32, float32, float32) bool      { return false }
func softplusSum32(row []float32) (float32, bool)                  { return 0, false }
func sigmoid32(row []float32, factor float32) bool                 { return false }
func expSum32(row []float32, top float32) (float32, bool)          { return 0, false }
func columnsExpSum32(top, sum, s []float32, rows, stride int) bool { return false }

func layerNorm32(y, mean, rstd, x, gamma, beta []float32, eps float32) bool { return false }

func layerNormBackward32(dx, dgamma, dbeta, dy, x, mean, rstd, gamma, add []float32) bool {
	return false
}

func infoNCEProbabilities32(row []float32, rowLSE float32, columnLSE []float32, factor, less float32) bool {
	return false
}

func peakRounds32(int, bool) (int64, bool)          { return 0, false }
func roundInto32(dst, x []float32) bool             { return false }
func actHalf32(Act, bool, []float32, []uint16) bool { return false }
func narrow32([]uint16, []float32) int              { return 0 }
func widen32([]float32, []uint16) int               { return 0 }
