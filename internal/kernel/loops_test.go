package kernel

import (
	"fmt"
	"math"
	"testing"

	"diptych/internal/addr"

	"github.com/stretchr/testify/require"
)

// oddSizes meet every tail of vectors of 4 to 64 elements.
var oddSizes = []int{1, 2, 3, 7, 15, 16, 17, 31, 33, 63, 64, 65, 100, 257}

// normals returns standard normal numbers that float32 holds exactly, so that both element types see the same input.
func normals[T Float](name string, n int) []T {
	x := make([]T, n)
	for i := range x {
		x[i] = T(float32(addr.Norm(addr.Hash(addr.Name(name), uint64(i)))))
	}
	return x
}

const fence = 64 // elements around a fenced slice

// fenced returns n elements, full of NaN because a kernel must not read what it only writes, between two fences.
func fenced[T Float](t testing.TB, n int) []T {
	t.Helper()
	all := make([]T, n+2*fence)
	for i := range all {
		all[i] = 12345
	}
	in := all[fence : fence+n : fence+n]
	for i := range in {
		in[i] = T(math.NaN())
	}
	t.Cleanup(func() {
		for i := range fence {
			if all[i] != 12345 || all[fence+n+i] != 12345 {
				t.Errorf("written outside of the slice, at %d or %d of %d", i-fence, n+i, n)
				return
			}
		}
	})
	return in
}

func fencedCopy[T Float](t testing.TB, x []T) []T {
	y := fenced[T](t, len(x))
	copy(y, x)
	return y
}

// near fails unless every element of got is within tol·(1 + |want|) of want; NaN equals NaN and infinities their like.
func near[T Float](t *testing.T, want []float64, got []T, tol float64, what string) {
	t.Helper()
	require.Len(t, got, len(want))
	for i, w := range want {
		g := float64(got[i])
		if math.IsNaN(w) && math.IsNaN(g) || w == g {
			continue
		}
		if !(math.Abs(g-w) <= tol*(1+math.Abs(w))) {
			require.Failf(t, what, "element %d: %g, want %g", i, g, w)
		}
	}
}

// forPools runs f with pools of one and two threads and with none.
func forPools(f func(p *Pool)) {
	for _, threads := range []int{1, 2} {
		p := NewPool(threads)
		f(p)
		p.Close()
	}
	f(nil)
}

// sameBits fails unless f gives the same bits with one thread, two, and without a pool.
func sameBits[T Float](t *testing.T, f func(p *Pool) [][]T) {
	t.Helper()
	var want [][]T
	forPools(func(p *Pool) {
		got := f(p)
		if want == nil {
			want = got
		}
		for i := range want {
			for j := range want[i] {
				if math.Float64bits(float64(want[i][j])) != math.Float64bits(float64(got[i][j])) {
					require.Failf(t, "depends on the threads", "result %d, element %d: %g and %g", i, j, want[i][j], got[i][j])
				}
			}
		}
	})
}

// checkGradient compares the gradient grad of a scalar function at x with a central difference along a random direction.
// It is meant for float64: a step of 1e-5 leaves an error of about 1e-10 of the function's size.
func checkGradient(t *testing.T, what string, x, grad []float64, f func() float64) {
	t.Helper()
	dir := normals[float64](what+" direction", len(x))
	old := append([]float64(nil), x...)
	const h = 1e-5
	value := func(step float64) float64 {
		for i := range x {
			x[i] = old[i] + step*dir[i]
		}
		return f()
	}
	numeric := (value(h) - value(-h)) / (2 * h)
	copy(x, old)
	require.InDelta(t, numeric, dot(grad, dir), 1e-7*(1+math.Abs(numeric)), what)
}

// portable runs f with the assembly switched off.
func portable(f func()) {
	own := Family()
	defer SetFamily(own)
	_ = SetFamily(familyPortable) // there is always that
	f()
}

