package ops

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// Fold undoes Split, and carries gradients.
func TestFold(t *testing.T) {
	b := checkGradients(t, func(b *bench[float64]) *Node {
		x := b.input("x", 3, 4)
		return b.Fold(b.Split(x, 2), x.Rows())
	})
	b.objective()
	require.Equal(t, b.inputs[b.wrt[0]], b.prog.Value(b.outs[0]))
	g := NewGraph[float32]()
	g.Fold(g.Input("x", g.NewDim("rows", 5), 3), g.NewDim("runs", 2))
	require.ErrorIs(t, g.Err(), ErrShape)
}
