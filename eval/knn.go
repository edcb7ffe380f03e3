package eval

import (
	"math"

	"diptych/internal/kernel"
)

// KNN is a vote of the nearest pictures; the zero value is DINO's (Caron et al. 2021, §4.1): 20 with a temperature of 0.07.
type KNN struct {
	K           int
	Temperature float64
}

// neighbours classifies the pictures of s by the K nearest of train by cosine (Wu et al. 2018, §3.4): class c gets
//
//	v_c = Σ_{i nearest, y_i = c} exp(s_i/τ)
//
// A row of zeros is as far from all as an orthogonal one.
func neighbours(p *kernel.Pool, knn KNN, train, s samples, classes, dim int) []answer {
	near, own := inverseLengths(train.x, dim), inverseLengths(s.x, dim)
	out := make([]answer, len(s.labels))
	eachRow(p, s.x, train.x, dim, func(i int, scores []float32) {
		for j := range scores {
			scores[j] = float32(float64(scores[j]) * own[i] * near[j])
		}
		top := topK(scores, knn.K)
		votes := make([]float64, classes)
		for _, h := range top { // the best similarity is taken off all, so that nothing overflows
			votes[train.labels[h.Index]] += math.Exp((float64(h.Score) - float64(top[0].Score)) / knn.Temperature)
		}
		row := make([]float32, classes)
		for c, v := range votes {
			row[c] = float32(v)
		}
		out[i] = answerOf(row, s.labels[i])
	})
	return out
}

// inverseLengths returns 1/|x| of each row, 0 of a row of zeros.
func inverseLengths(x []float32, dim int) []float64 {
	out := make([]float64, len(x)/dim)
	for i := range out {
		sum := 0.0
		for _, v := range x[i*dim : (i+1)*dim] {
			sum += float64(v) * float64(v)
		}
		if sum > 0 {
			out[i] = 1 / math.Sqrt(sum)
		}
	}
	return out
}