// What memory bounds rounds each operation the same way in both families, so results are equal to the bit.
func TestElementwiseFamiliesAgree(t *testing.T) {
	h := AdamWStep{LR: 1e-3, Beta1: 0.9, Beta2: 0.98, Eps: 1e-6, Decay: 2e-4, Correction1: 0.3, Correction2: 0.1, GradScale: 0.7}
	for _, n := range oddSizes {
		run := func() [][]float32 {
			a, b := normals[float32]("a", n), normals[float32]("b", n)
			a[n/2] = float32(math.NaN())
			b[n/3] = float32(math.Inf(-1))
			total, axpy, scaled, mean := make([]float32, n), normals[float32]("c", n), normals[float32]("c", n), normals[float32]("c", n)
			Add(nil, total, a, b)
			AXPY(nil, axpy, 0.3, b)
			Scale(nil, scaled, -1.5)
			Lerp(nil, mean, b, 0.25)
			w, m, v := normals[float32]("w", n), normals[float32]("m", n), make([]float32, n)
			AdamW(nil, w, a, m, v, h)
			return [][]float32{total, axpy, scaled, mean, w, m, v}
		}
		got := run()
		portable(func() {
			for i, want := range run() {
				for j := range want {
					if math.IsNaN(float64(want[j])) {
						require.True(t, math.IsNaN(float64(got[i][j])))
						continue
					}
					require.Equal(t, math.Float32bits(want[j]), math.Float32bits(got[i][j]), "result %d, length %d, element %d", i, n, j)
				}
			}
		})
	}
}

func TestVectorLoops(t *testing.T) {
	for _, n := range append([]int{0, 20000}, oddSizes...) {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			run := func(p *Pool) [][]float32 {
				a, b := normals[float32]("a", n), normals[float32]("b", n)
				total, axpy, scaled, mean := fenced[float32](t, n), fencedCopy(t, a), fencedCopy(t, a), fencedCopy(t, a)
				Add(p, total, a, b)
				AXPY(p, axpy, 0.3, b)
				Scale(p, scaled, -1.5)
				Lerp(p, mean, b, 0.25)
				return [][]float32{total, axpy, scaled, mean, {float32(SumSquares(p, a))}}
			}
			got := run(nil)
			a, b := normals[float64]("a", n), normals[float64]("b", n)
			square := 0.0
			for i := range a {
				require.Equal(t, float32(a[i])+float32(b[i]), got[0][i])
				require.InDelta(t, a[i]+0.3*b[i], float64(got[1][i]), 1e-6)
				require.Equal(t, float32(-1.5*a[i]), got[2][i])
				require.InDelta(t, a[i]+0.25*(b[i]-a[i]), float64(got[3][i]), 1e-6)
				square += a[i] * a[i]
			}
			require.InEpsilon(t, 1+square, 1+float64(got[4][0]), 1e-6)
			sameBits(t, run)
		})
	}
}

func TestSumSquaresSpansBlocks(t *testing.T) {
	x := normals[float32]("x", 3*sumBlock+77)
	want := 0.0
	for _, v := range x {
		want += float64(v) * float64(v)
	}
	forPools(func(p *Pool) { require.InEpsilon(t, want, SumSquares(p, x), 1e-12) })
	one, two := NewPool(1), NewPool(2)
	defer one.Close()
	defer two.Close()
	require.Equal(t, SumSquares(one, x), SumSquares(two, x))
	x[sumBlock+5] = float32(math.Inf(1))
	require.True(t, math.IsInf(SumSquares(nil, x), 1))
	x[7] = float32(math.NaN())
	require.True(t, math.IsNaN(SumSquares(nil, x)))
}

func TestColSum(t *testing.T) {
	for _, cols := range oddSizes {
		for _, rows := range []int{0, 1, 3, 255, 256, 257, 600} {
			x := normals[float64]("x", rows*cols)
			want := normals[float64]("dst", cols)
			for i, v := range x {
				want[i%cols] += v
			}
			run := func(p *Pool) [][]float32 {
				dst := fencedCopy(t, normals[float32]("dst", cols))
				ColSum(p, dst, normals[float32]("x", rows*cols), rows, cols)
				return [][]float32{dst}
			}
			near(t, want, run(nil)[0], 3e-5, fmt.Sprintf("%d x %d", rows, cols))
			sameBits(t, run)
		}
	}
}

