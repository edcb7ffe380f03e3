package experiments

import (
	"bytes"
	"context"
	"fmt"
	"image"
	"image/png"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"diptych/checkpoints"
	"diptych/checkpoints/bridge"
	"diptych/checkpoints/safetensors"
	"diptych/data/arrowset"
	"diptych/eval"
	"diptych/internal/kernel"
)

// untrained writes a finished model's folder of a recipe with initial weights.
func untrained(t testing.TB, recipe string, sets ...string) string {
	cfg, err := Load(recipe, sets)
	require.NoError(t, err)
	p, err := cfg.build(nil)
	require.NoError(t, err)
	l := p.model.Parameters()
	slab := make([]float32, l.Size)
	pool := kernel.NewPool(1)
	defer pool.Close()
	l.Init(pool, slab, 7)
	state := &checkpoints.State{Recipe: string(cfg.YAML()), Files: map[string][]checkpoints.Tensor{fileModel: tensors(l, "", slab)}}
	dir := filepath.Join(t.TempDir(), "model")
	require.NoError(t, checkpoints.WriteFolder(checkpoints.Disk, dir, state))
	return dir
}

// What is exported and imported again computes the same bits: weights, vocabulary and preprocessing are the same.
func TestExportImport(t *testing.T) {
	from := untrained(t, DefaultRecipe)
	texts := []string{"a red fruit", "two dogs on the moon"}
	encode := func(dir string) ([]float32, *Config) {
		m, err := OpenModel(dir, 1)
		require.NoError(t, err)
		defer m.Close()
		out, err := m.Texts(context.Background(), texts)
		require.NoError(t, err)
		side, _ := m.ImageSides()
		picture, err := m.Images(context.Background(), 1, func(_ int, dst []uint8) error {
			for i := range side * side * 3 {
				dst[i] = uint8(i * 7)
			}
			return nil
		})
		require.NoError(t, err)
		return append(out, picture...), m.Config()
	}
	want, cfg := encode(from)
	for _, x := range []struct{ family, dtype string }{{"hf", ""}, {"open_clip", ""}, {"open_clip-custom", "fp16"}, {"hf", "bf16"}} {
		dir := t.TempDir()
		res, err := Export(from, filepath.Join(dir, "out"), ExportOptions{Family: x.family, DType: x.dtype})
		require.NoError(t, err, x.family)
		require.NotZero(t, res.Tensors)
		m, err := Import(filepath.Join(dir, "out"), filepath.Join(dir, "in"), ImportOptions{})
		require.NoError(t, err, x.family)
		require.Equal(t, x.family, m.Family)
		require.NoError(t, os.RemoveAll(filepath.Join(dir, "out")), "the folder holds a copy of the vocabulary")
		got, again := encode(filepath.Join(dir, "in"))
		vision, text := cfg.Model.Vision, cfg.Model.Text
		vision.PatchBias = false // is in the positions now
		text.Dropout = 0         // training's own; no public file holds it
		require.Equal(t, vision, again.Model.Vision)
		require.Equal(t, text, again.Model.Text)
		tolerance := 1e-6
		if x.dtype != "" {
			tolerance = 0.02
		}
		texts := len(texts) * cfg.Model.EmbedDim
		if x.dtype == "" {
			require.Equal(t, want[:texts], got[:texts], x.family)
		}
		for i := range want {
			require.InDelta(t, want[i], got[i], tolerance, x.family)
		}
	}
	_, err := Export(from, from, ExportOptions{Family: "hf"})
	require.ErrorIs(t, err, ErrExists)
	_, err = Export(from, filepath.Join(t.TempDir(), "x"), ExportOptions{Family: "hf-vit"})
	require.ErrorContains(t, err, "has no name for")
	_, err = Import(filepath.Join(t.TempDir(), "absent.pt"), filepath.Join(t.TempDir(), "x"), ImportOptions{})
	require.ErrorIs(t, err, os.ErrNotExist)
}

