package ops

import (
	"math"
	"testing"

	"github.com/stretchr/testify/require"
)

// Values beside the formula, gradients by finite differences, and the example of spec/vilt 7.
func TestBinaryCrossEntropy(t *testing.T) {
	aims := []float64{1, 0.3, 0, 0, 0.9, 0.6, 0, 0, 0, 0, 0, 1}
	b := checkGradients(t, func(b *bench[float64]) *Node {
		x := b.input("logits", 4, 3)
		q := b.Input("targets", x.Rows(), 3)
		b.binds = append(b.binds, func(p *ProgramOf[float64]) { p.SetInput(q, aims) })
		return b.BinaryCrossEntropy(x, q)
	})
	z := b.inputs[b.wrt[0]]
	loss, hit := 0.0, 0.0
	for r := range 4 {
		top := 0
		for k := range 3 {
			s, q := 1/(1+math.Exp(-z[3*r+k])), aims[3*r+k]
			loss -= q*math.Log(s) + (1-q)*math.Log(1-s)
			if z[3*r+k] > z[3*r+top] {
				top = k
			}
		}
		hit += aims[3*r+top]
	}
	b.objective()
	got := b.prog.Value(b.outs[0])
	require.InDelta(t, loss, got[0], 1e-12)
	require.InDelta(t, hit, got[1], 1e-12)

	run := func(logits, targets []float32) (value, grad []float32) {
		f := newBench[float32](t)
		x := f.Input("logits", f.NewDim("rows", len(logits)/3), 3)
		q := f.Input("targets", x.Rows(), 3)
		f.binds = append(f.binds, func(p *Program) { p.SetInput(x, logits); p.SetInput(q, targets) })
		f.wrt = append(f.wrt, x)
		f.compile(f.BinaryCrossEntropy(x, q))
		f.fed[0][0] = 0.5
		f.gradients()
		return f.prog.Value(f.outs[0]), f.prog.InputGrad(x)
	}
	value, _ := run([]float32{0.5, -1, 2, 0, 3, -2}, []float32{1, 0.3, 0, 0, 0.9, 0.6})
	require.InDelta(t, 2*2.791465, value[0], 2e-6)
	require.InDelta(t, 0.9, value[1], 1e-6)
	value, grad := run([]float32{1e4, -1e4, 1e4}, []float32{1, 0, 0})
	require.Equal(t, []float32{1e4, 1}, value, "of equal scores the first class")
	require.Equal(t, []float32{0, 0, 0.5}, grad)

	g := NewGraph[float32]()
	g.BinaryCrossEntropy(g.Input("x", g.NewDim("rows", 2), 3), g.Input("y", g.NewDim("others", 2), 2))
	require.ErrorContains(t, g.Err(), "must have the form of the scores")
}
