package model

import (
	"cmp"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"diptych/internal/golden"
	"diptych/internal/kernel"
	"diptych/ops"
)

// viltFixture is a golden folder of ViLT, Hugging Face's or the authors'.
type viltFixture struct {
	*golden.Folder
	t       *testing.T
	hf      bool
	cfg     viltConfig
	heads   ViLTHeads
	model   *ViLT
	weights []float32
}

func loadViLT(t *testing.T, name string, heads ViLTHeads) *viltFixture {
	f := &viltFixture{Folder: golden.Load(t, "testdata/"+name), t: t, hf: !strings.HasPrefix(name, "vilt-original"), heads: heads}
	var c struct {
		Hidden    int     `json:"hidden_size"`
		Blocks    int     `json:"num_hidden_layers"`
		Heads     int     `json:"num_attention_heads"`
		MLP       int     `json:"intermediate_size"`
		Image     int     `json:"image_size"`
		Patch     int     `json:"patch_size"`
		Context   int     `json:"max_position_embeddings"`
		Vocab     int     `json:"vocab_size"`
		Eps       float64 `json:"layer_norm_eps"`
		NumImages int     `json:"num_images"`
		// The authors' names.
		NumLayers int `json:"num_layers"`
		NumHeads  int `json:"num_heads"`
		MLPRatio  int `json:"mlp_ratio"`
		MaxText   int `json:"max_text_len"`
	}
	f.JSON("config.json", &c)
	base := DefaultViLT()
	f.cfg = base.vilt()
	f.cfg.Width, f.cfg.Depth, f.cfg.NumHeads = c.Hidden, cmp.Or(c.Blocks, c.NumLayers), cmp.Or(c.Heads, c.NumHeads)
	f.cfg.MLPRatio = float64(c.MLPRatio)
	f.cfg.ImageSize, f.cfg.PatchSize, f.cfg.LongestSide = c.Image, c.Patch, 4*c.Image
	f.cfg.ContextLength, f.cfg.VocabSize, f.cfg.Dropout = cmp.Or(c.Context, c.MaxText), c.Vocab, 0
	if f.hf {
		f.cfg.MLPRatio = float64(c.MLP) / float64(c.Hidden)
		f.cfg.LayerNormEps, f.cfg.EmbedNormEps = c.Eps, c.Eps
	}
	if strings.HasSuffix(name, "nlvr2") {
		f.cfg.PictureTypes = 2
	}
	return f
}

// build lays out the model and reads its weights.
func (f *viltFixture) build() {
	var err error
	c := DefaultViLT()
	v := &c.Vision
	v.Transformer, v.ImageSize, v.PatchSize, c.Text.ContextLength, c.Text.VocabSize = f.cfg.Transformer, f.cfg.ImageSize, f.cfg.PatchSize, f.cfg.ContextLength, f.cfg.VocabSize
	c.ViLT = f.cfg.ViLTParts
	f.model, err = NewViLT(c, f.heads)
	require.NoError(f.t, err)
	f.weights = make([]float32, f.model.Layout.Size)
	for _, p := range f.model.Layout.Params {
		at := p.Slice(f.weights)
		for _, name := range f.parts(p.Name) {
			v, _ := f.Weight(name)
			at = at[copy(at, v):]
		}
		require.Empty(f.t, at, p.Name)
	}
}

// parts names the fixture's tensors that make up one of ours.
func (f *viltFixture) parts(name string) []string {
	if !f.hf {
		return []string{name}
	}
	return golden.ViLTNames(name)
}