// A ViLT's run goes out in both namings and comes back: it scores and guesses the same bits, but for transformers' one epsilon, and can be fine-tuned.
func TestExportImportViLT(t *testing.T) {
	from := untrained(t, "vilt-emoji", "model.vilt.longestSide=72", "data.evalTransforms=[{op: min_max_resize}, {op: normalize, stats: half}]",
		"data.transforms=[{op: min_max_resize}, {op: normalize, stats: half}]", "model.vision.depth=1", "model.vision.width=40", "model.vision.numHeads=5",
		"data.tokenizer.file=bert-base-uncased", "engine.precision=fp32")
	picture := pngOf(t, 50, 70)
	use := func(dir string) (*Score, [][]Word, *Config) {
		m, err := OpenPairs(dir, 1)
		require.NoError(t, err)
		defer m.Close()
		im, err := m.Picture(picture)
		require.NoError(t, err)
		score, err := m.Score(im, "a red fruit")
		require.NoError(t, err)
		words, err := m.FillText(im, "a [MASK] fruit", 5)
		require.NoError(t, err)
		return score, words, m.Config()
	}
	score, words, cfg := use(from)
	for family, tolerance := range map[string]float64{"vilt": 0, "hf-vilt": 1e-4} {
		dir := t.TempDir()
		out := filepath.Join(dir, "out")
		res, err := Export(from, out, ExportOptions{Family: family})
		require.NoError(t, err, family)
		require.Equal(t, tolerance > 0, len(res.Notes) > 0)
		m, err := Import(out, filepath.Join(dir, "in"), ImportOptions{Sets: []string{"model.vision.numHeads=5"}})
		require.NoError(t, err, family)
		require.Equal(t, family, m.Family)
		require.NoError(t, os.RemoveAll(out), "the folder holds copies")
		gotScore, gotWords, again := use(filepath.Join(dir, "in"))
		require.Equal(t, []int{cfg.Model.Vision.ImageSize, cfg.Model.Text.ContextLength}, []int{again.Model.Vision.ImageSize, again.Model.Text.ContextLength})
		require.Equal(t, []int{score.Rows, score.Cols}, []int{gotScore.Rows, gotScore.Cols}, "pictures are made alike")
		require.InDelta(t, score.LogOdds, gotScore.LogOdds, tolerance)
		for i := range words[0] {
			require.Equal(t, words[0][i].Text, gotWords[0][i].Text)
			require.InDelta(t, words[0][i].Probability, gotWords[0][i].Probability, tolerance)
		}
		further, err := Parse("name: more\nseed: 1\nstart: {from: "+filepath.Join(dir, "in")+"}\nmodel: {vision: {imageSize: 72}}\ndata: {path: demo}\n"+
			"losses: [{name: itm}, {name: mlm}]\ntrain: {steps: 1, globalBatch: 16, lanes: 2}", nil)
		require.NoError(t, err)
		p, err := further.build(nil)
		require.NoError(t, err)
		notes, err := further.Start.begin(p.model, make([]float32, p.model.Parameters().Size))
		require.NoError(t, err)
		require.Equal(t, []string{"transformer.pos_embed: [1 17 40] resampled to [1 37 40]"}, notes)
	}
}

