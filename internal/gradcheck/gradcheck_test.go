package gradcheck

import (
	"math"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestCompare(t *testing.T) {
	x := []float64{0.3, -1.2, 2}
	f := func() float64 { return math.Sin(x[0]) + x[1]*x[2] }
	right := []float64{math.Cos(x[0]), x[2], x[1]}
	cases := []struct {
		name string
		grad []float64
		ok   bool
	}{
		{"right", right, true},
		{"one element off by a thousandth", []float64{right[0], right[1] + 2e-3, right[2]}, false},
		{"wrong sign", []float64{-right[0], right[1], right[2]}, false},
		{"not a number", []float64{right[0], right[1], math.NaN()}, false},
		{"too short", right[:2], false},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			err := compare(x, c.grad, 100, f)
			require.Equal(t, c.ok, err == nil, "%v", err)
			require.Equal(t, []float64{0.3, -1.2, 2}, x)
		})
	}
	Check(t, "sine", x, right, 2, f)
}