// checkGrads compares the gradients of all parameters that the fixture has some of.
func (f *viltFixture) checkGrads(grads []float32) {
	n := 0
	for _, p := range f.model.Layout.Params {
		at := p.Slice(grads)
		for _, name := range f.parts(p.Name) {
			if !f.Has("grad." + name) {
				if !slices.ContainsFunc(at, func(v float32) bool { return v != 0 }) {
					at = nil
					break
				}
				f.t.Errorf("%s has a gradient, the reference has none", name)
				return
			}
			n++
			k := len(f.Float32("grad." + name))
			f.Check(f.t, "grad."+name, at[:k])
			at = at[k:]
		}
		require.Empty(f.t, at, p.Name)
	}
	want := 0
	for _, name := range f.Names() {
		if strings.HasPrefix(name, "grad.") && !strings.HasPrefix(name, "grad.tied.") && name != "grad.mlm_score.decoder.bias" {
			want++
		}
	}
	if f.Has("grad.mlm_score.bias") != f.Has("grad.mlm_score.decoder.bias") {
		n-- // the bias has one gradient under either name
	}
	require.GreaterOrEqual(f.t, n, want-1, "gradients compared")
}

// texts returns the rows of an (n, L) tensor of ids without their padding.
func (f *viltFixture) texts(ids, mask string) [][]int32 {
	shape, v, m := f.Shape(ids), f.Ints(ids), f.Ints(mask)
	length := shape[len(shape)-1]
	var out [][]int32
	for i := range len(v) / length {
		var text []int32
		for j := range length {
			if m[i*length+j] != 0 {
				text = append(text, int32(v[i*length+j]))
			}
		}
		out = append(out, text)
	}
	return out
}

// crop cuts what is not zero out of a canvas (3, H, W): the picture in its top left corner.
func crop(canvas []float32, h, w int) ops.Picture {
	on := func(y, x int) bool { return canvas[y*w+x]+canvas[h*w+y*w+x]+canvas[2*h*w+y*w+x] != 0 }
	p := ops.Picture{}
	for p.W < w && on(0, p.W) {
		p.W++
	}
	for p.H < h && on(p.H, 0) {
		p.H++
	}
	for c := range 3 {
		for y := range p.H {
			p.F32 = append(p.F32, canvas[(c*h+y)*w:][:p.W]...)
		}
	}
	return p
}

// pictures returns picture j of each sample of a tensor (B, [n,] 3, H, W).
func (f *viltFixture) pictures(name string, j, n int) []ops.Picture {
	shape, v := f.Shape(name), f.Float32(name)
	h, w := shape[len(shape)-2], shape[len(shape)-1]
	size := 3 * h * w
	var out []ops.Picture
	for i := j; i < len(v)/size; i += n {
		out = append(out, crop(v[i*size:], h, w))
	}
	return out
}

// viltRun is one graph of a fixture's model.
type viltRun struct {
	f     *viltFixture
	g     *ops.Graph
	prog  *ops.Program
	grads []float32
	binds []func(p *ops.Program)
}

func (f *viltFixture) run() *viltRun {
	return &viltRun{f: f, g: ops.NewGraph[float32](), grads: make([]float32, f.model.Layout.Size)}
}

// stream adds a pass.
func (r *viltRun) stream(name string, texts [][]int32, pics []ops.Picture, picture int) *Stream {
	m := r.f.model
	in, at := m.NewTexts(r.g, name+".text", len(texts)), m.NewImages(r.g, name+".image", len(pics), [3]float32{}, [3]float32{1, 1, 1}).Shapes
	r.binds = append(r.binds, func(p *ops.Program) {
		require.NoError(r.f.t, in.Set(p, texts))
		require.NoError(r.f.t, at.Set(p, pics, func(int) uint64 { return 0 }))
	})
	return m.Embed(r.g, in, at, name, picture, nil)
}

// forward compiles and runs.
func (r *viltRun) forward(outs ...*ops.Node) {
	t := r.f.t
	require.NoError(t, r.g.Err())
	var err error
	r.prog, err = r.g.Compile(ops.CompileOpt[float32]{Outputs: outs})
	require.NoError(t, err)
	pool := kernel.NewPool(2)
	t.Cleanup(func() { r.prog.Close(); pool.Close() })
	r.prog.Bind(&ops.Run[float32]{Weights: r.f.weights, Grads: r.grads, Arena: kernel.NewSlab(r.prog.ArenaSize()), Pool: pool, Train: true})
	for _, bind := range r.binds {
		bind(r.prog)
	}
	require.NoError(t, r.prog.Forward())
}