// A ViLT begins with a ViT's blocks, patches and resampled positions, bit for bit, and, where the recipe says so, a BERT's embeddings; all else begins
// anew (Kim et al. 2021, §4.1).
func TestStartViLT(t *testing.T) {
	dir := t.TempDir()
	vit := filepath.Join(dir, "vit")
	_, err := Import("../train/testdata/vit-token", vit, ImportOptions{})
	require.NoError(t, err)
	src, err := OpenWeights(vit)
	require.NoError(t, err)
	defer src.Close()
	shape := func(name string) []int { info, err := src.Info(name); require.NoError(t, err); return info.Shape }
	d := shape("norm.weight")[0]
	old := int(math.Sqrt(float64(shape("pos_embed")[0] - 1)))
	begin := func(extra string) (*parts, []float32, []float32, []string, error) {
		cfg, err := Parse(fmt.Sprintf("name: v\nseed: 1\nstart: {from: %s%s}\ndata: {path: demo, tokenizer: {kind: wordpiece, file: bert-base-uncased}, transforms: [{op: min_max_resize}, {op: normalize, stats: half}],"+
			" evalTransforms: [{op: min_max_resize}, {op: normalize, stats: half}]}\nmodel: {kind: vilt, vision: {imageSize: %d, patchSize: %d, width: %d, depth: 2, numHeads: 2, mlpRatio: %v}, text: {contextLength: 10}}\n"+
			"losses: [{name: itm}]\ntrain: {steps: 1, globalBatch: 16, lanes: 2}", vit, extra, (old+1)*shape("patch_embed.proj.weight")[2], shape("patch_embed.proj.weight")[2], d, float64(shape("blocks.0.mlp.fc1.bias")[0])/float64(d)), nil)
		require.NoError(t, err)
		p, err := cfg.build(nil)
		require.NoError(t, err)
		slab, initial := make([]float32, p.model.Parameters().Size), make([]float32, p.model.Parameters().Size)
		pool := kernel.NewPool(1)
		defer pool.Close()
		p.model.Parameters().Init(pool, slab, 1)
		copy(initial, slab)
		notes, err := cfg.Start.begin(p.model, slab)
		return p, slab, initial, notes, err
	}
	p, slab, initial, notes, err := begin("")
	require.NoError(t, err)
	trunk := 0
	for _, q := range p.model.Parameters().Params {
		name, ok := strings.CutPrefix(q.Name, "transformer.")
		if !ok {
			require.Equal(t, q.Slice(initial), q.Slice(slab), q.Name)
			require.Contains(t, notes, q.Name+" begins anew")
			continue
		}
		trunk++
		want := make([]float32, safetensors.Info{Shape: shape(name)}.Len())
		require.NoError(t, src.ReadFloat32(name, want))
		if name == "pos_embed" {
			want, err = bridge.ResizePositions(bridge.MethodGoogle, want, d, 1, [2]int{old, old}, [2]int{old + 1, old + 1})
			require.NoError(t, err)
		}
		require.Equal(t, want, q.Slice(slab), q.Name)
	}
	require.Equal(t, 2*12+2+2+2, trunk)
	require.Contains(t, notes, "left behind: head.weight, head.bias")

	_, _, _, _, err = begin(", words: ../model/testdata/bert")
	require.ErrorContains(t, err, fmt.Sprintf("embeddings.word_embeddings.weight has shape [60 32], the model's text_embeddings.word_embeddings.weight wants [30522 %d]", d))
	require.ErrorIs(t, err, ErrRecipe)
	p, slab, _, notes, err = begin(", words: " + bertOf(t, d))
	require.NoError(t, err)
	for _, q := range p.model.Parameters().Params {
		if !strings.HasPrefix(q.Name, "text_embeddings.") {
			continue
		}
		want := make([]float32, q.Len()) // of 512 places the first 10
		for i := range want {
			want[i] = float32(i % 1000)
		}
		require.Equal(t, want, q.Slice(slab), q.Name)
		require.NotContains(t, notes, q.Name+" begins anew")
	}
}

// bertOf writes a folder with the embeddings of a BertModel of that width and bert-base-uncased's vocabulary.
func bertOf(t testing.TB, d int) string {
	dir := t.TempDir()
	table := func(name string, rows ...int) safetensors.Tensor {
		shape := append(rows, d)
		v := make([]float32, safetensors.Info{Shape: shape}.Len())
		for i := range v {
			v[i] = float32(i % 1000)
		}
		return safetensors.Floats("bert.embeddings."+name, shape, v)
	}
	var b bytes.Buffer
	require.NoError(t, safetensors.Write(&b, []safetensors.Tensor{table("word_embeddings.weight", 30522), table("position_embeddings.weight", 512), table("token_type_embeddings.weight", 2),
		table("LayerNorm.weight"), table("LayerNorm.bias")}, nil))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "model.safetensors"), b.Bytes(), 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "config.json"), fmt.Appendf(nil, `{"model_type": "bert", "hidden_size": %d, "num_hidden_layers": 1, "num_attention_heads": 1,
		"intermediate_size": 8, "hidden_act": "gelu", "layer_norm_eps": 1e-12, "vocab_size": 30522, "max_position_embeddings": 512, "type_vocab_size": 2}`, d), 0o600))
	return dir
}

