package model

import (
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"diptych/internal/golden"
	"diptych/internal/kernel"
	"diptych/ops"
)

// albefNames names the authors' tensors that laid one after another make up one of ours.
func albefNames(name string) []string {
	var out []string
	prefix := "text_encoder."
	if strings.HasPrefix(name, "visual_encoder.") || strings.Contains(name, "_proj.") && !strings.Contains(name, "in_proj") || strings.HasPrefix(name, "itm_head") {
		prefix = ""
	}
	parts := []string{""}
	switch {
	case strings.Contains(name, "in_proj"):
		parts = []string{"query", "key", "value"}
	case strings.Contains(name, "key_value"):
		parts = []string{"key", "value"}
	}
	for _, part := range parts {
		out = append(out, prefix+strings.NewReplacer("in_proj", part, "key_value", part).Replace(name))
	}
	return out
}

// albef is the fixture of the authors' pre-training step and its model.
type albef struct {
	*golden.Folder
	t       *testing.T
	model   *Fusion
	weights []float32
	texts   [][]int32
	pixels  []float32
}

func loadALBEF(t *testing.T) *albef {
	f := &albef{Folder: golden.Load(t, "testdata/albef-pretrain"), t: t}
	var o struct {
		Image  int `json:"image_res"`
		Vision struct {
			Patch int     `json:"patch_size"`
			Width int     `json:"embed_dim"`
			Depth int     `json:"depth"`
			Heads int     `json:"num_heads"`
			MLP   float64 `json:"mlp_ratio"`
		}
		Embed int `json:"embed_dim"`
		BERT  struct {
			Vocab   int     `json:"vocab_size"`
			Width   int     `json:"hidden_size"`
			Depth   int     `json:"num_hidden_layers"`
			Heads   int     `json:"num_attention_heads"`
			MLP     int     `json:"intermediate_size"`
			Context int     `json:"max_position_embeddings"`
			Eps     float64 `json:"layer_norm_eps"`
			Fusion  int     `json:"fusion_layer"`
		}
	}
	f.JSON("config.json", &o)
	c := DefaultFusion()
	v, x := &c.Vision, &c.Text
	v.ImageSize, v.PatchSize, v.Width, v.Depth, v.NumHeads, v.MLPRatio = o.Image, o.Vision.Patch, o.Vision.Width, o.Vision.Depth, o.Vision.Heads, o.Vision.MLP
	x.VocabSize, x.Width, x.Depth, x.NumHeads, x.ContextLength = o.BERT.Vocab, o.BERT.Width, o.BERT.Fusion, o.BERT.Heads, o.BERT.Context
	x.MLPRatio, x.LayerNormEps, x.Dropout = float64(o.BERT.MLP)/float64(o.BERT.Width), o.BERT.Eps, 0
	c.EmbedDim, c.Fusion.Depth = o.Embed, o.BERT.Depth-o.BERT.Fusion
	var err error
	f.model, err = newFusion(c, Heads{Match: true, Words: true})
	require.NoError(t, err)
	f.weights = make([]float32, f.model.Layout.Size)
	for _, p := range f.model.Layout.Params {
		at := p.Slice(f.weights)
		if p == f.model.logitScale {
			v, _ := f.Weight("temp")
			at[0] = float32(-math.Log(float64(v[0])))
			continue
		}
		for _, name := range albefNames(p.Name) {
			v, _ := f.Weight(name)
			at = at[copy(at, v):]
		}
		require.Empty(t, at, p.Name)
	}
	f.texts, f.pixels = f.ids("in.text_ids"), f.Float32("in.image")
	return f
}

// ids returns the sentences of a tensor of ids, without their padding.
func (f *albef) ids(name string) [][]int32 {
	var out [][]int32
	length, mask := f.Shape(name)[1], f.Ints("in.text_masks")
	for i, id := range f.Ints(name) {
		if i%length == 0 {
			out = append(out, nil)
		}
		if mask[i] != 0 {
			out[len(out)-1] = append(out[len(out)-1], int32(id))
		}
	}
	return out
}

// valid returns the rows of a padded tensor (B, L, D) that are no padding.
func (f *albef) valid(name string) []float32 {
	d, all, mask := f.Shape(name)[2], f.Float32(name), f.Ints("in.text_masks")
	var out []float32
	for i, m := range mask {
		if m != 0 {
			out = append(out, all[i*d:(i+1)*d]...)
		}
	}
	return out
}

// albefRun is a graph of the fixture's model.
type albefRun struct {
	*albef
	g     *ops.Graph
	prog  *ops.Program
	grads []float32
	binds []func(p *ops.Program)
	n     int
}

func (f *albef) run() *albefRun {
	return &albefRun{albef: f, g: ops.NewGraph[float32](), n: len(f.texts), grads: make([]float32, f.model.Layout.Size)}
}