func (r *viltRun) backward(d map[*ops.Node][]float32, all ...*ops.Node) {
	for _, n := range all {
		g := d[n]
		if g == nil {
			g = make([]float32, len(r.prog.Value(n)))
		}
		r.prog.SetOutputGrad(n, g)
	}
	require.NoError(r.f.t, r.prog.Backward())
}

// crossEntropy returns the mean over rows of logits (rows, k) and its gradient.
func crossEntropy(logits []float32, labels []int, k int) (loss float64, grad []float32) {
	grad = make([]float32, len(logits))
	for i, label := range labels {
		row := logits[i*k : (i+1)*k]
		top, sum := float64(slices.Max(row)), 0.0
		for _, v := range row {
			sum += math.Exp(float64(v) - top)
		}
		lse := top + math.Log(sum)
		loss += (lse - float64(row[label])) / float64(len(labels))
		for c, v := range row {
			p := math.Exp(float64(v) - lse)
			if c == label {
				p--
			}
			grad[i*k+c] = float32(p / float64(len(labels)))
		}
	}
	return loss, grad
}

func (f *viltFixture) labels(name string) []int {
	var out []int
	for _, v := range f.Ints(name) {
		out = append(out, int(v))
	}
	return out
}

// checkHidden compares the states after the last norm: of words, of the class slot and of the patches.
func (f *viltFixture) checkHidden(prefix string, rows []float32, texts [][]int32, pics []ops.Picture) {
	d, want, at := f.cfg.Width, f.Float32(prefix+"text_hidden"), 0
	length := f.Shape(prefix + "text_hidden")[1]
	for i, text := range texts {
		n := len(text) * d
		golden.Close(f.t, prefix+"text_hidden", rows[at:at+n], want[i*length*d:i*length*d+n], f.Atol(prefix+"text_hidden"))
		golden.Close(f.t, prefix+"image_cls", rows[at+n:at+n+d], f.Float32(prefix + "image_cls")[i*d:(i+1)*d], f.Atol(prefix+"image_cls"))
		at += n + d
		n = pics[i].W / f.cfg.PatchSize * (pics[i].H / f.cfg.PatchSize) * d
		name := prefix + "image_hidden." + string(rune('0'+i))
		f.Check(f.t, name, rows[at:at+n])
		at += n
	}
	require.Len(f.t, rows, at)
}

// Hugging Face's ViltForMaskedLM: states, logits at every word, loss and all gradients, reading the masked words alone.
func TestViLTMaskedWords(t *testing.T) {
	for _, tied := range []bool{false, true} {
		f := loadViLT(t, "vilt-mlm", ViLTHeads{Words: true})
		f.cfg.TieWords = tied
		f.build()
		pics := f.pictures("in.pixel_values", 0, 1)
		masked := f.texts("in.masked_ids", "in.attention_mask")
		prefix := "out."
		if tied {
			prefix = "out.tied."
		}

		r := f.run()
		s := r.stream("mlm", masked, pics, 0)
		all := f.model.Encode(r.g, s, nil)
		pooled := f.model.Pool(r.g, r.g.Gather(all, r.g.First(s.Joined.Seqs).Rows))
		first := f.model.Pool(r.g, f.model.Encode(r.g, s, r.g.First(s.Joined.Seqs)))
		r.forward(all, pooled, first)
		f.checkHidden("out.", r.prog.Value(all), masked, pics)
		f.Check(t, "out.pooled", r.prog.Value(pooled))
		f.Check(t, "out.pooled", r.prog.Value(first))

		var rows, every []int32
		var labels []int
		length := f.Shape("in.labels")[1]
		want := f.Float32(prefix + "logits")
		var logitsWant []float32
		at := int32(0)
		for i, l := range f.labels("in.labels") {
			if j := i % length; j < len(masked[i/length]) {
				if l >= 0 {
					rows, labels = append(rows, at), append(labels, l)
				}
				every = append(every, at)
				logitsWant = append(logitsWant, want[i*f.cfg.VocabSize:(i+1)*f.cfg.VocabSize]...)
				at++
			}
		}
		for _, list := range [][]int32{every, rows} {
			r := f.run()
			s := r.stream("mlm", masked, pics, 0)
			read := r.g.Ints("masked", len(list))
			r.binds = append(r.binds, func(p *ops.Program) { p.SetInts(read, list) })
			logits := f.model.WordLogits(r.g, f.model.Encode(r.g, s, r.g.Pick(s.Joined, read)))
			r.forward(logits)
			if len(list) == len(every) {
				golden.Close(t, prefix+"logits", r.prog.Value(logits), logitsWant, f.Atol(prefix+"logits"))
				continue
			}
			loss, d := crossEntropy(r.prog.Value(logits), labels, f.cfg.VocabSize)
			if tied {
				f.Check(t, "loss.tied.mlm", []float32{float32(loss)})
			} else {
				f.Check(t, "loss.mlm", []float32{float32(loss)})
			}
			r.backward(map[*ops.Node][]float32{logits: d}, logits)
			if tied {
				f.Check(t, "grad.tied.word_embeddings", f.model.words.Slice(r.grads))
			} else {
				f.checkGrads(r.grads)
			}
		}
	}
}

