package ops

import (
	"testing"

	"diptych/internal/gradcheck"
	"diptych/internal/kernel"

	"github.com/stretchr/testify/require"
)

// deep is a tower of so many blocks, each marked.
func deep[T Float](t *testing.T, recompute bool, depth int) *bench[T] {
	b := newBench[T](t)
	if recompute {
		b.RecomputeBlocks()
	}
	seqs := b.Seqs("seqs", 3, 12)
	x := b.inputOf("x", seqs.Rows, 12, 8)
	b.binds = append(b.binds, func(p *ProgramOf[T]) { p.SetSeqs(seqs, []int32{0, 5, 6, 12}) })
	for i := range depth {
		name := string(rune('a' + i))
		b.BeginBlock()
		x = b.block(name, x, seqs)
		if i == 1 { // a block that ends in operations which compute nothing else again
			h := b.Linear(x, b.param("act", 8, 8), nil, LinearOpt{Act: kernel.ActGELU})
			x = b.AddBranch(x, b.Dropout(h, 0.1, "drop", seqs), 0.2, "path", seqs)
		}
		b.EndBlock(x)
	}
	b.compile(b.MeanPool(x, seqs, 0), x)
	return b
}

func TestRecomputeBlocks(t *testing.T) {
	kept, again := deep[float32](t, false, 3), deep[float32](t, true, 3)
	require.Equal(t, kept.gradients(), again.gradients(), "the same bits")
	require.Equal(t, kept.prog.Value(kept.outs[0]), again.prog.Value(again.outs[0]))
	require.Less(t, again.prog.ArenaSize(), kept.prog.ArenaSize())

	b := deep[float64](t, true, 2)
	grads := b.gradients()
	for _, p := range b.params {
		lo, hi := p.buf.off, p.buf.off+p.len()
		gradcheck.Check(t, p.name, b.weights[lo:hi], grads[lo:hi], 10, b.objective)
	}
}

// Of twelve blocks little more than their results and one block's activations is alive at once.
func TestRecomputeTakesLittleMemory(t *testing.T) {
	size := func(recompute bool) int {
		g := NewGraph[float32]()
		if recompute {
			g.RecomputeBlocks()
		}
		const n = 12 * 32 * 77
		seqs := g.Seqs("seqs", 32, 32*77)
		x := g.Embed(g.Ints("ids", 32*77), g.Param("table", 0, 100, 512), nil, seqs)
		p := func(name string, shape ...int) *Node { return g.Param(name, 0, shape...) }
		for i := range 12 {
			c := string(rune('a' + i))
			g.BeginBlock()
			h := g.LayerNorm(x, p(c+"g1", 512), p(c+"b1", 512), 1e-5)
			h = g.Attention(g.Linear(h, p(c+"qkv", 1536, 512), nil, LinearOpt{}), seqs, 8, true)
			x = g.Linear(h, p(c+"o", 512, 512), nil, LinearOpt{Residual: x})
			x = g.MLP(g.LayerNorm(x, p(c+"g2", 512), p(c+"b2", 512), 1e-5), p(c+"w1", 2048, 512), nil, p(c+"w2", 512, 2048), nil, kernel.ActGELU, x)
			g.EndBlock(x)
		}
		prog, err := g.Compile(CompileOpt[float32]{Outputs: []*Node{x}})
		require.NoError(t, err)
		s := prog.Stats()
		require.Equal(t, s.PeakLive, s.Arena, "recompute %v", recompute)
		return s.Arena
	}
	require.Less(t, float64(size(true)), 0.3*float64(size(false)))
}
