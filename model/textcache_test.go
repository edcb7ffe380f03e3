package model

import (
	"testing"

	"github.com/stretchr/testify/require"

	"diptych/internal/kernel"
	"diptych/ops"
)

// What comes from the cache has the bits that the tower gives in place, whatever texts it was computed beside.
func TestTextCacheEqualsTheTower(t *testing.T) {
	_, trained, weights := bertFixture(t, "avg")
	none, err := NewTextCache(trained, false)
	require.NoError(t, err)
	require.Nil(t, none, "nothing is known of a tower that learns")

	m := trained
	for _, p := range m.textParams {
		p.Frozen = true
	}
	cache, err := NewTextCache(m, false)
	require.NoError(t, err)
	defer cache.Close()
	pool := kernel.NewPool(2)
	defer pool.Close()
	var texts [][]int32
	for i := range 150 {
		text := []int32{2}
		for j := range i % 11 {
			text = append(text, int32((i*7+j*j)%60))
		}
		texts = append(texts, text)
	}
	require.NoError(t, cache.Fill(texts[:1], weights, pool))
	require.NoError(t, cache.Fill(texts, weights, pool))

	rows := func(gr *Grain, texts [][]int32) []float32 {
		in := gr.Texts()
		x := m.EncodeText(gr.G, in)
		prog, err := gr.G.Compile(ops.CompileOpt[float32]{Outputs: []*ops.Node{x}, ForwardOnly: true})
		require.NoError(t, err)
		defer prog.Close()
		prog.Bind(&ops.Run[float32]{Weights: weights, Arena: kernel.NewSlab(prog.ArenaSize()), Pool: pool})
		require.NoError(t, in.Set(prog, texts))
		require.NoError(t, prog.Forward())
		return append([]float32(nil), prog.Value(x)...)
	}
	for lo := 0; lo+7 < len(texts); lo += 7 {
		some := texts[lo : lo+7]
		require.Equal(t, rows(NewGrain(m, 8, [3]float32{}, [3]float32{1, 1, 1}, nil), some), rows(NewGrain(m, 8, [3]float32{}, [3]float32{1, 1, 1}, cache), some))
	}

	require.ErrorContains(t, cache.Fill([][]int32{{1, 99}}, weights, pool), "token 99")
	require.ErrorContains(t, cache.Fill([][]int32{{1, 99}}, weights, pool), "token 99", "a fault is not kept")
	in := cache.newInput(ops.NewGraph[float32](), "text", 1)
	require.ErrorContains(t, in.Set(nil, [][]int32{{3, 3, 3}}), "was not given")
}
