package ops

import (
	"testing"

	"diptych/internal/kernel"

	"github.com/stretchr/testify/require"
)

type f64 = bench[float64]

func TestGradients(t *testing.T) {
	mean, std := [3]float32{0.5, 0.4, 0.3}, [3]float32{0.2, 0.3, 0.4}
	pixels := make([]uint8, 2*4*4*3)
	floats := make([]float32, len(pixels))
	for i := range pixels {
		pixels[i] = uint8(i * 37)
		floats[i] = float32(i%11) - 5
	}
	cases := []struct {
		name  string
		build func(b *f64) *Node
	}{
		{"linear", func(b *f64) *Node {
			return b.Linear(b.input("x", 5, 4), b.param("w", 3, 4), b.param("b", 3), LinearOpt{})
		}},
		{"linear without bias", func(b *f64) *Node { return b.Linear(b.input("x", 5, 4), b.param("w", 3, 4), nil, LinearOpt{}) }},
		{"linear gelu", func(b *f64) *Node {
			return b.Linear(b.input("x", 5, 4), b.param("w", 3, 4), b.param("b", 3), LinearOpt{Act: kernel.ActGELU})
		}},
		{"linear quick gelu and residual", func(b *f64) *Node {
			x := b.input("x", 5, 4)
			res := b.inputOf("res", x.Rows(), 5, 3)
			return b.Linear(x, b.param("w", 3, 4), b.param("b", 3), LinearOpt{Act: kernel.ActQuickGELU, Residual: res})
		}},
		{"linear with itself as residual", func(b *f64) *Node {
			x := b.input("x", 5, 4)
			return b.Linear(x, b.param("w", 4, 4), nil, LinearOpt{Residual: x})
		}},
		{"linear of a parameter with a parameter as residual", func(b *f64) *Node {
			return b.Linear(b.param("x", 5, 4), b.param("w", 3, 4), nil, LinearOpt{Residual: b.param("res", 5, 3)})
		}},
		{"matmul", func(b *f64) *Node { return b.MatMul(b.input("x", 5, 4), b.param("w", 4, 3)) }},
		{"mlp", func(b *f64) *Node {
			x := b.input("x", 5, 4)
			return b.MLP(x, b.param("w1", 7, 4), b.param("b1", 7), b.param("w2", 3, 7), b.param("b2", 3), kernel.ActGELU, nil)
		}},
		{"mlp with residual", func(b *f64) *Node {
			x := b.input("x", 5, 4)
			return b.MLP(x, b.param("w1", 7, 4), nil, b.param("w2", 4, 7), nil, kernel.ActGELUTanh, x)
		}},
		{"layer norm", func(b *f64) *Node {
			return b.LayerNorm(b.input("x", 5, 6), b.param("gamma", 6), b.param("beta", 6), 1e-5)
		}},
		{"attention", func(b *f64) *Node {
			s := b.seqs("s", 0, 3, 4, 9)
			return b.Attention(b.inputOf("qkv", s.Rows, 9, 12), s, 2, false)
		}},
		{"causal attention", func(b *f64) *Node {
			s := b.seqs("s", 0, 3, 4, 9)
			return b.Attention(b.inputOf("qkv", s.Rows, 9, 12), s, 2, true)
		}},
		{"attention with a bias", func(b *f64) *Node {
			s := b.seqs("s", 0, 3, 4, 9)
			bias := &ScoreBias{Scores: b.param("scores", 10, 5)}
			return b.BiasedAttention(b.inputOf("qkv", s.Rows, 9, 12), s, 2, true, bias)
		}},
		{"attention without gradient, its bias with", func(b *f64) *Node {
			s := b.seqs("s", 0, 3, 4, 9)
			bias := &ScoreBias{Scores: b.param("scores", 12, 6), Keys: b.ints("positions", 0, 1, 5, 2, 3, 4, 1, 2, 5)}
			qkv := b.Input("qkv", s.Rows, 12)
			x := b.random(9 * 12)
			b.binds = append(b.binds, func(p *ProgramOf[float64]) { p.SetInput(qkv, x) })
			return b.BiasedAttention(qkv, s, 2, false, bias)
		}},
		{"pooled attention", func(b *f64) *Node {
			s := b.seqs("s", 0, 3, 4, 9)
			return b.PooledAttention(b.input("q", 3, 4), b.inputOf("kv", s.Rows, 9, 8), s, 2)
		}},
		{"embed", func(b *f64) *Node {
			return b.Embed(b.ints("ids", 1, 0, 2, 1, 1), b.param("table", 3, 4), b.param("pos", 6, 4), b.seqs("s", 0, 2, 5))
		}},
		{"embed without positions", func(b *f64) *Node {
			return b.Embed(b.ints("ids", 1, 0, 2, 1, 1), b.param("table", 3, 4), nil, b.seqs("s", 0, 2, 5))
		}},
		{"patches of levels with class token", func(b *f64) *Node {
			img := b.Image("img", 3, 4, 4, mean, std)
			b.binds = append(b.binds, func(p *ProgramOf[float64]) { p.SetImageU8(img, pixels) })
			x := b.PatchEmbed(img, b.param("w", 5, 3, 2, 2), b.param("b", 5), 2)
			return b.AssembleTokens(x, b.param("cls", 5), b.param("pos", 5, 5), img, b.seqs("s", 0, 5, 10))
		}},
		{"normalised patches without class token", func(b *f64) *Node {
			img := b.Image("img", 3, 4, 4, mean, std)
			b.binds = append(b.binds, func(p *ProgramOf[float64]) { p.SetImageF32(img, floats) })
			return b.AssembleTokens(b.PatchEmbed(img, b.param("w", 5, 12), nil, 2), nil, nil, img, b.seqs("s", 0, 4, 8))
		}},
		{"gather", func(b *f64) *Node { return b.Gather(b.input("x", 5, 3), b.ints("rows", 4, 1, 1)) }},
		{"mean pool", func(b *f64) *Node {
			s := b.seqs("s", 0, 3, 4, 9)
			return b.MeanPool(b.inputOf("x", s.Rows, 9, 3), s, 0)
		}},
		{"mean pool without the first", func(b *f64) *Node {
			s := b.seqs("s", 0, 3, 9)
			return b.MeanPool(b.inputOf("x", s.Rows, 9, 3), s, 1)
		}},
		{"l2 normalize", func(b *f64) *Node { return b.L2Normalize(b.input("x", 4, 5), 1e-12) }},
		{"dropout", func(b *f64) *Node {
			s := b.seqs("s", 0, 3, 5)
			return b.Dropout(b.inputOf("x", s.Rows, 5, 8), 0.4, "layer", s)
		}},
		{"dropout of pooled rows", func(b *f64) *Node { return b.Dropout(b.input("x", 4, 8), 0.4, "layer", nil) }},
		{"add branch", func(b *f64) *Node {
			x := b.input("x", 5, 3)
			return b.AddBranch(x, b.inputOf("branch", x.Rows(), 5, 3), 0, "path", nil)
		}},
		{"add branch with stochastic depth", func(b *f64) *Node {
			s := b.seqs("s", 0, 2, 3, 6, 8)
			x := b.inputOf("x", s.Rows, 8, 3)
			return b.AddBranch(x, b.inputOf("branch", s.Rows, 8, 3), 0.5, "path", s)
		}},
		{"layer scale", func(b *f64) *Node { return b.LayerScale(b.input("x", 5, 3), b.param("gamma", 3)) }},
		{"infonce", func(b *f64) *Node {
			x := b.input("x", 4, 5)
			return b.InfoNCE(x, b.inputOf("y", x.Rows(), 4, 5), b.param("scale"), nil, ITCOpt{})
		}},
		{"infonce with smoothing, groups and scale as input", func(b *f64) *Node {
			x := b.input("x", 5, 4)
			y := b.inputOf("y", x.Rows(), 5, 4)
			return b.InfoNCE(x, y, b.scalar("scale"), b.ints("groups", 7, 2, 7, 1, 7), ITCOpt{Smoothing: 0.1, GroupTargets: true})
		}},
		{"infonce of one and the same", func(b *f64) *Node {
			x := b.L2Normalize(b.input("x", 4, 5), 1e-12)
			return b.InfoNCE(x, x, b.param("scale"), nil, ITCOpt{Smoothing: 0.2})
		}},
		{"sigmoid loss", func(b *f64) *Node {
			x := b.input("x", 4, 5)
			return b.SigmoidLoss(x, b.inputOf("y", x.Rows(), 4, 5), b.param("scale"), b.param("bias"), nil)
		}},
		{"sigmoid loss with groups", func(b *f64) *Node {
			x := b.input("x", 4, 5)
			return b.SigmoidLoss(x, b.inputOf("y", x.Rows(), 4, 5), b.param("scale"), b.param("bias"), b.ints("groups", 1, 2, 1, 2))
		}},
		{"tied weight and fan-out of three", func(b *f64) *Node {
			x, w := b.input("x", 5, 4), b.param("w", 4, 4)
			h := b.Linear(x, w, b.param("b", 4), LinearOpt{Act: kernel.ActGELU})
			a := b.Linear(h, w, nil, LinearOpt{Residual: h})
			return b.Linear(h, b.param("w2", 4, 4), nil, LinearOpt{Act: kernel.ActGELU, Residual: a})
		}},
		{"frozen weights", func(b *f64) *Node {
			h := b.Linear(b.input("x", 5, 4), b.frozen("w", 4, 4), b.frozen("b", 4), LinearOpt{Act: kernel.ActGELU})
			h = b.LayerNorm(h, b.frozen("gamma", 4), b.param("beta", 4), 1e-5)
			h = b.MLP(h, b.frozen("w1", 6, 4), b.frozen("b1", 6), b.param("w2", 4, 6), nil, kernel.ActGELU, h)
			return b.LayerScale(h, b.frozen("scale", 4))
		}},
		{"data without a gradient", func(b *f64) *Node {
			h := b.LayerNorm(b.data("x", 5, 4), b.param("gamma", 4), b.frozen("beta", 4), 1e-5)
			h = b.LayerScale(h, b.param("scale", 4))
			return b.AddBranch(b.data("y", 5, 4), h, 0.5, "path", nil)
		}},
		{"only what is behind needs a gradient", func(b *f64) *Node {
			h := b.Linear(b.data("x", 5, 4), b.frozen("w", 4, 4), b.param("b", 4), LinearOpt{})
			h = b.MLP(h, b.frozen("w1", 6, 4), nil, b.frozen("w2", 4, 6), b.param("b2", 4), kernel.ActGELU, nil)
			c := b.data("c", 5, 4)
			return b.InfoNCE(b.L2Normalize(h, 1e-12), b.L2Normalize(c, 1e-12), b.frozen("t"), nil, ITCOpt{})
		}},
		{"frozen embeddings", func(b *f64) *Node {
			return b.Embed(b.ints("ids", 1, 0, 2, 1, 1), b.frozen("table", 3, 4), b.param("pos", 6, 4), b.seqs("s", 0, 2, 5))
		}},
		{"two pre-norm blocks", func(b *f64) *Node {
			s := b.seqs("s", 0, 3, 7)
			x := b.inputOf("x", s.Rows, 7, 4)
			for _, name := range []string{"0", "1"} {
				x = b.block(name, x, s)
			}
			return x
		}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) { checkGradients(t, c.build) })
	}
}

