// Package gradcheck compares gradients with finite differences. It serves tests.
package gradcheck

import (
	"fmt"
	"math"
	"testing"
)

// Step is how far an element is moved each way. The error of a central difference in float64 is smallest near the cube root
// of the rounding error, 6e-6 for values around 1.
const Step = 1e-5

// Tolerance is the largest relative error that passes: a central difference of well-conditioned functions is exact to about
// Step², and loses up to 1e-16/Step to rounding.
const Tolerance = 1e-6

// Check moves each element of x, at most limit of them at even distances, both ways by Step, and compares the slope of f with
// grad, the gradient under test. f must read x. x is left as it was.
func Check(t testing.TB, name string, x, grad []float64, limit int, f func() float64) {
	t.Helper()
	if err := compare(x, grad, limit, f); err != nil {
		t.Errorf("gradient of %s: %v", name, err)
	}
}

func compare(x, grad []float64, limit int, f func() float64) error {
	if len(x) != len(grad) {
		return fmt.Errorf("%d elements, but %d gradients", len(x), len(grad))
	}
	stride := max(1, (len(x)+limit-1)/max(1, limit))
	for i := 0; i < len(x); i += stride {
		old := x[i]
		x[i] = old + Step
		up := f()
		x[i] = old - Step
		down := f()
		x[i] = old
		slope := (up - down) / (2 * Step)
		// Relative to 1 at least, for a slope near zero has the absolute error of its function.
		off := math.Abs(slope-grad[i]) / max(1, math.Abs(slope), math.Abs(grad[i]))
		if !(off <= Tolerance) { // and not NaN
			return fmt.Errorf("element %d: finite difference %.9g, gradient %.9g", i, slope, grad[i])
		}
	}
	return nil
}