// A ViLT with each of its other heads is imported from either naming, can be used, and goes out again with the bits that it came with.
func TestImportViLTHeads(t *testing.T) {
	words := filepath.Join(t.TempDir(), "vocab.txt")
	text := "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nwhat\nis\nthis\n"
	for i := range 92 {
		text += fmt.Sprintf("w%d\n", i)
	}
	require.NoError(t, os.WriteFile(words, []byte(text), 0o600))
	for name, x := range map[string]struct {
		tasks []eval.Task
		class string
	}{
		"vilt-vqa": {[]eval.Task{eval.TaskVQA}, "LABEL_7"}, "vilt-original-vqa": {[]eval.Task{eval.TaskVQA}, "7"},
		"vilt-nlvr2": {[]eval.Task{eval.TaskNLVR2}, "LABEL_1"}, "vilt-original-nlvr2": {[]eval.Task{eval.TaskNLVR2}, "1"},
		"vilt-retrieval": {[]eval.Task{eval.TaskMatch}, ""}, "vilt-original-irtr": {[]eval.Task{eval.TaskMatch}, ""},
	} {
		dir := t.TempDir()
		from := "../model/testdata/" + name
		_, err := Import(from, filepath.Join(dir, "in"), ImportOptions{Tokenizer: words})
		require.NoError(t, err, name)
		m, err := OpenPairs(filepath.Join(dir, "in"), 1)
		require.NoError(t, err, name)
		require.Equal(t, x.tasks, m.Tasks(), name)
		_, classes := m.Classes()
		if x.class != "" {
			require.True(t, slices.ContainsFunc(classes, func(c arrowset.Class) bool { return c.Text == x.class }), name)
		}
		m.Close()
		for _, family := range []string{"vilt", "hf-vilt"} {
			out := filepath.Join(dir, family)
			_, err = Export(filepath.Join(dir, "in"), out, ExportOptions{Family: family})
			require.NoError(t, err, "%s as %s", name, family)
			diffs, err := DiffWeights(from, out)
			require.NoError(t, err)
			require.NotEmpty(t, diffs)
			for _, d := range diffs {
				require.False(t, d.Differ(), "%s as %s: %v", name, family, d)
			}
		}
	}
}

// pngOf encodes a picture of so many pixels.
func pngOf(t testing.TB, w, h int) []byte {
	im := image.NewRGBA(image.Rect(0, 0, w, h))
	for i := range im.Pix {
		im.Pix[i] = uint8(i*i>>3 | 3)
	}
	var b bytes.Buffer
	require.NoError(t, png.Encode(&b, im))
	return b.Bytes()
}

// A file without a vocabulary that fits is refused before anything is written, also what is no model.
func TestImportRefuses(t *testing.T) {
	out := filepath.Join(t.TempDir(), "x")
	_, err := Import("../checkpoints/bridge/testdata/hf", out, ImportOptions{})
	require.ErrorContains(t, err, "the vocabulary has 64 entries, CLIP's 49408")
	_, err = Import("../checkpoints/bridge/testdata/vit-hf", out, ImportOptions{Positions: "bogus"})
	require.ErrorIs(t, err, ErrRecipe)
	require.ErrorContains(t, err, "--positions bogus is unknown; known: google, hf, open_clip, timm_npz")
	_, err = Import("../checkpoints/torchfile/testdata/views.pt", out, ImportOptions{})
	require.ErrorIs(t, err, bridge.ErrUnknown)
	_, err = Import("../model/testdata/vilt-mlm", out, ImportOptions{})
	require.ErrorContains(t, err, "the vocabulary has 140 entries, bert-base-uncased 30522")
	require.NoFileExists(t, out)
}

