package eval

import (
	"encoding/json"
	"math"
	"os"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"diptych/internal/addr"
	"diptych/internal/gradcheck"
	"diptych/internal/kernel"
)

// cloud are n pictures' features around one centre for each class.
func cloud(n, classes, dim int, seed uint64) samples {
	s := samples{}
	for i := range n {
		c := i % classes
		s.labels = append(s.labels, c)
		for j := range dim {
			s.x = append(s.x, float32(addr.Norm(addr.Hash(seed, uint64(i), uint64(j)))+1.5*addr.Norm(addr.Hash(99, uint64(c), uint64(j)))))
		}
	}
	return s
}

// logistic is probe.loss in plain float64.
func logistic(s samples, classes, dim int, lambda float64, theta, grad []float64) float64 {
	n, loss := float64(len(s.labels)), 0.0
	clear(grad)
	for i, label := range s.labels {
		z, sum := make([]float64, classes), 0.0
		for c := range z {
			z[c] = theta[classes*dim+c]
			for j := range dim {
				z[c] += theta[c*dim+j] * float64(s.x[i*dim+j])
			}
			sum += math.Exp(z[c])
		}
		loss += math.Log(sum) - z[label]
		for c := range z {
			d := math.Exp(z[c]) / sum
			if c == label {
				d--
			}
			grad[classes*dim+c] += d / n
			for j := range dim {
				grad[c*dim+j] += d * float64(s.x[i*dim+j]) / n
			}
		}
	}
	for i := range classes * dim {
		loss += lambda / 2 * theta[i] * theta[i]
		grad[i] += lambda * theta[i] / n
	}
	return loss / n
}

func TestProbeLoss(t *testing.T) {
	const n, classes, dim, lambda = 53, 7, 11, 3.5
	pool := kernel.NewPool(2)
	defer pool.Close()
	s, p := cloud(n, classes, dim, 1), newProbe(pool, classes, dim)
	for j := range p.mean {
		p.mean[j] = 0.1 * float64(j)
	}
	theta, want, got := make([]float64, len(p.theta)), make([]float64, len(p.theta)), make([]float64, len(p.theta))
	for i := range theta {
		theta[i] = 0.3 * addr.Norm(addr.Hash(2, uint64(i)))
	}
	moved := func(grad []float64) float64 { // theta's biases are those of features less the mean
		plain := slices.Clone(theta)
		for c := range classes {
			plain[classes*dim+c] -= dot(theta[c*dim:(c+1)*dim], p.mean)
		}
		loss := logistic(s, classes, dim, lambda, plain, grad)
		for c := range classes {
			axpy(grad[c*dim:(c+1)*dim], -grad[classes*dim+c], p.mean)
		}
		return loss
	}
	loss := moved(want)
	scratch := make([]float64, len(theta))
	gradcheck.Check(t, "the reference", theta, want, 200, func() float64 { return moved(scratch) })
	require.InDelta(t, loss, p.loss(s, lambda, theta, got), 1e-6*loss, "products are of float32")
	require.InDeltaSlice(t, want, got, 1e-6)
}

// The minimum is scikit-learn's (tests/peers/logistic_golden.py).
func TestProbeGolden(t *testing.T) {
	text, err := os.ReadFile("testdata/logistic.json")
	require.NoError(t, err)
	var g struct {
		X      [][]float64
		Labels []int
		Fits   []struct {
			Lambda, Loss float64
			Coef         [][]float64
			Intercept    []float64
		}
	}
	require.NoError(t, json.Unmarshal(text, &g))
	s, dim := samples{labels: g.Labels}, len(g.X[0])
	for _, row := range g.X {
		for _, v := range row {
			s.x = append(s.x, float32(v))
		}
	}
	require.Len(t, g.Fits, 4)
	for i, f := range g.Fits {
		p := newProbe(nil, 3, dim)
		for j := range p.mean { // which changes the way, not the minimum
			p.mean[j] = float64(i) * 0.3 * float64(j%3-1)
		}
		_, _, err := p.fit(t.Context(), s, f.Lambda, lbfgsOptions{iterations: 1000}) // until float32 can tell no better point
		require.NoError(t, err)
		grad := make([]float64, len(p.theta))
		require.InDelta(t, f.Loss, p.loss(s, f.Lambda, p.theta, grad), 1e-6)
		want := append(slices.Concat(f.Coef...), f.Intercept...)
		for c, row := range f.Coef {
			want[3*dim+c] += dot(row, p.mean)
		}
		require.InDeltaSlice(t, want, p.theta, 1e-3*largest(want), "λ = %v", f.Lambda)
	}
}

// Threads and the size of the blocks of pictures change no bit of what is learnt.
func TestLearn(t *testing.T) {
	const n, fitted, classes, dim = 240, 180, 5, 8
	s := cloud(n, classes, dim, 3)
	var first *Fit
	var theta []float64
	for _, threads := range []int{1, 3} {
		pool := kernel.NewPool(threads)
		var heard []int
		p, fit, err := learn(t.Context(), pool, s, fitted, classes, dim, func(done, total int) { heard = append(heard, total-done) })
		require.NoError(t, err)
		pool.Close()
		require.True(t, slices.IsSortedFunc(heard, func(a, b int) int { return b - a }))
		require.Zero(t, heard[len(heard)-1])
		if first == nil {
			first, theta = fit, p.theta
			continue
		}
		require.Equal(t, first, fit)
		require.Equal(t, theta, p.theta)
	}
	require.Equal(t, n, first.Pictures)
	require.Equal(t, n-fitted, first.ChosenOn)
	require.GreaterOrEqual(t, len(first.Tried), 11)
	require.LessOrEqual(t, len(first.Tried), 15)
	best := slices.MaxFunc(first.Tried, func(a, b Tried) int {
		if a.Top1 < b.Top1 || a.Top1 == b.Top1 && a.Lambda < b.Lambda {
			return -1
		}
		return 1
	})
	require.Equal(t, Tried{first.Lambda, first.Validation}, best, "of equal ones the strongest")
	at := slices.IndexFunc(first.Tried, func(x Tried) bool { return x.Lambda == best.Lambda })
	if at > 0 {
		require.InDelta(t, 1.0/8, math.Log10(best.Lambda/first.Tried[at-1].Lambda), 1e-9, "eight a decade beside the best")
	}
	require.Greater(t, first.Validation, 0.5)
}

func TestHoldout(t *testing.T) {
	var labels, rows []int
	for i := range 100 {
		c := min(i, 3) // one each of 0, 1, 2, and 97 of 3
		labels, rows = append(labels, c), append(rows, 7*i)
	}
	train, val := holdout(labels, rows, 4)
	require.Len(t, val, 19)
	require.Len(t, train, 81)
	require.Equal(t, []int{0, 1, 2}, train[:3])
	both := append(slices.Clone(train), val...)
	slices.Sort(both)
	for i, v := range both {
		require.Equal(t, i, v)
	}
	require.NotEqual(t, val[0]+18, val[18], "drawn, not the first")
	again, _ := holdout(labels, rows, 4)
	require.Equal(t, train, again)
}
