package eval

import (
	"context"
	"math"
	"testing"

	"github.com/stretchr/testify/require"
)

// rosenbrock is the valley of Rosenbrock 1960 in n dimensions, whose minimum is 0 at ones.
func rosenbrock(x, grad []float64) float64 {
	clear(grad)
	sum := 0.0
	for i := range len(x) - 1 {
		a, b := x[i+1]-x[i]*x[i], 1-x[i]
		sum += 100*a*a + b*b
		grad[i] += -400*a*x[i] - 2*b
		grad[i+1] += 200 * a
	}
	return sum
}

func TestLBFGS(t *testing.T) {
	x := []float64{-1.2, 1, -1.2, 1, 0.5, 2}
	n, converged, err := lbfgs(t.Context(), rosenbrock, x, lbfgsOptions{iterations: 200, gradient: 1e-9})
	require.NoError(t, err)
	require.True(t, converged)
	require.Less(t, n, 100)
	for _, v := range x {
		require.InDelta(t, 1, v, 1e-8)
	}
}

func TestLBFGSEnds(t *testing.T) {
	for _, c := range []struct {
		name       string
		f          objective
		x          []float64
		opt        lbfgsOptions
		iterations int
		converged  bool
	}{
		{"at the minimum", rosenbrock, []float64{1, 1}, lbfgsOptions{iterations: 9, gradient: 1e-9}, 0, true},
		{"after its iterations", rosenbrock, []float64{-1.2, 1}, lbfgsOptions{iterations: 3}, 3, false},
		{"where little is gained", rosenbrock, []float64{-1.2, 1}, lbfgsOptions{iterations: 99, decrease: 1e9}, 1, true},
		{"where the gradient lies", func(x, grad []float64) float64 { grad[0] = -2 * x[0]; return x[0] * x[0] }, []float64{1}, lbfgsOptions{iterations: 9}, 0, false},
		{"where nothing is a number", func(x, grad []float64) float64 { grad[0] = math.NaN(); return 0 }, []float64{1}, lbfgsOptions{iterations: 9}, 0, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			n, converged, err := lbfgs(t.Context(), c.f, c.x, c.opt)
			require.NoError(t, err)
			require.Equal(t, c.iterations, n)
			require.Equal(t, c.converged, converged)
		})
	}
	ctx, stop := context.WithCancel(t.Context())
	stop()
	_, _, err := lbfgs(ctx, rosenbrock, []float64{-1.2, 1}, lbfgsOptions{iterations: 9})
	require.ErrorIs(t, err, context.Canceled)
}