func TestDropoutKeepsItsShare(t *testing.T) {
	b := newBench[float64](t)
	x := b.input("x", 200, 50)
	one, two := b.Dropout(x, 0.3, "one", nil), b.Dropout(x, 0.3, "two", nil)
	path := b.AddBranch(x, x, 0.3, "path", nil)
	b.compile(one, two, path)
	kept := func(n *Node) (mask []bool, share float64) {
		for i, v := range b.prog.Value(n) {
			mask = append(mask, v != 0)
			if v != 0 {
				require.InDelta(t, b.inputs[x][i]/0.7, v, 1e-12)
				share += 1e-4
			}
		}
		return mask, share
	}
	first, share := kept(one)
	require.InDelta(t, 0.7, share, 0.03) // six standard deviations of 10000 draws
	second, share := kept(two)
	require.InDelta(t, 0.7, share, 0.03)
	require.NotEqual(t, first, second, "each layer has its own mask")

	rows := 0.0
	for i := range 200 {
		v := b.prog.Value(path)[i*50 : (i+1)*50]
		factor := v[0] / b.inputs[x][i*50]
		if factor > 1.5 {
			require.InDelta(t, 1+1/0.7, factor, 1e-12)
			rows++
		} else {
			require.InDelta(t, 1, factor, 1e-12)
		}
		require.InDelta(t, factor, v[49]/b.inputs[x][i*50+49], 1e-9, "a pair stays or goes as a whole")
	}
	require.InDelta(t, 0.7, rows/200, 0.2)
}