func TestAdamW(t *testing.T) {
	h := AdamWStep{LR: 1e-3, Beta1: 0.9, Beta2: 0.98, Eps: 1e-6, Decay: 1e-3 * 0.2, Correction1: 1 - math.Pow(0.9, 3), Correction2: 1 - math.Pow(0.98, 3), GradScale: 0.7}
	for _, n := range oddSizes {
		run := func(p *Pool) [][]float32 {
			w, m, v := fencedCopy(t, normals[float32]("w", n)), fencedCopy(t, normals[float32]("m", n)), fencedCopy(t, normals[float32]("v", n))
			for i := range v {
				v[i] *= v[i]
			}
			AdamW(p, w, normals[float32]("g", n), m, v, h)
			return [][]float32{w, m, v}
		}
		got := run(nil)
		w, g, m, v := normals[float64]("w", n), normals[float64]("g", n), normals[float64]("m", n), normals[float64]("v", n)
		for i := range w {
			grad := 0.7 * g[i]
			v[i] = float64(float32(v[i]) * float32(v[i]))
			m[i] = 0.9*m[i] + 0.1*grad
			v[i] = 0.98*v[i] + 0.02*grad*grad
			w[i] -= h.Decay * w[i]
			w[i] -= h.LR * (m[i] / h.Correction1) / (math.Sqrt(v[i]/h.Correction2) + h.Eps)
		}
		near(t, w, got[0], 3e-7, "w")
		near(t, m, got[1], 3e-7, "m")
		near(t, v, got[2], 3e-7, "v")
		sameBits(t, run)
	}
}

func TestActivations(t *testing.T) {
	inf, nan := math.Inf(1), math.NaN()
	for _, act := range []Act{ActNone, ActGELU, ActGELUTanh, ActQuickGELU, ActTanh} {
		t.Run(act.String(), func(t *testing.T) {
			var x []float64
			for v := -30.0; v <= 30; v += 0.0037 {
				x = append(x, float64(float32(v)))
			}
			for _, v := range []float64{0, 1e-30, 1e-40, 1e-10, 100, 1e4, 1e30, 3e38} {
				x = append(x, float64(float32(v)), float64(float32(-v)))
			}
			x = append(x, inf, nan, -inf)
			n := len(x)
			small, dy := make([]float32, n), normals[float32]("dy", n)
			for i, v := range x {
				small[i] = float32(v)
			}
			y, dx := fenced[float32](t, n), fenced[float32](t, n)
			ActForward(nil, act, y, small)
			ActBackward(nil, act, dx, dy, small)
			for i, v := range x {
				want, slope := actValue(act, v), actGrad(act, v)*float64(dy[i])
				// Beyond about -10 the value underflows in every implementation that is not float64's: absolute there.
				near(t, []float64{want}, y[i:i+1], 1e-6, fmt.Sprintf("value at %g", v))
				near(t, []float64{slope}, dx[i:i+1], 3e-6, fmt.Sprintf("slope at %g", v))
			}
			// Neither place in the vector nor length changes a value.
			for _, k := range oddSizes {
				part := fenced[float32](t, k)
				for _, from := range []int{0, 1, 5, 4000, n - k} {
					ActForward(nil, act, part, small[from:from+k])
					for i := range part {
						require.Equal(t, math.Float32bits(y[from+i]), math.Float32bits(part[i]), "length %d, element %d", k, from+i)
					}
					ActBackward(nil, act, part, dy[from:from+k], small[from:from+k])
					for i := range part {
						require.Equal(t, math.Float32bits(dx[from+i]), math.Float32bits(part[i]), "length %d, element %d", k, from+i)
					}
				}
			}
			h := 1e-6
			for v := -6.0; v < 6; v += 0.37 {
				require.InDelta(t, (actValue(act, v+h)-actValue(act, v-h))/(2*h), actGrad(act, v), 1e-8)
			}
		})
	}
}

