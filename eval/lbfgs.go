package eval

import (
	"context"
	"math"
)

// objective computes the value of a function at x and puts its gradient into grad.
type objective func(x, grad []float64) float64

// lbfgsOptions say when lbfgs ends.
type lbfgsOptions struct {
	iterations int     // at most
	gradient   float64 // it has converged where no element of the gradient is larger
	decrease   float64 // or where an iteration gains no more than this share of max(|f|, 1)
}

// Of lbfgs: how many pairs it remembers (SciPy's default), and the constants of the Wolfe conditions (Nocedal and Wright 2006, p. 39
// and §7.2).
const (
	lbfgsMemory     = 10
	wolfeDecrease   = 1e-4
	wolfeCurvature  = 0.9
	lineEvaluations = 20
)

// lbfgs minimises f from x, which it changes: limited-memory BFGS (Nocedal and Wright 2006, Algorithms 7.4 and 7.5) with a line
// search for the strong Wolfe conditions. It returns the iterations made, and whether it converged; a line search that finds no
// better point, as happens where f's rounding drowns what is left to gain, ends it too. f must be bounded below. The error is ctx's.
func lbfgs(ctx context.Context, f objective, x []float64, opt lbfgsOptions) (iterations int, converged bool, err error) {
	n := len(x)
	grad, next, nextGrad, dir := make([]float64, n), make([]float64, n), make([]float64, n), make([]float64, n)
	var s, y [][]float64 // the last steps and the changes of the gradient, the oldest first
	var rho []float64    // 1/(y·s)
	alpha := make([]float64, lbfgsMemory)
	value := f(x, grad)
	for iterations = 0; !(largest(grad) <= opt.gradient); iterations++ {
		if err := ctx.Err(); err != nil {
			return iterations, false, err
		}
		if iterations == opt.iterations {
			return iterations, false, nil
		}
		// dir = -H·grad, by two loops over the pairs.
		for i, g := range grad {
			dir[i] = -g
		}
		for i := len(s) - 1; i >= 0; i-- {
			alpha[i] = rho[i] * dot(s[i], dir)
			axpy(dir, -alpha[i], y[i])
		}
		step := 1.0
		if k := len(s) - 1; k >= 0 {
			scale := 1 / (rho[k] * dot(y[k], y[k]))
			for i := range dir {
				dir[i] *= scale
			}
		} else {
			step = min(1, 1/norm1(grad))
		}
		for i := range s {
			axpy(dir, alpha[i]-rho[i]*dot(y[i], dir), s[i])
		}
		l := line{f: f, from: x, dir: dir, at: next, grad: nextGrad, value0: value, slope0: dot(grad, dir)}
		if !(l.slope0 < 0) || !l.search(step) {
			return iterations, false, nil
		}
		var oldS, oldY []float64
		if len(s) == lbfgsMemory {
			oldS, oldY = s[0], y[0]
			s, y, rho = s[1:], y[1:], rho[1:]
		} else {
			oldS, oldY = make([]float64, n), make([]float64, n)
		}
		for i := range x {
			oldS[i], oldY[i] = next[i]-x[i], nextGrad[i]-grad[i]
		}
		if curvature := dot(oldS, oldY); curvature > 0 { // always, but for rounding
			s, y, rho = append(s, oldS), append(y, oldY), append(rho, 1/curvature)
		}
		gained := value - l.value
		copy(x, next)
		copy(grad, nextGrad)
		value = l.value
		if gained <= opt.decrease*max(math.Abs(value), 1) {
			return iterations + 1, true, nil
		}
	}
	return iterations, true, nil
}

// line is the function along a direction: φ(t) = f(from + t·dir).
type line struct {
	f                objective
	from, dir        []float64
	at, grad         []float64 // where it was evaluated last, and f's gradient there
	value            float64   // of f there
	value0, slope0   float64   // φ(0), φ'(0)
	evaluated        int
	bestT, bestValue float64
}

// eval returns φ(t) and φ'(t).
func (l *line) eval(t float64) (value, slope float64) {
	for i, v := range l.from {
		l.at[i] = v + t*l.dir[i]
	}
	l.evaluated++
	l.value = l.f(l.at, l.grad)
	if l.value < l.bestValue {
		l.bestT, l.bestValue = t, l.value
	}
	return l.value, dot(l.grad, l.dir)
}

// search leaves at, grad and value at a point that satisfies the strong Wolfe conditions (Nocedal and Wright 2006, Algorithms 3.5 and
// 3.6), or else at the lowest it has seen; it reports whether that is lower than where it began.
func (l *line) search(t float64) bool {
	l.bestValue = l.value0
	before := bound{0, l.value0, l.slope0}
	for l.evaluated < lineEvaluations {
		value, slope := l.eval(t)
		here := bound{t, value, slope}
		switch {
		case !(value <= l.value0+wolfeDecrease*t*l.slope0) || l.evaluated > 1 && value >= before.value: // not a number also
			return l.zoom(before, here)
		case math.Abs(slope) <= -wolfeCurvature*l.slope0:
			return true
		case slope >= 0:
			return l.zoom(here, before)
		}
		before, t = here, 2*t
	}
	return l.settle()
}

// bound is an end of the interval that zoom narrows.
type bound struct{ t, value, slope float64 }

// zoom finds such a point between lo, the lower end, and hi.
func (l *line) zoom(lo, hi bound) bool {
	for l.evaluated < lineEvaluations {
		t := cubicMinimum(lo, hi)
		value, slope := l.eval(t)
		here := bound{t, value, slope}
		switch {
		case !(value <= l.value0+wolfeDecrease*t*l.slope0) || value >= lo.value:
			hi = here
		case math.Abs(slope) <= -wolfeCurvature*l.slope0:
			return true
		default:
			if slope*(hi.t-lo.t) >= 0 {
				hi = lo
			}
			lo = here
		}
	}
	return l.settle()
}

// settle goes to the lowest point seen.
func (l *line) settle() bool {
	if l.bestT == 0 {
		return false
	}
	l.eval(l.bestT)
	return true
}

// cubicMinimum is where the cubic through two points with their slopes has its minimum (Nocedal and Wright 2006, equation 3.59), kept a
// tenth of the interval away from its ends; without one it is the middle.
func cubicMinimum(a, b bound) float64 {
	d1 := a.slope + b.slope - 3*(a.value-b.value)/(a.t-b.t)
	d2 := math.Copysign(math.Sqrt(d1*d1-a.slope*b.slope), b.t-a.t)
	t := b.t - (b.t-a.t)*(b.slope+d2-d1)/(b.slope-a.slope+2*d2)
	lo, hi := min(a.t, b.t), max(a.t, b.t)
	if edge := 0.1 * (hi - lo); !(t >= lo+edge && t <= hi-edge) {
		if t != t {
			return lo + (hi-lo)/2
		}
		return min(max(t, lo+edge), hi-edge)
	}
	return t
}

func dot(a, b []float64) float64 {
	sum := 0.0
	for i, v := range a {
		sum += v * b[i]
	}
	return sum
}

// axpy adds c times x to y.
func axpy(y []float64, c float64, x []float64) {
	for i, v := range x {
		y[i] += c * v
	}
}

func largest(x []float64) float64 {
	most := 0.0
	for _, v := range x {
		most = max(most, math.Abs(v))
	}
	return most
}

func norm1(x []float64) float64 {
	sum := 0.0
	for _, v := range x {
		sum += math.Abs(v)
	}
	return sum
}