// block is a pre-norm block of a transformer with two heads.
func (b *bench[T]) block(name string, x *Node, s *Seqs) *Node {
	d := x.Cols()
	h := b.LayerNorm(x, b.param(name+".ln1.gamma", d), b.param(name+".ln1.beta", d), 1e-5)
	h = b.Linear(h, b.param(name+".qkv", 3*d, d), b.param(name+".qkv.b", 3*d), LinearOpt{})
	h = b.Attention(h, s, 2, false)
	x = b.Linear(h, b.param(name+".out", d, d), b.param(name+".out.b", d), LinearOpt{Residual: x})
	h = b.LayerNorm(x, b.param(name+".ln2.gamma", d), b.param(name+".ln2.beta", d), 1e-5)
	return b.MLP(h, b.param(name+".fc", 4*d, d), b.param(name+".fc.b", 4*d), b.param(name+".proj", d, 4*d), b.param(name+".proj.b", d), kernel.ActGELU, x)
}

func TestUnusedParameterKeepsNoGradient(t *testing.T) {
	b := newBench[float64](t)
	b.param("unused", 3)
	b.compile(b.Linear(b.input("x", 2, 3), b.param("w", 2, 3), nil, LinearOpt{}))
	require.Equal(t, make([]float64, 4), b.gradients()[:4])
}