// Hugging Face's ViltModel with a matching head; also with given patches where a cap drops some.
func TestViLTMatch(t *testing.T) {
	f := loadViLT(t, "vilt-itm", ViLTHeads{Match: true})
	f.build()
	texts, pics := f.texts("in.input_ids", "in.attention_mask"), f.pictures("in.pixel_values", 0, 1)
	r := f.run()
	s := r.stream("itm", texts, pics, 0)
	all := f.model.Encode(r.g, s, nil)
	r.forward(all)
	f.checkHidden("out.", r.prog.Value(all), texts, pics)

	r = f.run()
	s = r.stream("itm", texts, pics, 0)
	pooled := f.model.Pool(r.g, f.model.Encode(r.g, s, r.g.First(s.Joined.Seqs)))
	logits := f.model.MatchLogits(r.g, pooled)
	r.forward(pooled, logits)
	f.Check(t, "out.pooled", r.prog.Value(pooled))
	f.Check(t, "out.logits", r.prog.Value(logits))
	loss, d := crossEntropy(r.prog.Value(logits), f.labels("in.labels"), 2)
	f.Check(t, "loss.itm", []float32{float32(loss)})
	r.backward(map[*ops.Node][]float32{logits: d}, pooled, logits)
	f.checkGrads(r.grads)

	r = f.run()
	in, at := f.model.NewTexts(r.g, "text", len(texts)), f.model.NewImages(r.g, "image", len(pics), [3]float32{}, [3]float32{1, 1, 1}).Shapes
	most := f.Shape("in.select")[1]
	var take [][]ops.Patch
	for i, p := range pics {
		cols := p.W / f.cfg.PatchSize
		var list []ops.Patch
		for _, k := range f.Ints("in.select")[i*most : (i+1)*most] {
			list = append(list, ops.Patch{Row: int32(int(k) / cols), Col: int32(int(k) % cols)})
		}
		take = append(take, list)
	}
	r.binds = append(r.binds, func(p *ops.Program) {
		require.NoError(t, in.Set(p, texts))
		at.SetTaken(p, pics, take)
	})
	s = f.model.Embed(r.g, in, at, "itm", 0, nil)
	logits = f.model.MatchLogits(r.g, f.model.Pool(r.g, f.model.Encode(r.g, s, r.g.First(s.Joined.Seqs))))
	r.forward(logits)
	f.Check(t, "out.selected.logits", r.prog.Value(logits))
}