func (r *albefRun) images() *ImageInput {
	in := r.model.NewImages(r.g, "image", r.n, [3]float32{}, [3]float32{1, 1, 1})
	r.binds = append(r.binds, func(p *ops.Program) { in.SetFloat(p, r.pixels, r.n) })
	return in
}

func (r *albefRun) sentences(name string, texts [][]int32) *TextInput {
	in := r.model.NewTexts(r.g, name, r.n)
	r.binds = append(r.binds, func(p *ops.Program) { require.NoError(r.t, in.Set(p, texts)) })
	return in
}

func (r *albefRun) ints(name string, list []int32) *ops.Ints {
	x := r.g.Ints(name, len(list))
	r.binds = append(r.binds, func(p *ops.Program) { p.SetInts(x, list) })
	return x
}

func (r *albefRun) forward(out ...*ops.Node) {
	var err error
	require.NoError(r.t, r.g.Err())
	r.prog, err = r.g.Compile(ops.CompileOpt[float32]{Outputs: out})
	require.NoError(r.t, err)
	pool := kernel.NewPool(2)
	r.t.Cleanup(func() { pool.Close(); r.prog.Close() })
	r.prog.Bind(&ops.Run[float32]{Weights: r.weights, Grads: r.grads, Arena: kernel.NewSlab(r.prog.ArenaSize()), Pool: pool, Train: true})
	for _, bind := range r.binds {
		bind(r.prog)
	}
	require.NoError(r.t, r.prog.Forward())
}

// loss feeds the gradient of the mean cross-entropy of some scores, checks the loss and the norm of every parameter's gradient.
func (r *albefRun) loss(name string, labels []int, classes int, outs ...*ops.Node) {
	var scores []float32
	for _, o := range outs {
		scores = append(scores, r.prog.Value(o)...)
	}
	loss, d := crossEntropy(scores, labels, classes)
	r.Check(r.t, "loss.hard."+name, []float32{float32(loss)})
	for _, o := range outs {
		n := len(r.prog.Value(o))
		r.prog.SetOutputGrad(o, d[:n])
		d = d[n:]
	}
	require.NoError(r.t, r.prog.Backward())
	var g struct {
		Order []string `json:"parameter_order"`
	}
	r.JSON("golden.json", &g)
	want, atol := r.Float32("out.hard.gradnorm."+name), r.Atol("out.hard.gradnorm."+name)
	seen := 0
	for _, p := range r.model.Layout.Params {
		if p == r.model.logitScale {
			require.Zero(r.t, p.Slice(r.grads)[0])
			continue
		}
		at := p.Slice(r.grads)
		names := albefNames(p.Name)
		for _, name := range names {
			i := slices.Index(g.Order, name)
			require.GreaterOrEqual(r.t, i, 0, name)
			sum := 0.0
			for _, v := range at[:p.Len()/len(names)] {
				sum += float64(v) * float64(v)
			}
			at = at[p.Len()/len(names):]
			require.InDelta(r.t, want[i], math.Sqrt(sum), atol, name)
			seen++
		}
	}
	require.Equal(r.t, len(g.Order)-1, seen, "all but the temperature")
}

// The authors' towers, fusion and heads: features, all states, scores and losses of matching with their hard negatives and of
// masked words, and the norms of all gradients.
func TestFusionGolden(t *testing.T) {
	f := loadALBEF(t)
	r := f.run()
	texts, images := r.sentences("text", f.texts), r.images()
	x, y := f.model.EncodeImage(r.g, images), f.model.EncodeText(r.g, texts)
	tokens, _ := f.model.imageTokens(r.g, images)
	rows := f.model.textTokens(r.g, texts)
	var all []int32
	for range len(f.valid("out.text_embeds")) / f.model.text.cfg.Width {
		all = append(all, int32(len(all)))
	}
	fused := f.model.fuse(r.g, rows, texts.seqs, images, nil, r.g.PickFrom(texts.seqs, r.ints("all", all)), "fused")
	r.forward(x, y, tokens, rows, fused)
	f.Check(t, "out.image_feat", r.prog.Value(x))
	f.Check(t, "out.text_feat", r.prog.Value(y))
	f.Check(t, "out.image_embeds", r.prog.Value(tokens))
	golden.Close(t, "out.text_embeds", r.prog.Value(rows), f.valid("out.text_embeds"), f.Atol("out.text_embeds"))
	golden.Close(t, "out.fused", r.prog.Value(fused), f.valid("out.fused"), f.Atol("out.fused"))

	var pictures []int32
	var others [][]int32
	var labels []int
	for i := range f.texts {
		pictures = append(pictures, int32(f.Ints("in.negative_image")[i]))
		others = append(others, f.texts[f.Ints("in.negative_text")[i]])
		labels = append(labels, 1)
	}
	labels = append(labels, make([]int, 2*len(labels))...)
	r = f.run()
	texts, images = r.sentences("text", f.texts), r.images()
	own := f.model.MatchRead(r.g, "own", texts, images, nil)
	picture := f.model.MatchRead(r.g, "picture", texts, images, r.ints("reads", pictures))
	sentence := f.model.MatchRead(r.g, "sentence", r.sentences("other", others), images, nil)
	r.forward(own, picture, sentence)
	scores := slices.Concat(r.prog.Value(own), r.prog.Value(picture), r.prog.Value(sentence))
	f.Check(t, "out.itm_logits", scores)
	r.loss("itm", labels, 2, own, picture, sentence)

	var places []int32
	labels = nil
	length, at, mask := f.Shape("out.mlm_labels")[1], int32(0), f.Ints("in.text_masks")
	for i, l := range f.Ints("out.mlm_labels") {
		if l >= 0 {
			places, labels = append(places, at), append(labels, int(l))
		}
		at += int32(mask[i])
	}
	require.Equal(t, length*len(f.texts), len(mask))
	r = f.run()
	hidden, table, bias := f.model.FillWords(r.g, "mlm", r.sentences("text", f.ids("out.mlm_ids")), r.images(), r.ints("places", places))
	words := r.g.Linear(hidden, table, bias, ops.LinearOpt{})
	r.forward(words)
	f.Check(t, "out.mlm_logits", r.prog.Value(words))
	r.loss("mlm", labels, f.model.Config.Text.VocabSize, words)
}