// A classifier is imported with the names of its classes.
func TestImportClassifier(t *testing.T) {
	out := filepath.Join(t.TempDir(), "vit")
	m, err := Import("../checkpoints/bridge/testdata/vit-hf", out, ImportOptions{})
	require.NoError(t, err)
	require.Equal(t, "hf-vit", m.Family)
	opened, err := OpenModel(out, 1)
	require.NoError(t, err)
	defer opened.Close()
	_, classes := opened.Classes()
	require.Len(t, classes, 6)
	require.Equal(t, "LABEL_3", classes[3].Text)
	require.Equal(t, 1e-12, opened.Config().Model.Vision.LayerNormEps)
	for _, family := range []string{"hf-vit"} {
		_, err := Export(out, filepath.Join(t.TempDir(), family), ExportOptions{Family: family})
		require.NoError(t, err)
	}
}

// A ViT without a classifier gives unit rows and features, has no task of its own, and a classifier starts from it without a word about its head.
func TestImportHeadless(t *testing.T) {
	const fixtures = "../checkpoints/bridge/testdata/"
	for name, representation := range map[string]int{"vit-hf-bare": 16, "vit-timm-bare": 0} {
		dir := filepath.Join(t.TempDir(), name)
		_, err := Import(fixtures+name, dir, ImportOptions{})
		require.NoError(t, err)
		m, err := OpenModel(dir, 1)
		require.NoError(t, err)
		defer m.Close()
		require.Equal(t, representation, m.Config().Model.Representation)
		require.Empty(t, m.Tasks())
		encoded := pngOf(t, 30, 24)
		row, err := m.Images(t.Context(), 1, func(_ int, dst []uint8) error { return m.Prepare(encoded, dst) })
		require.NoError(t, err)
		features, rows, err := m.Features(t.Context(), 1, func(_ int, dst []uint8) error { return m.Prepare(encoded, dst) }, true)
		require.NoError(t, err)
		require.Len(t, row, 16)
		require.Equal(t, row, rows)
		var square, cosine, length float64
		for i, v := range row {
			square, cosine, length = square+float64(v)*float64(v), cosine+float64(v)*float64(features[i]), length+float64(features[i])*float64(features[i])
		}
		require.InDelta(t, 1, square, 1e-5)
		if same := cosine / math.Sqrt(length); representation == 0 {
			require.InDelta(t, 1, same, 1e-5, "the rows are the features'")
		} else {
			require.Less(t, same, 0.99, "the pooler is between them")
		}
		_, err = m.Texts(t.Context(), []string{"a cat"})
		require.ErrorIs(t, err, eval.ErrRequest)

		recipe := "name: c\nseed: 1\nstart: {from: " + dir + "}\ndata: {path: demo%s}\nlosses: [{name: classify}]\ntrain: {steps: 1, globalBatch: 16, lanes: 2}"
		cfg, err := Parse(fmt.Sprintf(recipe, ""), nil)
		if err == nil {
			_, err = cfg.build(nil)
		}
		require.ErrorContains(t, err, "data.classes: empty")
		cfg, err = Parse(fmt.Sprintf(recipe, ", classes: category"), nil)
		require.NoError(t, err)
		p, err := cfg.build(nil)
		require.NoError(t, err)
		require.Equal(t, len(p.classes), cfg.Model.NumClasses)
		slab := make([]float32, p.model.Parameters().Size)
		for _, name := range []string{"head.weight", "head.bias"} {
			p.model.Parameters().Find(name).Slice(slab)[0] = 7
		}
		notes, err := cfg.Start.begin(p.model, slab)
		require.NoError(t, err)
		require.Equal(t, []string{
			"head.weight begins as a new classifier's, which the start does not have", "head.bias begins as a new classifier's, which the start does not have",
		}, notes)
		require.Equal(t, float32(7), p.model.Parameters().Find("head.weight").Slice(slab)[0], "its initial value")
	}
}