// The stated bounds of the float32 functions: of what multiplies x in the value (Φ or σ), and of the slope, both absolute.
func TestActivationErrors(t *testing.T) {
	x := make([]float32, 100001)
	for i := range x {
		x[i] = float32(i-50000) * 2.6e-4
	}
	for _, c := range []struct {
		act           Act
		factor, slope float64
	}{{ActGELU, 2e-7, 2.5e-7}, {ActGELUTanh, 1.5e-7, 2.5e-7}, {ActQuickGELU, 1.5e-7, 2.5e-7}} {
		y, slope := make([]float32, len(x)), make([]float32, len(x))
		for i := range slope {
			slope[i] = 1
		}
		actRow(c.act, y, x)
		actGradRow(c.act, slope, x)
		for i, v := range x {
			want := actValue(c.act, float64(v))
			require.LessOrEqual(t, math.Abs(float64(y[i])-want), c.factor*math.Abs(float64(v)), "%v at %g", c.act, v)
			require.LessOrEqual(t, math.Abs(float64(slope[i])-actGrad(c.act, float64(v))), c.slope, "slope of %v at %g", c.act, v)
		}
	}
}

func TestExpError(t *testing.T) {
	for v := -87.0; v < 88; v += 0.0073 {
		x := float32(v)
		require.InEpsilon(t, math.Exp(float64(x)), float64(expSum([]float32{x}, 0)), 1e-7, "exp(%g)", x)
	}
	require.Zero(t, expSum([]float32{-110}, 0))
	require.InDelta(t, math.Exp(-100), float64(expSum([]float32{-100}, 0)), 0x1p-149) // the step of the denormals
	require.True(t, math.IsInf(float64(expSum([]float32{90}, 0)), 1))
	require.True(t, math.IsInf(float64(expSum([]float32{float32(math.Inf(1))}, 0)), 1))
	require.Zero(t, expSum([]float32{float32(math.Inf(-1))}, 0))
}

func TestLayerNorm(t *testing.T) {
	const eps = 1e-5
	for _, cols := range oddSizes {
		for _, rows := range []int{1, 5, 127, 128, 130} {
			forward := func(p *Pool) [][]float32 {
				y, mean, rstd := fenced[float32](t, rows*cols), fenced[float32](t, rows), fenced[float32](t, rows)
				LayerNorm(p, y, mean, rstd, normals[float32]("x", rows*cols), normals[float32]("gamma", cols), normals[float32]("beta", cols), rows, cols, eps)
				return [][]float32{y, mean, rstd}
			}
			x, gamma, beta := normals[float64]("x", rows*cols), normals[float64]("gamma", cols), normals[float64]("beta", cols)
			y, mean, rstd := make([]float64, rows*cols), make([]float64, rows), make([]float64, rows)
			LayerNorm(nil, y, mean, rstd, x, gamma, beta, rows, cols, eps)
			got := forward(nil)
			what := fmt.Sprintf("%d x %d", rows, cols)
			near(t, mean, got[1], 1e-6, what)
			if cols > 2 { // of one or two columns the variance may be tiny and its root's error large
				near(t, rstd, got[2], 1e-5, what)
				near(t, y, got[0], 2e-5, what)
			}
			sameBits(t, forward)
			if cols == 1 {
				continue
			}

			dy, add := normals[float64]("dy", rows*cols), normals[float64]("add", rows*cols)
			for _, extra := range [][]float64{nil, add} {
				dx, dgamma, dbeta := make([]float64, rows*cols), normals[float64]("dgamma", cols), normals[float64]("dbeta", cols)
				LayerNormBackward(nil, dx, dgamma, dbeta, dy, x, mean, rstd, gamma, extra, rows, cols)
				backward := func(p *Pool) [][]float32 {
					dx, dgamma, dbeta := fenced[float32](t, rows*cols), fencedCopy(t, normals[float32]("dgamma", cols)), fencedCopy(t, normals[float32]("dbeta", cols))
					var small []float32
					if extra != nil {
						small = normals[float32]("add", rows*cols)
					}
					LayerNormBackward(p, dx, dgamma, dbeta, normals[float32]("dy", rows*cols), normals[float32]("x", rows*cols), got[1], got[2], normals[float32]("gamma", cols), small, rows, cols)
					return [][]float32{dx, dgamma, dbeta}
				}
				result := backward(nil)
				if cols > 2 {
					near(t, dx, result[0], 3e-5, what+" dx")
					near(t, dgamma, result[1], 3e-5, what+" dgamma")
					near(t, dbeta, result[2], 3e-5, what+" dbeta")
				}
				sameBits(t, backward)
			}
		}
	}
}