// Hard negatives are scored as their pairs are: three for each pair, drawn from those of other groups. No part of the scores depends
// on what else the graph computes.
func TestMatchHard(t *testing.T) {
	f := loadALBEF(t)
	r := f.run()
	var groups []int32
	for i := range f.texts {
		groups = append(groups, int32(i))
	}
	texts, images := r.sentences("text", f.texts), r.images()
	hard := f.model.MatchHard(r.g, "itm", texts, images, r.ints("groups", groups), 0)
	outs := []*ops.Node{hard} // and, by shift, each sentence with the picture so much further
	for shift := range f.texts {
		var reads []int32
		for i := range f.texts {
			reads = append(reads, int32((i+shift)%len(f.texts)))
		}
		name := "shift " + string(rune('a'+shift))
		outs = append(outs, f.model.MatchRead(r.g, name, texts, images, r.ints(name, reads)))
	}
	r.forward(outs...)
	n := len(f.texts)
	// score returns what sentence i and picture j get.
	score := func(i, j int) []float32 {
		v := r.prog.Value(outs[1+(j-i+n)%n])
		return v[2*i : 2*i+2]
	}
	got := r.prog.Value(hard)
	for i := range n {
		require.InDeltaSlice(t, score(i, i), got[6*i:6*i+2], 1e-5)
		for k, want := range []func(j int) []float32{func(j int) []float32 { return score(i, j) }, func(j int) []float32 { return score(j, i) }} {
			drawn := 0
			for j := range n {
				if w := want(j); j != i && math.Abs(float64(w[0]-got[6*i+2*k+2])) < 1e-5 && math.Abs(float64(w[1]-got[6*i+2*k+3])) < 1e-5 {
					drawn++
				}
			}
			require.Equal(t, 1, drawn, "pair %d, negative %d", i, k)
		}
	}
}

// Presets are valid; ALBEF's has the size of the authors' model without momentum copies: 123.7 + 85.8 million in the paper's table,
// here with 30 positions of 512 and without the word head's transform counted apart.
func TestFusionPresets(t *testing.T) {
	for name, c := range FusionPresets {
		require.NoError(t, c.Validate(), name)
	}
	m, err := newFusion(FusionPresets["albef"], Heads{Match: true, Words: true})
	require.NoError(t, err)
	require.InDelta(t, 209.9e6, m.Layout.Count(), 0.6e6) // 209.9 M at inference (spec A1)
	alone, err := newFusion(FusionPresets["albef"], Heads{})
	require.NoError(t, err)
	require.Nil(t, alone.Layout.Find("itm_head.weight"))

	c := FusionPresets["albef"]
	c.Fusion.Depth, c.Text.Pool, c.Vision.Pool, c.NumClasses, c.EmbedDim, c.Text.Weights = 0, "avg", "avg", 3, 0, "folder"
	err = c.Validate()
	for _, want := range []string{"fusion.depth: 0", "text: a fusion has kind bert, pool cls", "vision: a fusion has pool cls", "numClasses: 3", "embedDim: 0", "text.weights: folder"} {
		require.ErrorContains(t, err, "model."+want)
	}
	clip := Presets["ViT-B-32"]
	clip.Fusion.Depth = 2
	require.ErrorContains(t, clip.Validate(), "model.fusion: {2}, but a clip has none")
}
