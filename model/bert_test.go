package model

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"diptych/internal/golden"
	"diptych/internal/kernel"
	"diptych/ops"
)

// bertFixture is testdata/bert, which tests/peers/bert_golden.py made with transformers.
func bertFixture(t *testing.T, pool string) (*golden.Folder, *CLIP, []float32) {
	f := golden.Load(t, "testdata/bert")
	var c struct {
		Width   int     `json:"hidden_size"`
		Depth   int     `json:"num_hidden_layers"`
		Heads   int     `json:"num_attention_heads"`
		MLP     int     `json:"intermediate_size"`
		Context int     `json:"max_position_embeddings"`
		Vocab   int     `json:"vocab_size"`
		Eps     float64 `json:"layer_norm_eps"`
	}
	f.JSON("config.json", &c)
	cfg := Presets["ViT-B-32"]
	cfg.EmbedDim = c.Width
	cfg.Vision.Transformer = Transformer{Width: 32, Depth: 1, NumHeads: 2, MLPRatio: 1, Activation: "gelu", LayerNormEps: 1e-5}
	cfg.Text = Text{
		Kind: "bert", ContextLength: c.Context, VocabSize: c.Vocab, Pool: pool, Projection: "none",
		Transformer: Transformer{Width: c.Width, Depth: c.Depth, NumHeads: c.Heads, MLPRatio: float64(c.MLP) / float64(c.Width), Activation: "gelu", LayerNormEps: c.Eps},
	}
	m, err := NewCLIP(cfg, false)
	require.NoError(t, err)
	weights := make([]float32, m.Layout.Size)
	for _, p := range m.Layout.Params {
		name, ok := strings.CutPrefix(p.Name, "bert.")
		if !ok {
			continue
		}
		at := p.Slice(weights)
		for _, part := range bertParts(name) {
			v, _ := f.Weight(part)
			at = at[copy(at, v):]
		}
		require.Empty(t, at, p.Name)
	}
	return f, m, weights
}

// bertParts names Hugging Face's tensors that make up one of ours.
func bertParts(name string) []string {
	layer, leaf, ok := strings.Cut(name, ".self.in_proj.")
	if !ok {
		return []string{name}
	}
	return []string{layer + ".self.query." + leaf, layer + ".self.key." + leaf, layer + ".self.value." + leaf}
}

func TestGoldenBERT(t *testing.T) {
	for pool, out := range map[string]string{"avg": "mean", "cls": "first"} {
		t.Run(pool, func(t *testing.T) {
			f, m, weights := bertFixture(t, pool)
			ids, mask := f.Ints("in.ids"), f.Ints("in.mask")
			length := f.Shape("in.ids")[1]
			texts := make([][]int32, len(ids)/length)
			for i, id := range ids {
				if mask[i] != 0 {
					texts[i/length] = append(texts[i/length], int32(id))
				}
			}
			g := ops.NewGraph[float32]()
			in := m.NewTexts(g, "text", len(texts))
			x := m.TextFeatures(g, in)
			require.NoError(t, g.Err())
			prog, err := g.Compile(ops.CompileOpt[float32]{Outputs: []*ops.Node{x}})
			require.NoError(t, err)
			kp := kernel.NewPool(2)
			defer kp.Close()
			defer prog.Close()
			grads := make([]float32, m.Layout.Size)
			prog.Bind(&ops.Run[float32]{Weights: weights, Grads: grads, Arena: kernel.NewSlab(prog.ArenaSize()), Pool: kp, Train: true})
			require.NoError(t, in.Set(prog, texts))
			require.NoError(t, prog.Forward())
			f.Check(t, "out."+out, prog.Value(x))
			prog.SetOutputGrad(x, f.Float32("in.weights"))
			require.NoError(t, prog.Backward())
			for _, p := range m.Layout.Params {
				name, ok := strings.CutPrefix(p.Name, "bert.")
				if !ok {
					continue
				}
				at := p.Slice(grads)
				for _, part := range bertParts(name) {
					key := "grad." + out + "." + part
					n := len(f.Float32(key))
					f.Check(t, key, at[:n])
					at = at[n:]
				}
			}
		})
	}
}

// Dropout leaves out what it is told to, and the projection to the joint space may be a matrix.
func TestBERTTrains(t *testing.T) {
	_, m, weights := bertFixture(t, "cls")
	cfg := m.Config
	cfg.Text.Dropout, cfg.Text.Projection, cfg.EmbedDim = 0.1, "", 8
	m, err := NewCLIP(cfg, false)
	require.NoError(t, err)
	require.Equal(t, []int{32, 8}, m.Layout.Find("text_projection").Shape)
	weights = make([]float32, m.Layout.Size)
	kp := kernel.NewPool(1)
	defer kp.Close()
	m.Layout.Init(kp, weights, 1)
	features := func(train bool) []float32 {
		g := ops.NewGraph[float32]()
		in := m.NewTexts(g, "text", 2)
		x := m.EncodeText(g, in)
		prog, err := g.Compile(ops.CompileOpt[float32]{Outputs: []*ops.Node{x}})
		require.NoError(t, err)
		defer prog.Close()
		prog.Bind(&ops.Run[float32]{Weights: weights, Arena: kernel.NewSlab(prog.ArenaSize()), Pool: kp, Train: train, Seed: 3})
		require.NoError(t, in.Set(prog, [][]int32{{1, 2, 3}, {4, 5}}))
		require.NoError(t, prog.Forward())
		return append([]float32(nil), prog.Value(x)...)
	}
	require.Len(t, features(true), 16)
	require.Equal(t, features(true), features(true))
	require.NotEqual(t, features(true), features(false))
}

func TestValidateBERT(t *testing.T) {
	for name, c := range map[string]struct {
		edit func(t *Text)
		want string
	}{
		"kind":       {func(t *Text) { t.Kind = "gpt" }, `model.text.kind: "gpt" is unknown`},
		"causal":     {func(t *Text) { t.Causal = true }, "model.text.causal: true, but a bert has none"},
		"pool":       {func(t *Text) { t.Pool = "eos" }, `model.text.pool: "eos" is unknown; known: cls, avg`},
		"drop path":  {func(t *Text) { t.DropPath = 0.1 }, "model.text.dropPath"},
		"segments":   {func(t *Text) { t.Segments = -1 }, "model.text.segments"},
		"projection": {func(t *Text) { t.Projection = "mlp" }, `model.text.projection: "mlp"`},
		"width":      {func(t *Text) { t.Width = 64 }, "model.text.projection: none, but width 64 is not embedDim 32"},
		"of CLIP":    {func(t *Text) { t.Kind, t.Segments = "", 2 }, "model.text.segments: 2"},
	} {
		t.Run(name, func(t *testing.T) {
			_, m, _ := bertFixture(t, "avg")
			cfg := m.Config
			c.edit(&cfg.Text)
			require.ErrorContains(t, cfg.Validate(), c.want)
		})
	}
}