// Question answering: soft targets, binary cross-entropy summed over answers.
func TestViLTAnswers(t *testing.T) {
	for _, name := range []string{"vilt-vqa", "vilt-original-vqa"} {
		t.Run(name, func(t *testing.T) {
			f := loadViLT(t, name, ViLTHeads{})
			image, ids, mask, target, pooledName := "in.pixel_values", "in.input_ids", "in.attention_mask", "in.labels", "out.pooled"
			f.heads.ClassName = "classifier"
			if !f.hf {
				image, ids, mask, target, pooledName = "in.image", "in.text_ids", "in.text_masks", "in.targets", "out.cls_feats"
				f.heads.ClassName = "vqa_classifier"
			}
			f.heads.Classes = f.Shape(target)[1]
			f.build()
			texts, pics := f.texts(ids, mask), f.pictures(image, 0, 1)
			r := f.run()
			s := r.stream("vqa", texts, pics, 0)
			pooled := f.model.Pool(r.g, f.model.Encode(r.g, s, r.g.First(s.Joined.Seqs)))
			logits := f.model.ClassLogits(r.g, pooled)
			r.forward(pooled, logits)
			f.Check(t, pooledName, r.prog.Value(pooled))
			f.Check(t, "out.logits", r.prog.Value(logits))
			loss, d := 0.0, make([]float32, len(f.Float32(target)))
			for i, y := range f.Float32(target) {
				x := float64(r.prog.Value(logits)[i])
				loss += (math.Max(x, 0) - x*float64(y) + math.Log1p(math.Exp(-math.Abs(x)))) / float64(len(texts))
				d[i] = float32((1/(1+math.Exp(-x)) - float64(y)) / float64(len(texts)))
			}
			f.Check(t, "loss.vqa", []float32{float32(loss)})
			r.backward(map[*ops.Node][]float32{logits: d}, pooled, logits)
			f.checkGrads(r.grads)
		})
	}
}

// Two pictures of one sentence, with a type row each.
func TestViLTTwoPictures(t *testing.T) {
	for _, name := range []string{"vilt-nlvr2", "vilt-original-nlvr2"} {
		t.Run(name, func(t *testing.T) {
			f := loadViLT(t, name, ViLTHeads{Classes: 2, ClassName: "classifier"})
			var texts [][]int32
			var pics [2][]ops.Picture
			labels, pooledName := "in.labels", [2]string{"out.image0.pooled", "out.image1.pooled"}
			if f.hf {
				texts = f.texts("in.input_ids", "in.attention_mask")
				pics = [2][]ops.Picture{f.pictures("in.pixel_values", 0, 2), f.pictures("in.pixel_values", 1, 2)}
			} else {
				f.heads.ClassName = "nlvr2_classifier"
				texts = f.texts("in.text_ids", "in.text_masks")
				pics = [2][]ops.Picture{f.pictures("in.image_0", 0, 1), f.pictures("in.image_1", 0, 1)}
				labels, pooledName = "in.answers", [2]string{"out.cls_feats.0", "out.cls_feats.1"}
			}
			f.build()
			r := f.run()
			var pooled [2]*ops.Node
			for i := range pooled {
				s := r.stream("picture"+string(rune('0'+i)), texts, pics[i], i)
				pooled[i] = f.model.Pool(r.g, f.model.Encode(r.g, s, r.g.First(s.Joined.Seqs)))
			}
			logits := f.model.ClassLogits(r.g, r.g.SideBySide(pooled[0], pooled[1]))
			r.forward(pooled[0], pooled[1], logits)
			f.Check(t, pooledName[0], r.prog.Value(pooled[0]))
			f.Check(t, pooledName[1], r.prog.Value(pooled[1]))
			f.Check(t, "out.logits", r.prog.Value(logits))
			loss, d := crossEntropy(r.prog.Value(logits), f.labels(labels), 2)
			f.Check(t, "loss.nlvr2", []float32{float32(loss)})
			r.backward(map[*ops.Node][]float32{logits: d}, pooled[0], pooled[1], logits)
			f.checkGrads(r.grads)
		})
	}
}