func TestLayerNormGradient(t *testing.T) {
	const rows, cols, eps = 130, 9, 1e-5
	x, gamma, beta, dy := normals[float64]("x", rows*cols), normals[float64]("gamma", cols), normals[float64]("beta", cols), normals[float64]("dy", rows*cols)
	y, mean, rstd := make([]float64, rows*cols), make([]float64, rows), make([]float64, rows)
	loss := func() float64 {
		LayerNorm(nil, y, mean, rstd, x, gamma, beta, rows, cols, eps)
		return dot(y, dy)
	}
	loss()
	dx, dgamma, dbeta := make([]float64, rows*cols), make([]float64, cols), make([]float64, cols)
	LayerNormBackward(nil, dx, dgamma, dbeta, dy, x, mean, rstd, gamma, nil, rows, cols)
	checkGradient(t, "x", x, dx, loss)
	checkGradient(t, "gamma", gamma, dgamma, loss)
	checkGradient(t, "beta", beta, dbeta, loss)
}

func TestLayerNormSpreadsNaN(t *testing.T) {
	const rows, cols = 3, 33
	x := normals[float32]("x", rows*cols)
	x[cols+20] = float32(math.NaN())
	y, mean, rstd := make([]float32, rows*cols), make([]float32, rows), make([]float32, rows)
	LayerNorm(nil, y, mean, rstd, x, normals[float32]("gamma", cols), normals[float32]("beta", cols), rows, cols, 1e-5)
	for i, v := range y {
		require.Equal(t, i/cols == 1, math.IsNaN(float64(v)), "element %d", i)
	}
}

// Subnormal, huge, infinite and missing numbers come out of the loops as plain Go computes them, bit by bit but for which NaN it is.
func TestLoopsOnSpecialNumbers(t *testing.T) {
	special := []float32{0, float32(math.Copysign(0, -1)), 1e-45, -3e-39, 0x1p-126, 1, -2.5, math.MaxFloat32, float32(math.Inf(1)), float32(math.Inf(-1)), float32(math.NaN())}
	var a, b []float32
	for _, x := range special {
		for _, y := range special {
			a, b = append(a, x), append(b, y)
		}
	}
	loops := map[string]func(dst []float32){
		"add":        func(dst []float32) { addInto(dst, a, b) },
		"add scaled": func(dst []float32) { copy(dst, a); addScaled(dst, 0.5, b) },
		"scale":      func(dst []float32) { scaleInto(dst, b, 3) },
		"lerp":       func(dst []float32) { copy(dst, a); lerp(dst, b, 0.25) },
		"column sum": func(dst []float32) { copy(dst, a); colSum(dst[:len(special)], b, 1, len(special)) },
	}
	want := map[string][]float32{}
	own := Family()
	require.NoError(t, SetFamily(familyPortable))
	for name, f := range loops {
		want[name] = make([]float32, len(a))
		f(want[name])
	}
	require.NoError(t, SetFamily(own))
	eachFamily(t, func(t *testing.T) {
		for name, f := range loops {
			got := make([]float32, len(a))
			f(got)
			for i, w := range want[name] {
				if g := got[i]; math.Float32bits(g) != math.Float32bits(w) && (g == g || w == w) {
					require.Failf(t, name, "%g and %g: got %g, want %g", a[i], b[i], g, w)
				}
			}
		}
	})
}
