package model

import "math"

// positionTables are the fixed tables of positions, by the names that vision.positions takes. Each has a row for each patch of
// a grid, row by row, after skip rows of zeros for tokens that are no patches. With ω_k = 10000^(-k/n):
//
//	sincos2d            n = D/4: [sin x·ω, cos x·ω, sin y·ω, cos y·ω], x the column: MAE, open_clip's sin_cos_2d
//	sincos2d_timm       n = D/4: [sin y·ω, sin x·ω, cos y·ω, cos x·ω]
//	sincos2d_bigvision  n = D/4-1, else as sincos2d
//	sincos1d            n = D/2: [sin i·ω, cos i·ω], i the number of the patch: MAE's helper
//
// (spec 1.4, where they are told apart: the papers do not).
var positionTables = map[string]struct {
	multiple int                                     // of which the width must be
	values   func(cols, width, skip int) initializer // of a grid of so many columns
}{
	"sincos2d": {4, func(g, w, skip int) initializer {
		return sinCos(g, w, skip, 4, float64(w/4), [4]wave{sinX, cosX, sinY, cosY})
	}},
	"sincos2d_timm": {4, func(g, w, skip int) initializer {
		return sinCos(g, w, skip, 4, float64(w/4), [4]wave{sinY, sinX, cosY, cosX})
	}},
	"sincos2d_bigvision": {8, func(g, w, skip int) initializer {
		return sinCos(g, w, skip, 4, float64(w/4-1), [4]wave{sinX, cosX, sinY, cosY})
	}},
	"sincos1d": {2, func(g, w, skip int) initializer { return sinCos(g, w, skip, 2, float64(w/2), [4]wave{sinI, cosI}) }},
}

// wave is one of the parts of a row: the sine or cosine of a patch's column x, row y or number i.
type wave struct {
	of  func(x, y, cols int) int
	fun func(float64) float64
}

var (
	column = func(x, _, _ int) int { return x }
	line   = func(_, y, _ int) int { return y }
	number = func(x, y, cols int) int { return y*cols + x }

	sinX, cosX = wave{column, math.Sin}, wave{column, math.Cos}
	sinY, cosY = wave{line, math.Sin}, wave{line, math.Cos}
	sinI, cosI = wave{number, math.Sin}, wave{number, math.Cos}
)

// sinCos is a table whose rows have equal parts of one wave each, with frequencies ω_k = 10000^(-k/n).
func sinCos(cols, width, skip, parts int, n float64, waves [4]wave) initializer {
	size := width / parts
	return byElement(func(_ uint64, i int) float64 {
		patch, c := i/width-skip, i%width
		if patch < 0 {
			return 0
		}
		w := waves[c/size]
		at := w.of(patch%cols, patch/cols, cols)
		return w.fun(float64(at) * math.Pow(10000, -float64(c%size)/n))
	})
}