// The rank score of Hugging Face's retrieval model, and the authors' loss over one true and several false sentences.
func TestViLTRank(t *testing.T) {
	f := loadViLT(t, "vilt-retrieval", ViLTHeads{Rank: true})
	f.build()
	texts, pics := f.texts("in.input_ids", "in.attention_mask"), f.pictures("in.pixel_values", 0, 1)
	r := f.run()
	s := r.stream("rank", texts, pics, 0)
	pooled := f.model.Pool(r.g, f.model.Encode(r.g, s, r.g.First(s.Joined.Seqs)))
	score := f.model.RankScore(r.g, pooled)
	r.forward(pooled, score)
	f.Check(t, "out.pooled", r.prog.Value(pooled))
	f.Check(t, "out.logits", r.prog.Value(score))

	f = loadViLT(t, "vilt-original-irtr", ViLTHeads{Rank: true, Match: true})
	f.build()
	own, other, pictures := f.texts("in.text_ids", "in.text_masks"), f.texts("in.false_text_ids", "in.false_text_masks"), f.pictures("in.image", 0, 1)
	k := len(other)/len(own) + 1
	texts, pics = nil, nil
	for i, text := range own {
		texts = append(append(texts, text), other[i*(k-1):(i+1)*(k-1)]...)
		pics = append(pics, slices.Repeat(pictures[i:i+1], k)...)
	}
	r = f.run()
	s = r.stream("rank", texts, pics, 0)
	pooled = f.model.Pool(r.g, f.model.Encode(r.g, s, r.g.First(s.Joined.Seqs)))
	score = f.model.RankScore(r.g, pooled)
	r.forward(pooled, score)
	f.Check(t, "out.cls_feats", r.prog.Value(pooled))
	f.Check(t, "out.scores", r.prog.Value(score))
	loss, d := crossEntropy(r.prog.Value(score), make([]int, len(own)), k)
	f.Check(t, "loss.irtr", []float32{float32(loss)})
	r.backward(map[*ops.Node][]float32{score: d}, pooled, score)
	f.checkGrads(r.grads)
}

// Presets are valid, and vilt-b32 has the paper's numbers: 135,660,092 parameters with the heads of pre-training (spec/vilt 1.1),
// 228 patches at most, of which 200 are taken.
func TestViLTPresets(t *testing.T) {
	for name, c := range ViLTPresets {
		require.NoError(t, c.Validate(), name)
	}
	c := ViLTPresets["vilt-b32"]
	m, err := NewViLT(c, ViLTHeads{Match: true, Words: true})
	require.NoError(t, err)
	require.Equal(t, 135660092, m.Layout.Count())
	require.Equal(t, 200, m.cfg.MostPatches())
	m.cfg.MaxPatches = 0
	require.Equal(t, 12*19, m.cfg.MostPatches())

	c.ViLT = ViLTParts{LongestSide: 100, MaxPatches: -1, EmbedNormEps: math.NaN(), PictureTypes: 3}
	c.Text.ContextLength, c.Text.VocabSize, c.Text.Causal = 2, 0, true
	c.Vision.DropPath, c.Vision.Positions, c.EmbedDim = 0.1, "none", 8
	err = c.Validate()
	for _, want := range []string{"vilt.longestSide: 100, want 0 or a multiple of patchSize 32, 384 to", "vilt.maxPatches: -1", "vilt.embedNormEps: NaN",
		"vilt.pictureTypes: 3", "text.contextLength: 2", "text.vocabSize: 0", "text: a vilt has", "vision: a vilt has", "vision.dropPath: 0.1", "embedDim: 8"} {
		require.ErrorContains(t, err, "model."+want)
	}
}

// A draw beyond the cap takes that many different patches, and another address takes others.
func TestPatchCap(t *testing.T) {
	in := &PictureInput{patch: 8, most: 20}
	seen := map[int]int{}
	for key := range uint64(400) {
		list := slices.Clone(in.draw(30, 0, func(int) uint64 { return key }))
		require.Len(t, list, 20)
		require.True(t, slices.IsSorted(list))
		require.Len(t, slices.Compact(list), 20)
		for _, k := range list {
			seen[k]++
		}
	}
	for k := range 30 { // 400·2/3 with a standard deviation of 9.4
		require.InDelta(t, 267, seen[k], 50, k)
	}
	require.Len(t, in.draw(20, 0, nil), 20)
}
